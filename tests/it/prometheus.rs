//! A small, independent reader of the Prometheus text format: it knows the format's rules and
//! nothing of how the text is made. Used by the unit tests of the exposition and on real scrapes.

use std::collections::{BTreeMap, BTreeSet};

/// What a valid page says: each series with its value.
pub(crate) type Series = BTreeMap<String, f64>;

/// Reads a page.
///
/// # Errors
/// The rule that it breaks, with the line.
pub(crate) fn check(page: &str) -> Result<Series, String> {
    if !page.ends_with('\n') {
        return Err("the page does not end with a line feed".to_owned());
    }
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helps: BTreeSet<&str> = BTreeSet::new();
    let mut finished: BTreeSet<&str> = BTreeSet::new();
    let mut current = "";
    let mut series = Series::new();
    for line in page.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').ok_or(format!("no help: {line}"))?;
            if text.is_empty() || !helps.insert(name) {
                return wrong("empty or second HELP");
            }
            finished.insert(current);
            current = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
            if name != current || types.insert(name, kind).is_some() {
                return wrong("TYPE without its HELP before it, or a second one");
            }
            if !matches!(kind, "counter" | "gauge" | "histogram" | "summary") {
                return wrong("unknown type");
            }
            if (kind == "counter") != name.ends_with("_total") {
                return wrong("a counter ends in _total and nothing else does");
            }
        } else {
            let (name, labels, value) = sample(line)?;
            let family = family_of(name, &types).ok_or(format!("no family: {line}"))?;
            if family != current || finished.contains(family) {
                return wrong("sample outside its family");
            }
            let key = format!("{name}{{{labels}}}");
            if series.insert(key, value).is_some() {
                return wrong("duplicate series");
            }
        }
    }
    check_histograms(&types, &series)?;
    Ok(series)
}

/// The family of a sample's name: itself, or without the suffix of its type.
fn family_of<'a>(name: &'a str, types: &BTreeMap<&str, &str>) -> Option<&'a str> {
    if matches!(types.get(name), Some(&"counter" | &"gauge")) {
        return Some(name);
    }
    let suffixes = [("_bucket", 1), ("_sum", 2), ("_count", 2)];
    suffixes.into_iter().find_map(|(suffix, types_with)| {
        let base = name.strip_suffix(suffix)?;
        match *types.get(base)? {
            "histogram" => Some(base),
            "summary" if types_with == 2 => Some(base),
            _ => None,
        }
    })
}

/// Name, labels (in order, re-joined) and value of a sample.
fn sample(line: &str) -> Result<(&str, String, f64), String> {
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .ok_or(format!("no value: {line}"))?;
    let (name, mut rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("bad name: {line}"));
    }
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").ok_or(format!("label: {line}"))?;
            if label.is_empty()
                || !label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_')
            {
                return Err(format!("bad label name {label:?}: {line}"));
            }
            let (value, behind) = quoted(behind).ok_or(format!("bad label value: {line}"))?;
            if labels.iter().any(|(known, _)| *known == label) {
                return Err(format!("label twice: {line}"));
            }
            labels.push((label, value));
            if let Some(behind) = behind.strip_prefix(',') {
                rest = behind;
            } else {
                rest = behind
                    .strip_prefix('}')
                    .ok_or(format!("no brace: {line}"))?;
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or(format!("no space: {line}"))?;
    let value = value.parse().map_err(|_| format!("no number: {line}"))?;
    let labels = labels
        .iter()
        .map(|(l, v)| format!("{l}={v}"))
        .collect::<Vec<_>>()
        .join(",");
    Ok((name, labels, value))
}

/// A label's value up to its closing quote, and the rest.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

/// Buckets rise, the last is +Inf and equals the count, and there is a sum.
fn check_histograms(types: &BTreeMap<&str, &str>, series: &Series) -> Result<(), String> {
    for (family, _) in types.iter().filter(|(_, kind)| **kind == "histogram") {
        let mut groups: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let prefix = format!("{family}_bucket{{");
        for (key, value) in series.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            let labels = key[prefix.len()..].trim_end_matches('}');
            let (others, bound) = labels.rsplit_once("le=").ok_or(format!("no le: {key}"))?;
            let bound = bound.parse().map_err(|_| format!("bad bound: {key}"))?;
            let others = others.trim_end_matches(',').to_owned();
            groups.entry(others).or_default().push((bound, *value));
        }
        for (labels, mut buckets) in groups {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            if !buckets.is_sorted_by(|a, b| a.1 <= b.1) {
                return Err(format!("buckets of {family}{{{labels}}} do not rise"));
            }
            let last = buckets.last().copied();
            let count = series.get(&format!("{family}_count{{{labels}}}")).copied();
            if last.map(|(bound, _)| bound) != Some(f64::INFINITY) || last.map(|l| l.1) != count {
                return Err(format!("+Inf of {family}{{{labels}}} is not its count"));
            }
            if !series.contains_key(&format!("{family}_sum{{{labels}}}")) {
                return Err(format!("{family}{{{labels}}} has no sum"));
            }
        }
    }
    Ok(())
}
