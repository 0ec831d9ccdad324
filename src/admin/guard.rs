//! Which clients may read pages, and which may change something.
//!
//! On a Unix socket its group and permissions decide, on TCP the bearer token (RFC 6750). A browser
//! that was led here by a foreign page (DNS rebinding, cross-site forms) is turned away by its Host
//! and Origin before anything else is looked at.

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};

use super::host::{AskedHost, HostError, OurHosts};
use super::reply::{Reply, refusal};
use super::token::Token;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Unix,
}

/// By what right a change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// The client has shown the token.
    Token,
    /// The permissions of the Unix socket let it in.
    Socket,
}

impl Right {
    /// Its name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Socket => "socket",
        }
    }
}

/// What a question says of the host that it is for.
pub(super) type AskedOf = Result<AskedHost, HostError>;

/// `Ok` if a client that asks `host` may read a page, else the refusal.
pub(super) fn may_read(
    transport: Transport,
    ours: &OurHosts<'_>,
    host: &AskedOf,
) -> Result<(), Box<Reply>> {
    match (transport, host) {
        // No browser gets to a Unix socket, and none speaks HTTP/1.0 without a Host.
        (Transport::Unix, _) | (Transport::Tcp, Err(HostError::Absent)) => Ok(()),
        (Transport::Tcp, Err(error)) => Err(not_one_host(error)),
        (Transport::Tcp, Ok(host)) => is_ours(ours, host),
    }
}

/// `Ok` if a change is asked of a host of ours, and not by a page of another site; else the refusal.
pub(super) fn is_asked_here(
    transport: Transport,
    ours: &OurHosts<'_>,
    host: &AskedOf,
    headers: &HeaderMap,
) -> Result<(), Box<Reply>> {
    if transport == Transport::Unix {
        return Ok(());
    }
    let host = host.as_ref().map_err(not_one_host)?;
    is_ours(ours, host)?;
    same_site(host, headers)
}

/// By what right a change with these headers is allowed, else the refusal. The token's file is read
/// for it.
pub(super) fn right(
    transport: Transport,
    token: Option<&Token>,
    headers: &HeaderMap,
) -> Result<Right, Box<Reply>> {
    match (token, transport) {
        (_, Transport::Unix) => Ok(Right::Socket),
        (None, Transport::Tcp) => Err(Box::new(refusal(
            StatusCode::FORBIDDEN,
            "changes over TCP need a token and none is configured",
            "use a Unix socket, which needs none: add \"unix:/run/posthouse/admin.sock\" to [admin] \
             bind; or set [admin] token_file to a file whose first line is a secret",
        ))),
        (Some(token), Transport::Tcp) => with_token(token, headers).map(|()| Right::Token),
    }
}

fn not_one_host(error: &HostError) -> Box<Reply> {
    Box::new(refusal(
        StatusCode::BAD_REQUEST,
        error.to_string(),
        "send one Host header: an address or a name, and a port if you like",
    ))
}

fn is_ours(ours: &OurHosts<'_>, host: &AskedHost) -> Result<(), Box<Reply>> {
    if ours.has(host) {
        return Ok(());
    }
    Err(Box::new(refusal(
        StatusCode::FORBIDDEN,
        format!("this endpoint does not answer for the host \"{host}\""),
        format!("ask {}, or add the name to [admin] hosts", ours.in_words()),
    )))
}

fn with_token(token: &Token, headers: &HeaderMap) -> Result<(), Box<Reply>> {
    let Some(offered) = headers.get(AUTHORIZATION).and_then(bearer) else {
        return Err(unauthorized(
            "this needs a token",
            "send the header \"Authorization: Bearer TOKEN\" (posthouse … --token-file FILE)",
        ));
    };
    match token.matches(offered) {
        Ok(true) => Ok(()),
        Ok(false) => Err(unauthorized(
            "that is not the token",
            "compare it with the first line of [admin] token_file on the machine of the balancer",
        )),
        Err(error) => Err(Box::new(refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
            "make the token file readable for the user posthouse runs as",
        ))),
    }
}

