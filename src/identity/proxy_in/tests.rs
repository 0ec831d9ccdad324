//! What the PROXY header reader must accept, refuse, and when.

use proptest::prelude::*;

use super::super::{HeaderOut, ProxyVersion};
use super::*;

const INVALID: HeaderRead = HeaderRead::Invalid(HeaderError::Malformed);

fn complete(octets: &[u8]) -> ReceivedHeader {
    match read_header(octets) {
        HeaderRead::Complete(header) => header,
        other => panic!("{other:?} for {}", octets.escape_ascii()),
    }
}

/// A v2 header with a right length field.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [SIGNATURE_V2.as_slice(), &[command, family], &length, body].concat()
}

/// A v2 TCP4 header with these octets behind the addresses.
fn tcp4(tlvs: &[u8]) -> Vec<u8> {
    v2(
        0x21,
        0x11,
        &[&[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 0, 25], tlvs].concat(),
    )
}

/// A TLV with a right length.
fn value(kind: u8, octets: &[u8]) -> Vec<u8> {
    [
        &[kind],
        (octets.len() as u16).to_be_bytes().as_slice(),
        octets,
    ]
    .concat()
}

fn pair() -> (SocketAddr, SocketAddr) {
    let address = |text: &str| text.parse().expect("a test's address");
    (address("192.0.2.1:56324"), address("198.51.100.2:25"))
}

#[test]
fn rule_x3_canonical_v1_is_read() {
    let lines: [(&str, Option<(&str, &str)>); 9] = [
        (
            "TCP4 192.0.2.1 198.51.100.2 56324 25",
            Some(("192.0.2.1:56324", "198.51.100.2:25")),
        ),
        (
            "TCP4 0.0.0.0 255.255.255.255 0 65535",
            Some(("0.0.0.0:0", "255.255.255.255:65535")),
        ),
        (
            "TCP6 2001:db8::1 ::1 1 2",
            Some(("[2001:db8::1]:1", "[::1]:2")),
        ),
        (
            "TCP6 2001:DB8::1 ::1 1 2",
            Some(("[2001:db8::1]:1", "[::1]:2")),
        ),
        (
            "TCP6 1:2:3:4:5:6:7:8 :: 1 2",
            Some(("[1:2:3:4:5:6:7:8]:1", "[::]:2")),
        ),
        (
            "TCP6 ::ffff:192.0.2.1 ::1 1 2",
            Some(("[::ffff:192.0.2.1]:1", "[::1]:2")),
        ),
        ("UNKNOWN", None),
        ("UNKNOWN ", None),
        ("UNKNOWN whatever 1 2 3 4 5", None),
    ];
    for (line, expected) in lines {
        let octets = format!("PROXY {line}\r\nEHLO x\r\n");
        let header = complete(octets.as_bytes());
        assert_eq!(header.length, line.len() + 8);
        let address = |text: &str| text.parse().expect("a test's address");
        let expected = expected.map(|(from, to)| (address(from), address(to)));
        assert_eq!(header.addresses, expected, "{line}");
    }
}

#[test]
fn rule_x3_v1_that_is_not_canonical_is_refused_at_once() {
    // Each is refused at its last octet and may still be a header at the one before.
    let beginnings = [
        "PROXY  ",
        "PROXY T4",
        "PROXY TCP5",
        "PROXY TCP4\r",
        "PROXY TCP4  ",
        "PROXY UNKNOWNx",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN x\ry",
        "PROXY TCP4 256",
        "PROXY TCP4 01",
        "PROXY TCP4 1.2.3.4.",
        "PROXY TCP4 1..",
        "PROXY TCP4 1 ",
        "PROXY TCP4 :",
        "PROXY TCP4 1.2.3.4\r",
        "PROXY TCP4 1.2.3.4  ",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +",
        "PROXY TCP4 1.2.3.4 1.2.3.4 00",
        "PROXY TCP4 1.2.3.4 1.2.3.4 025",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1  ",
        "PROXY TCP6 1.",
        "PROXY TCP6 1:::",
        "PROXY TCP6 1::2::",
        "PROXY TCP6 12345",
        "PROXY TCP6 1:2:3:4:5:6:7:8:",
        "PROXY TCP6 ::g",
        "PROXY TCP6 ::1%",
        "PROXY TCP6 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:8 70000",
    ];
    for text in beginnings {
        let octets = text.replace("025", "02").into_bytes();
        let before = &octets[..octets.len() - 1];
        assert!(
            matches!(read_header(&octets), HeaderRead::Invalid(_)),
            "{text:?}"
        );
        assert_eq!(read_header(before), HeaderRead::Incomplete, "{text:?}");
    }
}

