//! PROXY headers: any octets, any chunking, and `ppp` as second opinion.
//!
//! What we take, `ppp` takes, with the same length and the same addresses. It takes more: v1 ports
//! like `+25`, CR as a separator, families and versions without meaning, headers over 4,096 octets,
//! TLVs and checksums that are wrong. It does not take a LOCAL header that is too short for the
//! family it names, which is to be ignored, nor an UNKNOWN line that is not UTF-8 or holds a lone
//! LF behind a space.
#![no_main]

use std::net::SocketAddr;

use posthouse_fuzz::identity::{HeaderRead, ReceivedHeader, SslTlv, fuzz_header, read_header};
use ppp::{HeaderResult, PartialResult, v1, v2};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_header(data);
    let theirs = HeaderResult::parse(data);
    match (read_header(data), data.first()) {
        (HeaderRead::Complete(ours), Some(b'P')) => match theirs {
            HeaderResult::V1(Ok(header)) => {
                assert_eq!(ours.length, header.header.len());
                assert_eq!(ours.addresses, addresses_v1(&header.addresses));
            }
            refused => assert!(data.starts_with(b"PROXY UNKNOWN "), "{refused:?}"),
        },
        (HeaderRead::Complete(ours), _) => match theirs {
            HeaderResult::V2(Ok(header)) => {
                assert_eq!(ours.length, header.len());
                assert_eq!(ours.addresses, addresses_v2(&header));
                compare_tlvs(&ours, &header);
            }
            refused => assert_eq!(data[12], 0x20, "{refused:?}"),
        },
        // What can still become a header is no final error to them either, LOCAL apart.
        (HeaderRead::Incomplete, Some(b'\r')) if data.get(12) != Some(&0x20) => {
            assert!(theirs.is_incomplete(), "{theirs:?}");
        }
        (HeaderRead::Incomplete | HeaderRead::Invalid(_), _) => {}
    }
});

/// Of a header we take each TLV lies within it, and the first of its type is what we keep.
fn compare_tlvs(ours: &ReceivedHeader, theirs: &v2::Header<'_>) {
    if theirs.command == v2::Command::Local {
        assert_eq!(ours.tlvs, None);
        return;
    }
    let tlvs: Result<Vec<_>, _> = theirs.tlvs().collect();
    let tlvs = tlvs.expect("a header we take has whole TLVs");
    let first = |kind: u8| {
        let value = tlvs
            .iter()
            .find(|tlv| tlv.kind == kind)
            .map(|tlv| tlv.value.to_vec());
        value.filter(|value| !value.is_empty())
    };
    let ours = ours.tlvs.as_deref().cloned().unwrap_or_default();
    assert_eq!(ours.unique_id, first(0x05));
    assert_eq!(
        ours.authority,
        first(0x02).and_then(|name| String::from_utf8(name).ok())
    );
    assert_eq!(ours.ssl, first(0x20).map(SslTlv));
}

fn addresses_v1(addresses: &v1::Addresses) -> Option<(SocketAddr, SocketAddr)> {
    match addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
        v1::Addresses::Tcp6(ip) => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
    }
}

fn addresses_v2(header: &v2::Header<'_>) -> Option<(SocketAddr, SocketAddr)> {
    if header.command != v2::Command::Proxy || header.protocol != v2::Protocol::Stream {
        return None;
    }
    match header.addresses {
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        v2::Addresses::IPv4(ip) => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
        v2::Addresses::IPv6(ip) => Some((
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        )),
    }
}