fn unauthorized(error: &str, remedy: &str) -> Box<Reply> {
    let mut reply = refusal(StatusCode::UNAUTHORIZED, error, remedy);
    reply.headers_mut().insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"posthouse\""),
    );
    Box::new(reply)
}

/// What follows `Bearer` (in any case, RFC 9110 §11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Refuses a question from a page of another site: its Origin differs from the host that is asked.
fn same_site(host: &AskedHost, headers: &HeaderMap) -> Result<(), Box<Reply>> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let own = origin.to_str().ok().and_then(|origin| {
        // A reverse proxy may have ended the TLS of the page.
        let secure = origin.strip_prefix("https://");
        secure.or_else(|| origin.strip_prefix("http://"))
    });
    if own.is_some_and(|own| host.is_written(own)) {
        return Ok(());
    }
    Err(Box::new(refusal(
        StatusCode::FORBIDDEN,
        "changes are not taken from pages of another site",
        "use posthouse, curl, or a page of this endpoint",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse().expect("a header name"),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn status(
        transport: Transport,
        token: Option<&Token>,
        pairs: &[(&'static str, &'static str)],
    ) -> u16 {
        let ours = OurHosts {
            bound: Some("0.0.0.0".parse().expect("an address")),
            hostname: "lb.example",
            hosts: &[],
        };
        let headers = headers(pairs);
        let host = AskedHost::of(
            &headers,
            &hyper::Uri::from_static("/"),
            hyper::Version::HTTP_11,
        );
        let may = is_asked_here(transport, &ours, &host, &headers)
            .and_then(|()| right(transport, token, &headers));
        match may {
            Ok(right) => {
                let expected = match transport {
                    Transport::Unix => Right::Socket,
                    Transport::Tcp => Right::Token,
                };
                assert_eq!(right, expected);
                200
            }
            Err(reply) => reply.status().as_u16(),
        }
    }

    #[test]
    fn each_transport_and_token_has_its_verdict() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").expect("write");
        let token = Token::from_file(&path).expect("a token");
        let host = ("host", "127.0.0.1:8025");
        let good = ("authorization", "Bearer s3cret");
        for (transport, token, headers, expected) in [
            (Transport::Unix, None, &[][..], 200),
            (Transport::Tcp, None, &[host], 403),
            (Transport::Tcp, None, &[host, good], 403),
            (Transport::Tcp, Some(&token), &[host], 401),
            (Transport::Unix, Some(&token), &[], 200),
            (Transport::Unix, Some(&token), &[good], 200),
            (Transport::Tcp, Some(&token), &[host, good], 200),
            (
                Transport::Tcp,
                Some(&token),
                &[host, ("authorization", "bearer  s3cret ")],
                200,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, ("authorization", "Basic s3cret")],
                401,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, ("authorization", "Bearer s3cre")],
                401,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, ("authorization", "Bearer ")],
                401,
            ),
            (Transport::Tcp, Some(&token), &[good], 400),
            (Transport::Tcp, Some(&token), &[host, host, good], 400),
            (
                Transport::Tcp,
                Some(&token),
                &[("host", "evil.example"), good],
                403,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[("host", "LB.example:8025"), good],
                200,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[("host", "[::1]:8025"), good],
                200,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[("host", "localhost"), good],
                200,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[("host", "localhost.evil.example"), good],
                403,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, good, ("origin", "http://127.0.0.1:8025")],
                200,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, good, ("origin", "https://127.0.0.1:8025")],
                200,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, good, ("origin", "http://127.0.0.1:8026")],
                403,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, good, ("origin", "http://evil.example")],
                403,
            ),
            (
                Transport::Tcp,
                Some(&token),
                &[host, good, ("origin", "null")],
                403,
            ),
        ] {
            assert_eq!(
                status(transport, token, headers),
                expected,
                "{transport:?} {headers:?}"
            );
        }
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(status(Transport::Tcp, Some(&token), &[host, good]), 503);
    }
}
