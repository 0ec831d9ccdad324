//! PROXY headers that clients' balancers send us (rules X2–X6).
//!
//! The reader is stateless and exact: octets that can still become a valid header are
//! `Incomplete`, all others are `Invalid` at the first octet that decides, so a port scanner waits
//! for no timer. What cannot be told before the end is the checksum. Nothing is allocated for a
//! header without TLVs. Specification: HAProxy's proxy-protocol.txt.

use std::net::SocketAddr;

use memchr::{memchr, memchr_iter};
use proxy_header::{ParseConfig, Protocol, ProxyHeader};

use super::crc32c::crc32c;
use super::{FIXED_V2, SIGNATURE_V2, tlv};

/// The longest header we accept (rule X4).
pub const HEADER_IN_MAX: usize = 4096;
/// The longest PP2_TYPE_UNIQUE_ID (PROXY protocol §2.2.5).
pub const UNIQUE_ID_MAX: usize = 128;
/// The longest v1 header, CRLF included (PROXY protocol §2.1).
const V1_MAX: usize = 107;

/// What a valid header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedHeader {
    /// Octets of the header; what follows belongs to the stream.
    pub length: usize,
    /// Source and destination; `None` for LOCAL, UNKNOWN, UNSPEC, datagrams and Unix sockets: use
    /// the socket's own.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// TLVs kept for the header we send on: boxed, because most headers carry none.
    pub tlvs: Option<Box<ReceivedTlvs>>,
}

/// The TLVs that are worth sending on. Of a type that occurs twice the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedTlvs {
    /// PP2_TYPE_UNIQUE_ID, 1 to [`UNIQUE_ID_MAX`] octets.
    pub unique_id: Option<Vec<u8>>,
    /// PP2_TYPE_AUTHORITY: the name the client asked for in TLS. Left out if it is not UTF-8.
    pub authority: Option<String>,
    /// PP2_TYPE_SSL.
    pub ssl: Option<SslTlv>,
}

/// PP2_TYPE_SSL as received, octets of the value: five or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SslTlv(pub Vec<u8>);

/// What the octets received so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRead {
    /// The beginning of at least one valid header.
    Incomplete,
    /// A whole header.
    Complete(ReceivedHeader),
    /// No header, whatever follows.
    Invalid(HeaderError),
}

/// Why octets are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The octets begin neither like v1 nor like v2.
    #[error("not a PROXY header")]
    NotAHeader,
    /// v2 over [`HEADER_IN_MAX`].
    #[error("header longer than allowed")]
    TooLong,
    /// It begins like a header and breaks its rules.
    #[error("malformed header")]
    Malformed,
    /// PP2_TYPE_CRC32C is there and wrong.
    #[error("CRC32c does not match")]
    Checksum,
}

/// Reads a header from all octets received so far. Stateless: call it again with more.
pub fn read_header(octets: &[u8]) -> HeaderRead {
    let read = match octets.first() {
        None => return HeaderRead::Incomplete,
        Some(b'P') => read_v1(octets),
        Some(b'\r') => read_v2(octets),
        Some(_) => Err(HeaderError::NotAHeader),
    };
    match read {
        Ok(Some(header)) => HeaderRead::Complete(header),
        Ok(None) => HeaderRead::Incomplete,
        Err(error) => HeaderRead::Invalid(error),
    }
}

/// `None` is incomplete, here and below.
type Read = Result<Option<ReceivedHeader>, HeaderError>;

fn read_v1(octets: &[u8]) -> Read {
    let start = b"PROXY ";
    if octets
        .iter()
        .zip(start)
        .any(|(octet, expected)| octet != expected)
    {
        return Err(HeaderError::NotAHeader);
    }
    let line = &octets[..octets.len().min(V1_MAX)];
    match memchr(b'\n', line) {
        Some(end) => whole_v1(&line[..=end])
            .map(Some)
            .ok_or(HeaderError::Malformed),
        None if can_become_v1(line) => Ok(None),
        None => Err(HeaderError::Malformed),
    }
}

