//! Who may change things.
//!
//! On a Unix socket its group and permissions decide, on TCP the bearer token (RFC 6750). A browser
//! that was led here by a foreign page (DNS rebinding, cross-site forms) is turned away by its Host
//! and Origin before anything else is looked at.

use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};

use super::reply::{Reply, refusal};
use super::token::Token;

/// How a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Tcp,
    Unix,
}

/// `Ok` if a changing verb with these headers is allowed, else the refusal.
pub(super) fn may_change(
    door: Door,
    token: Option<&Token>,
    hostname: &str,
    headers: &HeaderMap,
) -> Result<(), Box<Reply>> {
    if door == Door::Tcp {
        same_site(hostname, headers)?;
    }
    match (token, door) {
        (_, Door::Unix) => Ok(()),
        (None, Door::Tcp) => Err(Box::new(refusal(
            StatusCode::FORBIDDEN,
            "changes over TCP need a token and none is configured",
            "use a Unix socket, which needs none: add \"unix:/run/posthouse/admin.sock\" to [admin] \
             bind; or set [admin] token_file to a file whose first line is a secret",
        ))),
        (Some(token), Door::Tcp) => with_token(token, headers),
    }
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

/// A rebound name is never an address, `localhost` or our own name; a foreign page's Origin is
/// never what was asked for.
fn same_site(hostname: &str, headers: &HeaderMap) -> Result<(), Box<Reply>> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let known = host.is_some_and(|host| is_known(host, hostname));
    if !known {
        return Err(Box::new(refusal(
            StatusCode::FORBIDDEN,
            "changes are not taken for that Host",
            "ask by IP address, by localhost, or by the configured hostname",
        )));
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let own = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("http://"));
    if own.is_some() && own == host {
        return Ok(());
    }
    Err(Box::new(refusal(
        StatusCode::FORBIDDEN,
        "changes are not taken from pages of another site",
        "use posthouse, curl, or a page of this endpoint",
    )))
}

fn is_known(host: &str, hostname: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(inside) => inside.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(hostname)
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

    fn status(door: Door, token: Option<&Token>, pairs: &[(&'static str, &'static str)]) -> u16 {
        match may_change(door, token, "lb.example", &headers(pairs)) {
            Ok(()) => 200,
            Err(reply) => reply.status().as_u16(),
        }
    }

    #[test]
    fn each_door_and_token_has_its_verdict() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").expect("write");
        let token = Token::from_file(&path).expect("a token");
        let host = ("host", "127.0.0.1:8025");
        let good = ("authorization", "Bearer s3cret");
        for (door, token, headers, expected) in [
            (Door::Unix, None, &[][..], 200),
            (Door::Tcp, None, &[host], 403),
            (Door::Tcp, None, &[host, good], 403),
            (Door::Tcp, Some(&token), &[host], 401),
            (Door::Unix, Some(&token), &[], 200),
            (Door::Unix, Some(&token), &[good], 200),
            (Door::Tcp, Some(&token), &[host, good], 200),
            (
                Door::Tcp,
                Some(&token),
                &[host, ("authorization", "bearer  s3cret ")],
                200,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[host, ("authorization", "Basic s3cret")],
                401,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[host, ("authorization", "Bearer s3cre")],
                401,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[host, ("authorization", "Bearer ")],
                401,
            ),
            (Door::Tcp, Some(&token), &[good], 403),
            (
                Door::Tcp,
                Some(&token),
                &[("host", "evil.example"), good],
                403,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[("host", "LB.example:8025"), good],
                200,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[("host", "[::1]:8025"), good],
                200,
            ),
            (Door::Tcp, Some(&token), &[("host", "localhost"), good], 200),
            (
                Door::Tcp,
                Some(&token),
                &[("host", "localhost.evil.example"), good],
                403,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[host, good, ("origin", "http://127.0.0.1:8025")],
                200,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[host, good, ("origin", "http://evil.example")],
                403,
            ),
            (
                Door::Tcp,
                Some(&token),
                &[host, good, ("origin", "null")],
                403,
            ),
        ] {
            assert_eq!(
                status(door, token, headers),
                expected,
                "{door:?} {headers:?}"
            );
        }
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(status(Door::Tcp, Some(&token), &[host, good]), 503);
    }
}
