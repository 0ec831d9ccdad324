//! The body of `PUT /pools/P/backends/B`: the change that it asks for.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Bytes;

use super::reply::{Reply, refusal};
use super::views;
use crate::balance::AdminState;
use crate::control::BackendChange;
use crate::types::Weight;

/// The change that a body asks for.
pub(super) fn change(body: &Bytes, who: &Arc<str>) -> Result<BackendChange, Box<Reply>> {
    let bad =
        |error: String, remedy: &str| Box::new(refusal(StatusCode::BAD_REQUEST, error, remedy));
    let example = "send {\"state\": \"ready\"|\"drain\"|\"maint\", \"weight\": 1..1000|null}, or \
                   one of the two";
    let put: views::BackendPut = serde_json::from_slice(body).map_err(|error| {
        bad(
            format!("the body is not what is expected: {error}"),
            example,
        )
    })?;
    let state = match put.state.as_deref() {
        None => None,
        Some("ready") => Some(AdminState::Ready),
        Some("drain") => Some(AdminState::Drain),
        Some("maint") => Some(AdminState::Maint),
        Some(other) => return Err(bad(format!("there is no state {other:?}"), example)),
    };
    let weight = match put.weight {
        None => None,
        Some(None) => Some(None),
        Some(Some(value)) => match Weight::new(value) {
            Some(weight) => Some(Some(weight)),
            None => return Err(bad(format!("{value} is no weight"), example)),
        },
    };
    if state.is_none() && weight.is_none() {
        return Err(bad("nothing to change".to_owned(), example));
    }
    Ok(BackendChange {
        state,
        weight,
        who: Arc::clone(who),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_to_change() {
        let who: Arc<str> = Arc::from("test");
        let read = |text: &'static str| change(&Bytes::from_static(text.as_bytes()), &who);
        let both = read(r#"{"state":"drain","weight":9}"#).expect("valid");
        assert_eq!(both.state, Some(AdminState::Drain));
        assert_eq!(both.weight, Some(Weight::new(9)));
        let back = read(r#"{"weight":null}"#).expect("valid");
        assert_eq!((back.state, back.weight), (None, Some(None)));
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"state":"up"}"#,
            r#"{"weight":0}"#,
            r#"{"weight":1001}"#,
            r#"{"weight":"7"}"#,
            r#"{"state":"drain","x":1}"#,
        ] {
            let refused = read(wrong).expect_err(wrong);
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
