//! Values in a sentence, as the file writes them.
#![allow(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "each is handed to `Keys::live`, which compares and shows references to fields"
)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::model::{AdminBind, Quota};
use super::super::value::{duration_text, quota_text, size_text};
use crate::smtp::{Keyword, Keywords};
use crate::types::{Networks, Percent, Rate};

pub(super) fn or_default(value: Option<&impl ToString>, absent: &str) -> String {
    value.map_or_else(|| absent.to_owned(), ToString::to_string)
}

pub(super) fn quoted(text: &Arc<str>) -> String {
    format!("{text:?}")
}

pub(super) fn duration(duration: &Duration) -> String {
    duration_text(*duration)
}

pub(super) fn size(octets: &u64) -> String {
    size_text(*octets)
}

pub(super) fn keywords(announce: &Option<Keywords>) -> String {
    announce.map_or_else(
        || "what every backend has".to_owned(),
        |words| list(&words.iter().map(Keyword::name).collect::<Vec<_>>()),
    )
}

pub(super) fn quotas(quotas: &[Quota]) -> String {
    list(&quotas.iter().map(quota_text).collect::<Vec<_>>())
}

pub(super) fn percent(percent: &Percent) -> String {
    format!("{}%", percent.value())
}

pub(super) fn rate(rate: &Option<Rate>) -> String {
    match rate {
        None => "no limit".to_owned(),
        Some(Rate { count, period }) => format!("{count}/{}", duration_text(*period)),
    }
}

pub(super) fn path(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

pub(super) fn interface_name(name: &Option<Arc<str>>) -> String {
    name.as_ref().map_or_else(|| "any".to_owned(), quoted)
}

pub(super) fn admin_binds(binds: &[AdminBind]) -> String {
    let shown: Vec<String> = binds.iter().map(admin_bind).collect();
    match shown.as_slice() {
        [one] => one.clone(),
        several => list(several),
    }
}

fn admin_bind(bind: &AdminBind) -> String {
    match bind {
        AdminBind::Tcp(address) => address.to_string(),
        AdminBind::Unix { path, mode, group } => {
            let group = group
                .as_ref()
                .map_or(String::new(), |name| format!(" {name}"));
            format!("unix:{} ({mode:04o}{group})", path.display())
        }
    }
}

/// Entries of a list that a sentence names.
const SHOWN_MAX: usize = 8;

pub(super) fn list<T: ToString>(entries: &[T]) -> String {
    let mut text = String::from("[");
    let shown: Vec<String> = entries
        .iter()
        .take(SHOWN_MAX)
        .map(ToString::to_string)
        .collect();
    text.push_str(&shown.join(", "));
    if entries.len() > SHOWN_MAX {
        let _ = write!(text, ", and {} more", entries.len() - SHOWN_MAX);
    }
    text.push(']');
    text
}

pub(super) fn networks(networks: &Networks) -> String {
    let entries: Vec<String> = networks.iter().map(ToString::to_string).collect();
    list(&entries)
}
