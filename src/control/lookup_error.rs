//! Why a host name was not found, in the words that an operator reads.
//!
//! The resolver's own texts name its types; what matters is whether the name or its server is wrong.

use std::borrow::Cow;

use hickory_resolver::net::{DnsError, NetError};

use crate::types::{in_words, without_numbers};

/// A failed look-up in words.
pub(super) fn lookup_words(error: &NetError) -> Cow<'static, str> {
    if error.is_nx_domain() {
        return Cow::Borrowed("there is no such name");
    }
    if error.is_no_records_found() {
        return Cow::Borrowed("the name has no address");
    }
    match error {
        NetError::Timeout => Cow::Borrowed("no name server answered in time"),
        NetError::NoConnections => Cow::Borrowed("no name server can be reached"),
        NetError::Io(error) => Cow::Owned(format!("name server: {}", in_words(error))),
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Cow::Owned(format!("the name server says: {code}"))
        }
        other => Cow::Owned(without_numbers(&other.to_string()).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::op::ResponseCode;

    #[test]
    fn what_is_wrong_is_said_without_types_and_numbers() {
        let refused = std::io::Error::from_raw_os_error(111);
        for (error, words) in [
            (NetError::Timeout, "no name server answered in time"),
            (NetError::NoConnections, "no name server can be reached"),
            (NetError::from(refused), "name server: connection refused"),
            (
                NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)),
                "the name server says: Server Failure",
            ),
            (NetError::Msg("lost (os error 5)".to_owned()), "lost"),
        ] {
            assert_eq!(lookup_words(&error), words, "{error:?}");
        }
    }
}
