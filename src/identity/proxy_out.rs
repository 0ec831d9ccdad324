//! PROXY headers for backends (rules X8–X12).
//!
//! Built on the stack, without allocation, to be sent in one write before anything else: some
//! backends refuse a header that comes in two segments, so it must also be short. v1 `UNKNOWN` and
//! v2 UNSPEC are never sent; our own connections say v2 LOCAL. What a header may not carry is
//! left out in a fixed order rather than sent too long.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::{FIXED_V2, ReceivedTlvs, SIGNATURE_V2, UNIQUE_ID_MAX, tlv};

/// The longest header we can be configured to send: what Postfix reads.
pub const HEADER_OUT_MAX: usize = 536;
/// v2 LOCAL without addresses, for probes (rule X12).
pub const LOCAL_V2: [u8; 16] = [
    0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x20, 0x00, 0, 0,
];

/// The form of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text; carries addresses only.
    V1,
    /// Binary; carries addresses and TLVs.
    V2,
}

/// The header for a backend, on the stack.
#[derive(Clone, Debug)]
pub struct HeaderOut {
    octets: [u8; HEADER_OUT_MAX],
    length: usize,
}

impl HeaderOut {
    /// A header that says a connection from `source` to `destination`.
    ///
    /// `max` octets at most; TLVs are dropped in the order SSL, AUTHORITY, UNIQUE_ID rather than
    /// exceed it. The addresses are always sent, though `max` were less than the up to 52 octets
    /// (v1: 104) they need. A unique id received from the balancer before us goes on unchanged, so
    /// that one id names the connection everywhere; otherwise it is `unique_id`, left out if it is
    /// empty or over [`UNIQUE_ID_MAX`]. Mixed families become v6-mapped pairs; v4-mapped pairs
    /// become IPv4 (rule X9).
    pub fn new(
        version: ProxyVersion,
        source: SocketAddr,
        destination: SocketAddr,
        tlvs: Option<&ReceivedTlvs>,
        unique_id: &[u8],
        max: usize,
    ) -> Self {
        let mut header = Self {
            octets: [0; HEADER_OUT_MAX],
            length: 0,
        };
        let pair = Pair::of(source, destination);
        match version {
            ProxyVersion::V1 => header.write_v1(&pair),
            ProxyVersion::V2 => {
                let values = [
                    (tlv::UNIQUE_ID, own_or_received_id(tlvs, unique_id)),
                    (
                        tlv::AUTHORITY,
                        tlvs.and_then(|tlvs| tlvs.authority.as_deref()?.as_bytes().into()),
                    ),
                    (
                        tlv::SSL,
                        tlvs.and_then(|tlvs| Some(tlvs.ssl.as_ref()?.0.as_slice())),
                    ),
                ];
                header.write_v2(&pair, values, max.min(HEADER_OUT_MAX));
            }
        }
        header
    }

    /// The octets to send, in one write.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    fn write_v1(&mut self, pair: &Pair) {
        let mut room = self.octets.as_mut_slice();
        let Pair {
            family,
            source,
            destination,
        } = pair;
        let family = match family {
            Family::V4 => "TCP4",
            Family::V6 => "TCP6",
        };
        let (from, to) = (source.ip(), destination.ip());
        let (from_port, to_port) = (source.port(), destination.port());
        write!(room, "PROXY {family} {from} {to} {from_port} {to_port}\r\n")
            .expect("a v1 header has at most 107 octets");
        let left = room.len();
        self.length = HEADER_OUT_MAX - left;
    }

    /// Writes the addresses and as many of `values`, from the first on, as `max` has room for.
    fn write_v2(&mut self, pair: &Pair, values: [(u8, Option<&[u8]>); 3], max: usize) {
        let (family, addresses) = match pair.family {
            Family::V4 => (0x11, 12),
            Family::V6 => (0x21, 36),
        };
        let size = |value: Option<&[u8]>| value.map_or(0, |value| tlv::HEAD + value.len());
        let mut kept = values.as_slice();
        let mut length = FIXED_V2 + addresses + kept.iter().map(|tlv| size(tlv.1)).sum::<usize>();
        while let [first @ .., last] = kept
            && length > max
        {
            length -= size(last.1);
            kept = first;
        }
        self.push(&SIGNATURE_V2);
        self.push(&[0x21, family]);
        self.push(&((length - FIXED_V2) as u16).to_be_bytes());
        self.push_address(pair.source.ip());
        self.push_address(pair.destination.ip());
        self.push(&pair.source.port().to_be_bytes());
        self.push(&pair.destination.port().to_be_bytes());
        for &(kind, value) in kept {
            if let Some(value) = value {
                self.push(&[kind]);
                self.push(&(value.len() as u16).to_be_bytes());
                self.push(value);
            }
        }
        debug_assert_eq!(
            self.length, length,
            "the length field says what was written"
        );
    }

    fn push_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.push(&v4.octets()),
            IpAddr::V6(v6) => self.push(&v6.octets()),
        }
    }

    fn push(&mut self, octets: &[u8]) {
        let end = self.length + octets.len();
        self.octets[self.length..end].copy_from_slice(octets);
        self.length = end;
    }
}