/// Reads a v1 header that ends at its first LF, if it is canonical (rule X3).
fn whole_v1(line: &[u8]) -> Option<ReceivedHeader> {
    let rest = line.strip_prefix(b"PROXY ")?.strip_suffix(b"\r\n")?;
    match rest.strip_prefix(b"UNKNOWN") {
        // What the sender says of an unknown connection is to be ignored.
        Some([] | [b' ', ..]) => {}
        Some(_) => return None,
        // Of family and addresses the crate is strict, of ports it is not.
        None if !rest
            .rsplit(|&octet| octet == b' ')
            .take(2)
            .all(is_canonical_port) =>
        {
            return None;
        }
        None => {}
    }
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: true,
        allow_v2: false,
    };
    let (header, length) = ProxyHeader::parse(line, config).ok()?;
    let addresses = header
        .proxied_address()
        .map(|pair| (pair.source, pair.destination));
    (length == line.len()).then_some(ReceivedHeader {
        length,
        addresses,
        tlvs: None,
    })
}

/// Digits without a leading zero; the crate also takes `+25` and `025`.
fn is_canonical_port(port: &[u8]) -> bool {
    port.iter().all(u8::is_ascii_digit) && (port == b"0" || !port.starts_with(b"0"))
}

/// Whether octets without LF can be continued to a valid v1 header.
///
/// Tried with the shortest continuation of each kind: one that completes the word the octets end
/// in, then the rest of the header. Each begun address or port has a completion in `WORDS`.
fn can_become_v1(begun: &[u8]) -> bool {
    const FAMILIES: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN\r\n"];
    const WORDS: [&[u8]; 13] = [
        b"", b"0", b":", b"::", b"0.0", b".0", b"0.0.0", b".0.0", b"0.0.0.0", b".0.0.0", b":0",
        b":0.0", b"\n",
    ];
    if FAMILIES.iter().any(|family| family.starts_with(begun)) {
        return true;
    }
    let address: &[u8] = if begun.starts_with(FAMILIES[0]) {
        b" 0.0.0.0"
    } else {
        b" ::"
    };
    let rest: [&[u8]; 4] = match memchr_iter(b' ', begun).count() {
        2 if !begun.starts_with(b"PROXY UNKNOWN") => [address, b" 0", b" 0", b"\r\n"],
        3 if !begun.starts_with(b"PROXY UNKNOWN") => [b" 0", b" 0", b"\r\n", b""],
        4 if !begun.starts_with(b"PROXY UNKNOWN") => [b" 0", b"\r\n", b"", b""],
        _ => [b"\r\n", b"", b"", b""],
    };
    WORDS.iter().any(|word| {
        let mut line = [0; V1_MAX];
        // A CR in hand lacks nothing but its LF.
        let parts = if *word == b"\n" {
            [b"".as_slice(); 4]
        } else {
            rest
        };
        let mut length = 0;
        for part in [begun, *word].into_iter().chain(parts) {
            let Some(room) = line.get_mut(length..length + part.len()) else {
                return false;
            };
            room.copy_from_slice(part);
            length += part.len();
        }
        whole_v1(&line[..length]).is_some()
    })
}

fn read_v2(octets: &[u8]) -> Read {
    if octets
        .iter()
        .zip(&SIGNATURE_V2)
        .any(|(octet, expected)| octet != expected)
    {
        return Err(HeaderError::NotAHeader);
    }
    let Some(&command) = octets.get(12) else {
        return Ok(None);
    };
    let command = Command::of(command).ok_or(HeaderError::Malformed)?;
    let Some(&family) = octets.get(13) else {
        return Ok(None);
    };
    let addresses_length = match command {
        // Whatever a LOCAL header carries is to be skipped.
        Command::Local => 0,
        Command::Proxy => addresses_length(family).ok_or(HeaderError::Malformed)?,
    };
    let Some(&high) = octets.get(14) else {
        return Ok(None);
    };
    let low = octets.get(15).copied();
    let length = FIXED_V2 + usize::from(u16::from_be_bytes([high, low.unwrap_or(0)]));
    if length > HEADER_IN_MAX {
        return Err(HeaderError::TooLong);
    }
    if low.is_none() {
        return Ok(None);
    }
    let header = &octets[..octets.len().min(length)];
    let complete = header.len() == length;
    match command {
        Command::Local if complete => Ok(Some(ReceivedHeader {
            length,
            addresses: None,
            tlvs: None,
        })),
        Command::Local => Ok(None),
        Command::Proxy if length < FIXED_V2 + addresses_length => Err(HeaderError::Malformed),
        Command::Proxy => {
            let tlvs = check_tlvs(header, FIXED_V2 + addresses_length, length)?;
            if !complete {
                return Ok(None);
            }
            let addresses = addresses_v2(header)?;
            Ok(Some(ReceivedHeader {
                length,
                addresses,
                tlvs: tlvs.collect(header)?,
            }))
        }
    }
}