#[test]
fn what_is_no_header_is_known_at_its_first_wrong_octet() {
    let wrong = HeaderRead::Invalid(HeaderError::NotAHeader);
    for text in [
        "E",
        "\n",
        "PX",
        "PROXY\r",
        "PROXYT",
        "\r\r",
        "\r\n\r\n\0\r\nQUIT\r",
    ] {
        assert_eq!(read_header(text.as_bytes()), wrong, "{text:?}");
        assert_eq!(
            read_header(&text.as_bytes()[..text.len() - 1]),
            HeaderRead::Incomplete
        );
    }
}

#[test]
fn rule_x3_v1_has_107_octets_at_most() {
    let unknown = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert_eq!(complete(unknown(107).as_bytes()).length, 107);
    assert_eq!(read_header(unknown(108).as_bytes()), INVALID);
    // Refused as soon as no CRLF fits any more.
    assert_eq!(
        read_header(&unknown(107).as_bytes()[..105]),
        HeaderRead::Incomplete
    );
    assert_eq!(read_header(&unknown(108).as_bytes()[..106]), INVALID);
    // Dotted IPv6 is the only way for addresses to be too long; the rest must still fit.
    let dotted = "1111:1111:1111:1111:1111:1111:111.111.111.111";
    let begun = format!("PROXY TCP6 {dotted} {} ", &dotted[1..]);
    assert_eq!(begun.len(), 102);
    assert_eq!(read_header(begun.as_bytes()), HeaderRead::Incomplete);
    assert_eq!(
        read_header(format!("{begun}1 1").as_bytes()),
        HeaderRead::Incomplete
    );
    assert_eq!(read_header(format!("{begun}11").as_bytes()), INVALID);
}

#[test]
fn rule_x4_v2_addresses_are_read() {
    let header = complete(&tcp4(b""));
    assert_eq!(
        (header.length, header.addresses, header.tlvs),
        (28, Some(pair()), None)
    );
    let six: Vec<u8> = (0..32).chain([0, 1, 0, 2]).collect();
    let header = complete(&v2(0x21, 0x21, &six));
    let (source, destination) = header.addresses.expect("a stream has addresses");
    assert_eq!(source.to_string(), "[1:203:405:607:809:a0b:c0d:e0f]:1");
    assert_eq!(
        destination.to_string(),
        "[1011:1213:1415:1617:1819:1a1b:1c1d:1e1f]:2"
    );
}

#[test]
fn rule_x4_what_names_no_client_is_read_without_addresses() {
    let cases = [
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &[9; 12]),
        // LOCAL: whatever the header carries is skipped, rule X4.
        v2(0x20, 0x11, b""),
        v2(0x20, 0xff, b"\x03\x00\xff"),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x12, &[9; 12]),
        v2(0x21, 0x22, &[9; 36]),
        v2(0x21, 0x31, &[9; 216]),
        v2(0x21, 0x32, &[9; 216]),
    ];
    for octets in cases {
        let header = complete(&octets);
        assert_eq!(
            (header.length, header.addresses, header.tlvs),
            (octets.len(), None, None)
        );
    }
}

#[test]
fn rules_x4_and_x5_bad_v2_is_refused_at_once() {
    let start = |octets: &[u8]| [SIGNATURE_V2.as_slice(), octets].concat();
    let too_long = HeaderRead::Invalid(HeaderError::TooLong);
    let cases = [
        (start(&[0x22]), INVALID),
        (start(&[0x11]), INVALID),
        (start(&[0x21, 0x13]), INVALID),
        (start(&[0x21, 0x41]), INVALID),
        (start(&[0x21, 0x11, 0, 11]), INVALID),
        (start(&[0x21, 0x21, 0, 35]), INVALID),
        (start(&[0x21, 0x31, 0, 215]), INVALID),
        // One octet behind the addresses can never be a TLV.
        (start(&[0x21, 0x11, 0, 13]), INVALID),
        (start(&[0x21, 0x11, 0x10]), too_long.clone()),
        (start(&[0x20, 0x00, 0x0f, 0xf1]), too_long),
    ];
    for (octets, verdict) in cases {
        assert_eq!(read_header(&octets), verdict, "{}", octets.escape_ascii());
        let before = &octets[..octets.len() - 1];
        assert_eq!(
            read_header(before),
            HeaderRead::Incomplete,
            "{}",
            octets.escape_ascii()
        );
    }
    let largest = v2(0x20, 0, &[0; HEADER_IN_MAX - 16]);
    assert_eq!(complete(&largest).length, HEADER_IN_MAX);
}

