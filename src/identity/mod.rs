//! Who the client is: PROXY protocol v1 and v2, in and out (rules X1–X13).
//!
//! Parsing by the `proxy-header` crate behind a door of our own that adds what it leaves out:
//! canonical v1 (X3), CRC32c (X6), the size limit (X4), a verdict at the first octet that decides.
//! Whom to believe (X1) and how long to wait (X2) is the session's business, not ours.

mod crc32c;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod proxy_in;
mod proxy_out;

#[cfg(any(test, fuzzing))]
pub use fuzzing::fuzz_header;
pub use proxy_in::{
    HEADER_IN_MAX, HeaderError, HeaderRead, ReceivedHeader, ReceivedTlvs, SslTlv, UNIQUE_ID_MAX,
    read_header,
};
pub use proxy_out::{HEADER_OUT_MAX, HeaderOut, LOCAL_V2, ProxyVersion};

/// The twelve octets every v2 header begins with.
const SIGNATURE_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Octets of a v2 header before its addresses: signature, command, family, length.
const FIXED_V2: usize = 16;

/// TLV types of the PROXY protocol §2.2.1–2.2.8 that mean something to us.
mod tlv {
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const UNIQUE_ID: u8 = 0x05;
    pub(super) const SSL: u8 = 0x20;
    /// Octets of type and length in front of each value.
    pub(super) const HEAD: usize = 3;
}