fn own_or_received_id<'a>(tlvs: Option<&'a ReceivedTlvs>, own: &'a [u8]) -> Option<&'a [u8]> {
    let received = tlvs.and_then(|tlvs| tlvs.unique_id.as_deref());
    let id = received.unwrap_or(own);
    (1..=UNIQUE_ID_MAX).contains(&id.len()).then_some(id)
}

/// Which family both addresses of a header are of.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// Two addresses of one family.
struct Pair {
    family: Family,
    source: SocketAddr,
    destination: SocketAddr,
}

impl Pair {
    fn of(source: SocketAddr, destination: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| address.ip().to_canonical();
        let (from, to) = (canonical(source), canonical(destination));
        let family = if from.is_ipv4() && to.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let fit = |address: IpAddr| match (family, address) {
            (Family::V6, IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
            (Family::V4 | Family::V6, address) => address,
        };
        Self {
            family,
            source: SocketAddr::new(fit(from), source.port()),
            destination: SocketAddr::new(fit(to), destination.port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HeaderRead, SslTlv, read_header};
    use super::*;

    const V4: (&str, &str) = ("192.0.2.1:56324", "198.51.100.2:25");
    const V6: (&str, &str) = ("[2001:db8::1]:56324", "[2001:db8::2]:25");

    fn header(version: ProxyVersion, pair: (&str, &str), tlvs: Option<&ReceivedTlvs>) -> HeaderOut {
        sized(version, pair, tlvs, b"", 232)
    }

    fn sized(
        version: ProxyVersion,
        (source, destination): (&str, &str),
        tlvs: Option<&ReceivedTlvs>,
        id: &[u8],
        max: usize,
    ) -> HeaderOut {
        let address = |text: &str| text.parse().expect("a test's address");
        HeaderOut::new(
            version,
            address(source),
            address(destination),
            tlvs,
            id,
            max,
        )
    }

    fn tlvs_of(header: &HeaderOut) -> (ReceivedTlvs, usize) {
        match read_header(header.octets()) {
            HeaderRead::Complete(read) => {
                assert_eq!(read.length, header.octets().len());
                (read.tlvs.map(|tlvs| *tlvs).unwrap_or_default(), read.length)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn v1_is_written_as_the_specification_says() {
        let written = header(ProxyVersion::V1, V4, None);
        assert_eq!(
            written.octets(),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n"
        );
        let written = header(ProxyVersion::V1, V6, None);
        assert_eq!(
            written.octets(),
            b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 25\r\n"
        );
    }

    #[test]
    fn v2_is_written_as_the_specification_says() {
        let written = header(ProxyVersion::V2, V4, None);
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x00\x19";
        assert_eq!(written.octets(), expected);
        let written = header(ProxyVersion::V2, V6, None);
        assert_eq!(written.octets().len(), 52);
        assert_eq!(written.octets()[12..16], [0x21, 0x21, 0, 36]);
    }

    #[test]
    fn rule_x9_families_are_made_one() {
        let cases = [
            (
                ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2"),
                "TCP4 192.0.2.1 192.0.2.2 1 2",
            ),
            (
                ("192.0.2.1:1", "[::ffff:192.0.2.2]:2"),
                "TCP4 192.0.2.1 192.0.2.2 1 2",
            ),
            (
                ("192.0.2.1:1", "[2001:db8::2]:2"),
                "TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2",
            ),
            (
                ("[2001:db8::2]:1", "192.0.2.1:2"),
                "TCP6 2001:db8::2 ::ffff:192.0.2.1 1 2",
            ),
        ];
        for (pair, text) in cases {
            let written = header(ProxyVersion::V1, pair, None);
            assert_eq!(written.octets(), format!("PROXY {text}\r\n").as_bytes());
            assert!(matches!(
                read_header(written.octets()),
                HeaderRead::Complete(_)
            ));
        }
    }

    #[test]
    fn rule_x11_tlvs_are_dropped_in_order_and_never_cut() {
        let all = ReceivedTlvs {
            unique_id: Some(vec![b'u'; 10]),
            authority: Some("a".repeat(20)),
            ssl: Some(SslTlv(vec![7; 30])),
        };
        let no_ssl = ReceivedTlvs {
            ssl: None,
            ..all.clone()
        };
        let id_only = ReceivedTlvs {
            authority: None,
            ..no_ssl.clone()
        };
        let none = ReceivedTlvs::default();
        let full = 28 + 13 + 23 + 33;
        let sizes = [
            (usize::MAX, full, &all),
            (full, full, &all),
            (full - 1, full - 33, &no_ssl),
            (full - 33, full - 33, &no_ssl),
            (full - 34, 41, &id_only),
            (41, 41, &id_only),
            (40, 28, &none),
            (0, 28, &none),
        ];
        for (max, length, kept) in sizes {
            let written = sized(ProxyVersion::V2, V4, Some(&all), b"", max);
            assert_eq!(tlvs_of(&written), (kept.clone(), length), "max {max}");
        }
    }

    #[test]
    fn the_longest_header_fits() {
        let all = ReceivedTlvs {
            unique_id: Some(vec![b'u'; UNIQUE_ID_MAX]),
            authority: Some("a".repeat(255)),
            ssl: Some(SslTlv(vec![7; HEADER_OUT_MAX - 52 - 131 - 258 - 3])),
        };
        let written = sized(ProxyVersion::V2, V6, Some(&all), b"", HEADER_OUT_MAX);
        assert_eq!(tlvs_of(&written), (all, HEADER_OUT_MAX));
        let mask = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let written = header(ProxyVersion::V1, (mask, mask), None);
        assert_eq!(written.octets().len(), 104);
    }

    #[test]
    fn a_received_unique_id_outlives_ours() {
        let id = |received: Option<&[u8]>, own: &[u8]| {
            let unique_id = received.map(<[u8]>::to_vec);
            let tlvs = ReceivedTlvs {
                unique_id,
                ..ReceivedTlvs::default()
            };
            tlvs_of(&sized(ProxyVersion::V2, V4, Some(&tlvs), own, 232))
                .0
                .unique_id
        };
        assert_eq!(id(None, b"own").as_deref(), Some(b"own".as_slice()));
        assert_eq!(
            id(Some(b"received"), b"own").as_deref(),
            Some(b"received".as_slice())
        );
        assert_eq!(id(None, &[b'x'; UNIQUE_ID_MAX + 1]), None);
        assert_eq!(id(None, b""), None);
    }

    #[test]
    fn rule_x12_probes_say_local_without_addresses() {
        assert_eq!(LOCAL_V2[..12], SIGNATURE_V2);
        let HeaderRead::Complete(read) = read_header(&LOCAL_V2) else {
            panic!("LOCAL is a header");
        };
        assert_eq!((read.length, read.addresses), (LOCAL_V2.len(), None));
    }
}
