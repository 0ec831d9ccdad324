//! STUB: PROXY headers.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::net::SocketAddr;

/// The longest header we accept (X4).
pub const HEADER_IN_MAX: usize = 4096;
/// The longest header we can be configured to send.
pub const HEADER_OUT_MAX: usize = 536;
/// v2 LOCAL without addresses, for probes (X12).
pub const LOCAL_V2: [u8; 16] = [
    0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x20, 0x00, 0, 0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// What a valid header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedHeader {
    /// Octets of the header; what follows belongs to the stream.
    pub length: usize,
    /// Source and destination; `None` for LOCAL, UNKNOWN and UNSPEC: use the socket's own.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// TLVs kept for the header we send on: boxed, because most headers carry none.
    pub tlvs: Option<Box<ReceivedTlvs>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedTlvs {
    pub unique_id: Option<Vec<u8>>,
    pub authority: Option<String>,
    pub ssl: Option<SslTlv>,
}

/// PP2_TYPE_SSL as received, octets of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SslTlv(pub Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRead {
    Incomplete,
    Complete(ReceivedHeader),
    Invalid(HeaderError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("not a PROXY header")]
    NotAHeader,
    #[error("header longer than allowed")]
    TooLong,
    #[error("malformed header")]
    Malformed,
    #[error("CRC32c does not match")]
    Checksum,
}

/// Reads a header from all octets received so far. Stateless: call it again with more.
pub fn read_header(octets: &[u8]) -> HeaderRead {
    todo!()
}

/// The header for a backend, on the stack.
#[derive(Clone, Debug)]
pub struct HeaderOut {
    octets: [u8; HEADER_OUT_MAX],
    length: usize,
}

impl HeaderOut {
    /// `max` octets at most; TLVs are dropped in the order SSL, AUTHORITY, UNIQUE_ID rather than
    /// exceed it. Mixed families become v6-mapped pairs; v4-mapped pairs become IPv4 (X9).
    pub fn new(
        version: ProxyVersion,
        source: SocketAddr,
        destination: SocketAddr,
        tlvs: Option<&ReceivedTlvs>,
        unique_id: &[u8],
        max: usize,
    ) -> Self {
        todo!()
    }
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}