/// The low half of octet 13; the high half is the version.
#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

impl Command {
    fn of(octet: u8) -> Option<Self> {
        match octet {
            0x20 => Some(Self::Local),
            0x21 => Some(Self::Proxy),
            _ => None,
        }
    }
}

/// Octets of the addresses of a family and transport, `None` for what the specification lacks.
fn addresses_length(family: u8) -> Option<usize> {
    match family {
        0x00 => Some(0),
        0x11 | 0x12 => Some(12),
        0x21 | 0x22 => Some(36),
        0x31 | 0x32 => Some(216),
        _ => None,
    }
}

/// The addresses of a whole v2 header. Only a stream's are the client's.
fn addresses_v2(header: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, HeaderError> {
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: false,
        allow_v2: true,
    };
    let (parsed, length) =
        ProxyHeader::parse(header, config).map_err(|_| HeaderError::Malformed)?;
    if length != header.len() {
        return Err(HeaderError::Malformed);
    }
    let stream = parsed
        .proxied_address()
        .filter(|pair| pair.protocol == Protocol::Stream);
    Ok(stream.map(|pair| (pair.source, pair.destination)))
}

/// Where the values that matter lie in a header.
#[derive(Default)]
struct TlvPlaces {
    unique_id: Option<(usize, usize)>,
    authority: Option<(usize, usize)>,
    ssl: Option<(usize, usize)>,
    checksum: Option<(usize, usize)>,
}

/// Walks the TLVs of a header of which `header` has arrived and that will be `length` long.
///
/// Each must end within the header, at its end or with room for another (rule X6); values may not
/// have arrived yet.
fn check_tlvs(header: &[u8], start: usize, length: usize) -> Result<TlvPlaces, HeaderError> {
    let mut places = TlvPlaces::default();
    let mut at = start;
    while at < length {
        let value = at + tlv::HEAD;
        if value > length {
            return Err(HeaderError::Malformed);
        }
        let Some(&high) = header.get(at + 1) else {
            break;
        };
        let low = header.get(at + 2).copied();
        let end = value + usize::from(u16::from_be_bytes([high, low.unwrap_or(0)]));
        if end > length {
            return Err(HeaderError::Malformed);
        }
        if low.is_none() {
            break;
        }
        places.note(header[at], value, end)?;
        at = end;
    }
    Ok(places)
}

impl TlvPlaces {
    /// Notes a TLV whose value lies at `start..end`.
    fn note(&mut self, kind: u8, start: usize, end: usize) -> Result<(), HeaderError> {
        let length = end - start;
        let (place, valid) = match kind {
            tlv::UNIQUE_ID => (&mut self.unique_id, length <= UNIQUE_ID_MAX),
            tlv::AUTHORITY => (&mut self.authority, true),
            tlv::SSL => (&mut self.ssl, length >= 5),
            // Which of two checksums should be zeroed for the other nobody can say.
            tlv::CRC32C => {
                let alone = self.checksum.is_none();
                (&mut self.checksum, alone && length == 4)
            }
            _ => return Ok(()),
        };
        place.get_or_insert((start, end));
        if valid {
            Ok(())
        } else {
            Err(HeaderError::Malformed)
        }
    }

    /// Takes the values out of the whole header, after the checksum.
    fn collect(&self, header: &[u8]) -> Result<Option<Box<ReceivedTlvs>>, HeaderError> {
        if let Some((start, end)) = self.checksum {
            let sum = crc32c(&[&header[..start], &[0; 4], &header[end..]]);
            if sum.to_be_bytes() != header[start..end] {
                return Err(HeaderError::Checksum);
            }
        }
        let value = |place: Option<(usize, usize)>| {
            place
                .map(|(start, end)| header[start..end].to_vec())
                .filter(|value| !value.is_empty())
        };
        let tlvs = ReceivedTlvs {
            unique_id: value(self.unique_id),
            authority: value(self.authority).and_then(|name| String::from_utf8(name).ok()),
            ssl: value(self.ssl).map(SslTlv),
        };
        Ok((tlvs != ReceivedTlvs::default()).then(|| Box::new(tlvs)))
    }
}

#[cfg(test)]
mod tests;
