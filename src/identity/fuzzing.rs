//! What the PROXY header fuzzer checks; the unit tests replay its corpus.
//!
//! The second opinion of the `ppp` crate is asked in `fuzz/fuzz_targets/proxy_header.rs`, so that
//! the house does not depend on it.

use super::{
    HEADER_IN_MAX, HEADER_OUT_MAX, HeaderOut, HeaderRead, ProxyVersion, ReceivedHeader,
    ReceivedTlvs, UNIQUE_ID_MAX, read_header,
};

/// Any octets: the same verdict for any chunking, and what was read can be sent on.
///
/// # Panics
/// When the reader or the writer is wrong.
pub fn fuzz_header(data: &[u8]) {
    let whole = read_header(data);
    let ends = (0..data.len().min(256)).chain(data.len().saturating_sub(8)..data.len());
    for end in ends {
        let part = read_header(&data[..end]);
        assert!(
            part == HeaderRead::Incomplete || part == whole,
            "at {end}: {part:?}, {whole:?}"
        );
    }
    if let HeaderRead::Complete(header) = whole {
        assert!(header.length <= data.len().min(HEADER_IN_MAX));
        send_on(&header);
    }
}

/// Writes the header anew and reads it back.
fn send_on(header: &ReceivedHeader) {
    let Some((source, destination)) = header.addresses else {
        assert_eq!(header.tlvs.as_ref().filter(|_| header.length == 16), None);
        return;
    };
    let tlvs = header.tlvs.as_deref();
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        for max in [0, 232, HEADER_OUT_MAX] {
            let written = HeaderOut::new(version, source, destination, tlvs, b"own", max);
            let HeaderRead::Complete(read) = read_header(written.octets()) else {
                unreachable!("not read back: {}", written.octets().escape_ascii());
            };
            assert_eq!(read.length, written.octets().len());
            assert!(read.length <= max.max(107));
            let canonical = |(from, to): (std::net::SocketAddr, std::net::SocketAddr)| {
                let ip = [from.ip().to_canonical(), to.ip().to_canonical()];
                (ip, from.port(), to.port())
            };
            let addresses = read.addresses.expect("the client is named");
            assert_eq!(canonical(addresses), canonical((source, destination)));
            check_kept(tlvs, read.tlvs.as_deref());
        }
    }
}

/// Each value goes on whole or not at all.
fn check_kept(sent: Option<&ReceivedTlvs>, read: Option<&ReceivedTlvs>) {
    let Some(read) = read else {
        return;
    };
    let received = sent.and_then(|tlvs| tlvs.unique_id.as_deref());
    let id = read.unique_id.as_deref().expect("the id is dropped last");
    assert!(id == received.unwrap_or(b"own") && id.len() <= UNIQUE_ID_MAX);
    assert!(read.authority.is_none() || read.authority == sent.and_then(|s| s.authority.clone()));
    assert!(read.ssl.is_none() || read.ssl == sent.and_then(|s| s.ssl.clone()));
    assert!(read.ssl.is_none() || sent.is_none_or(|s| s.authority == read.authority));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_handled() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/proxy_header");
        let mut entries = 0;
        for entry in std::fs::read_dir(corpus).expect("the corpus is part of the house") {
            let path = entry.expect("the corpus can be listed").path();
            fuzz_header(&std::fs::read(path).expect("an entry can be read"));
            entries += 1;
        }
        assert!(entries > 20, "{entries} entries in {corpus}");
    }
}