#[test]
fn rule_x6_tlvs_are_kept_or_skipped() {
    let tlvs = [
        value(0x01, b"smtp"),
        value(0xe0, b"custom"),
        value(tlv::AUTHORITY, b"mx.example"),
        value(0x04, b""),
        value(tlv::UNIQUE_ID, &[b'u'; UNIQUE_ID_MAX]),
        value(tlv::SSL, &[1, 0, 0, 0, 0, 0x21, 0, 1, b'x']),
        value(tlv::AUTHORITY, b"second.example"),
    ];
    let header = complete(&tcp4(&tlvs.concat()));
    assert_eq!(header.addresses, Some(pair()));
    let kept = header.tlvs.expect("three are worth keeping");
    assert_eq!(kept.authority.as_deref(), Some("mx.example"));
    assert_eq!(kept.unique_id, Some(vec![b'u'; UNIQUE_ID_MAX]));
    assert_eq!(
        kept.ssl,
        Some(SslTlv(vec![1, 0, 0, 0, 0, 0x21, 0, 1, b'x']))
    );

    let skipped = [value(tlv::AUTHORITY, b"\xff"), value(tlv::UNIQUE_ID, b"")].concat();
    assert_eq!(complete(&tcp4(&skipped)).tlvs, None);
}

#[test]
fn rule_x6_a_tlv_running_past_the_header_is_refused_at_once() {
    let cases: [&[u8]; 8] = [
        b"\x04\x00\x02x",
        b"\x04\x01\x00x",
        b"\x04\x00\x00\x04",
        b"\x04\x00\x00\x04\x00",
        b"\x03\x00\x03abc",
        b"\x03\x00\x05abcde",
        b"\x20\x00\x04abcd",
        b"\x03\x00\x04abcd\x03\x00\x04abcd",
    ];
    for tlvs in cases {
        let octets = tcp4(tlvs);
        assert_eq!(read_header(&octets), INVALID, "{}", tlvs.escape_ascii());
        // Known before the last octet is there.
        assert_eq!(read_header(&octets[..octets.len() - 1]), INVALID);
    }
    let long_id = tcp4(&value(tlv::UNIQUE_ID, &[b'u'; UNIQUE_ID_MAX + 1]));
    assert_eq!(read_header(&long_id), INVALID);
}

#[test]
fn rule_x6_the_checksum_is_verified() {
    let with_sum = |sum: u32| {
        let tlvs = [
            value(0x04, b"pad"),
            value(tlv::CRC32C, &sum.to_be_bytes()),
            value(0xe0, b"x"),
        ];
        tcp4(&tlvs.concat())
    };
    let right = crc32c(&[&with_sum(0)]);
    assert_eq!(complete(&with_sum(right)).addresses, Some(pair()));
    let mismatch = HeaderRead::Invalid(HeaderError::Checksum);
    assert_eq!(read_header(&with_sum(right ^ 1)), mismatch);
    let mut altered = with_sum(right);
    altered[16] ^= 1;
    assert_eq!(read_header(&altered), mismatch);
    let whole = with_sum(right);
    assert_eq!(
        read_header(&whole[..whole.len() - 1]),
        HeaderRead::Incomplete
    );
}

#[test]
fn rule_x5_what_follows_a_header_is_not_touched() {
    let octets = [tcp4(b""), b"\x16\x03\x01".to_vec()].concat();
    assert_eq!(complete(&octets).length, 28);
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

/// Octets that are often nearly a header.
fn nearly_headers() -> impl Strategy<Value = Vec<u8>> {
    let written = (
        addresses(),
        addresses(),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..9),
    );
    let written = written.prop_map(|(source, destination, first, id)| {
        let version = if first {
            ProxyVersion::V1
        } else {
            ProxyVersion::V2
        };
        HeaderOut::new(version, source, destination, None, &id, 232)
            .octets()
            .to_vec()
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (written, changes).prop_map(|(mut octets, changes)| {
        for (place, octet) in changes {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        octets
    })
}

proptest! {
    #[test]
    fn what_we_write_is_read_back(
        source in addresses(), destination in addresses(), first in any::<bool>(),
    ) {
        let version = if first { ProxyVersion::V1 } else { ProxyVersion::V2 };
        let written = HeaderOut::new(version, source, destination, None, b"id", 232);
        let header = complete(written.octets());
        prop_assert_eq!(header.length, written.octets().len());
        let (from, to) = header.addresses.expect("the client is named");
        prop_assert_eq!(from.ip().to_canonical(), source.ip().to_canonical());
        prop_assert_eq!(to.ip().to_canonical(), destination.ip().to_canonical());
        prop_assert_eq!((from.port(), to.port()), (source.port(), destination.port()));
        for end in 0..written.octets().len() {
            prop_assert_eq!(read_header(&written.octets()[..end]), HeaderRead::Incomplete);
        }
    }

    #[test]
    fn a_verdict_once_reached_stays(octets in nearly_headers()) {
        let whole = read_header(&octets);
        for end in 0..octets.len() {
            let part = read_header(&octets[..end]);
            prop_assert!(part == HeaderRead::Incomplete || part == whole, "{}", end);
        }
    }
}
