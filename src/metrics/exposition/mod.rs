//! The Prometheus text format 0.0.4, written in pieces.
//!
//! A scrape is an iterator over chunks of about [`CHUNK_OCTETS`]: with ten thousand backends no
//! chunk takes long and only one is in memory. The families are a table, each with
//! its help; all samples of a family come together, as the format wants.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

mod backends;
mod families;
mod mail;

use std::fmt::Display;
use std::io::Write;

use super::sample::Scrape;
use crate::types::{Histogram, HistogramTotals};
use families::Family;

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A chunk ends with the first item that fills it.
pub const CHUNK_OCTETS: usize = 32 * 1024;

/// The text of one scrape, in chunks.
#[derive(Debug)]
pub struct Exposition {
    scrape: Scrape,
    family: usize,
    item: usize,
}

impl Exposition {
    /// The text of `scrape`.
    pub fn new(scrape: Scrape) -> Self {
        Self {
            scrape,
            family: 0,
            item: 0,
        }
    }
}

impl Iterator for Exposition {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(family) = family(self.family) {
            if self.item >= family.scope.items(&self.scrape) {
                self.family += 1;
                self.item = 0;
                continue;
            }
            if out.capacity() == 0 {
                out.reserve(CHUNK_OCTETS + CHUNK_OCTETS / 4);
            }
            if self.item == 0 {
                family.head(&mut out);
            }
            let mut samples = Samples {
                out: &mut out,
                family: family.name,
            };
            (family.write)(&self.scrape, self.item, &mut samples);
            self.item += 1;
            if out.len() >= CHUNK_OCTETS {
                break;
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

/// Every metric's name, type and help, for the manual.
pub fn catalogue() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    (0..)
        .map_while(family)
        .map(|family| (family.name, family.kind.name(), family.help))
}

/// The page in parts.
const PARTS: [&[Family]; 3] = [families::FAMILIES, backends::FAMILIES, mail::FAMILIES];

/// The family with this index, in the order of the page.
fn family(mut index: usize) -> Option<&'static Family> {
    for part in PARTS {
        match part.get(index) {
            Some(family) => return Some(family),
            None => index -= part.len(),
        }
    }
    None
}

/// The samples of one item of one family.
struct Samples<'a> {
    out: &'a mut Vec<u8>,
    family: &'static str,
}

type Label<'a> = (&'static str, &'a str);

impl Samples<'_> {
    fn value(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    fn flag(&mut self, labels: &[Label<'_>], value: bool) {
        self.value(labels, u8::from(value));
    }

    /// A summary without quantiles.
    fn summary(&mut self, labels: &[Label<'_>], count: u64, sum: f64) {
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn histogram(&mut self, labels: &[Label<'_>], totals: &HistogramTotals) {
        let mut count = 0;
        for (bucket, bound) in totals.buckets.iter().zip(Histogram::BOUNDS_MICROS) {
            count += bucket;
            let bound = bound as f64 / 1e6;
            self.line("_bucket", labels, Some(&bound), count);
        }
        count += totals.buckets[Histogram::BOUNDS_MICROS.len()];
        self.line("_bucket", labels, Some(&"+Inf"), count);
        self.line("_sum", labels, None, totals.sum_micros as f64 / 1e6);
        self.line("_count", labels, None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[Label<'_>],
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        self.out.extend_from_slice(self.family.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        let mut before: &[u8] = b"{";
        for (name, value) in labels {
            self.out.extend_from_slice(before);
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"=\"");
            escape(self.out, value);
            self.out.push(b'"');
            before = b",";
        }
        // Writing to a Vec cannot fail.
        if let Some(bound) = bound {
            self.out.extend_from_slice(before);
            let _ = write!(self.out, "le=\"{bound}\"");
            before = b",";
        }
        if before == b"," {
            self.out.push(b'}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

/// Label values escape backslash, quote and line feed.
fn escape(out: &mut Vec<u8>, value: &str) {
    for octet in value.bytes() {
        match octet {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
