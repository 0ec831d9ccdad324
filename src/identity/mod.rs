//! Who the client is: PROXY protocol v1 and v2, in and out (rules X1–X13).
//!
//! Parsing by the `proxy-header` crate behind a door of our own that adds what it leaves out:
//! canonical v1 (X3), CRC32c (X6), the size limit (X4), deterministic dropping of TLVs (X11).

mod proxy;

pub use proxy::{
    HEADER_IN_MAX, HEADER_OUT_MAX, HeaderError, HeaderOut, HeaderRead, LOCAL_V2, ProxyVersion,
    ReceivedHeader, ReceivedTlvs, SslTlv, read_header,
};
