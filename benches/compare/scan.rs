//! What reading message content costs: the scanner of DATA, and dot-stuffing off and on.
//!
//! 64 MiB of clean mail in memory, in inputs as long as a worker's scratch. The middle of several
//! passes; nothing is copied, as nothing is on the way of a clean message.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};

use posthouse::smtp::{DataProgress, DataScanner, LineEndings, Piece, Stuffer, Unstuffer};

use super::Plan;
use super::support::peer::Kind;
use super::support::report::Report;
use super::support::statistics::median;

const MAIL: usize = 64 << 20;
const INPUT: usize = 64 << 10;
/// Text as mail has it, wrapped at 76 as base64 is, and as long as a line may be.
const LINES: [(&str, usize); 3] = [("40 octets", 38), ("78 octets", 76), ("1,000 octets", 998)];
const PASSES: usize = 9;
/// 2 GB/s, said as a cost.
const NANOSECONDS_PER_KB_MAX: f64 = 500.0;

pub(super) fn row(plan: &Plan, report: &mut Report) -> Result<()> {
    if !plan.has(Kind::Posthouse) {
        return Ok(());
    }
    let row = "message content: nanoseconds per KB";
    for (name, length) in LINES {
        let mail = [vec![b'a'; length].as_slice(), b"\r\n"].concat();
        let mail = mail.repeat(MAIL / mail.len());
        for (what, pass) in [
            ("scan", scan as fn(&[u8]) -> usize),
            ("stuff", stuff),
            ("unstuff", unstuff),
        ] {
            let mut costs = Vec::new();
            for _ in 0..PASSES {
                let start = Instant::now();
                let passed = pass(black_box(&mail));
                let cost = start.elapsed().as_nanos() as f64;
                ensure!(passed == mail.len(), "{what} lost octets");
                costs.push(cost / (mail.len() as f64 / 1000.0));
            }
            let cost = median(&costs);
            let metric = format!("{what}, lines of {name}");
            report.judge(row, &metric, Kind::Posthouse, cost, NANOSECONDS_PER_KB_MAX);
            report.note(row, format!("{metric}: {:.1} GB/s", 1000.0 / cost));
        }
    }
    Ok(())
}

fn length(piece: &Piece) -> usize {
    match piece {
        Piece::Range(range) => range.len(),
        Piece::Insert(octets) => octets.len(),
    }
}

/// The octets put out of a mail that has not ended.
fn scan(mail: &[u8]) -> usize {
    let mut scanner = DataScanner::new(LineEndings::Normalize);
    let mut passed = 0;
    for input in mail.chunks(INPUT) {
        let progress = scanner.scan(input, |piece| passed += length(&piece));
        assert_eq!(progress, DataProgress::More);
    }
    passed
}

fn stuff(mail: &[u8]) -> usize {
    let mut stuffer = Stuffer::default();
    let mut passed = 0;
    for input in mail.chunks(INPUT) {
        let fit = stuffer.stuff(input, |piece| passed += length(&piece));
        assert_eq!(fit, Ok(()));
    }
    passed
}

fn unstuff(mail: &[u8]) -> usize {
    let mut unstuffer = Unstuffer::default();
    let mut passed = 0;
    for input in mail.chunks(INPUT) {
        unstuffer.unstuff(input, |range| passed += range.len());
    }
    passed
}
