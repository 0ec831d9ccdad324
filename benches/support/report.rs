//! Figures and how they are shown: a Markdown table per row, JSON for machines.

use std::fmt::Write as _;

use serde::Serialize;

use super::peer::Kind;
use super::statistics::Estimate;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) row: String,
    /// What was measured, with its unit.
    pub(crate) metric: String,
    pub(crate) peer: String,
    pub(crate) value: f64,
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
    /// The budget: at most this.
    pub(crate) budget: Option<f64>,
    pub(crate) met: Option<bool>,
}

/// Everything measured in one run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// What it was measured on and with.
    pub(crate) facts: Vec<String>,
    pub(crate) figures: Vec<Figure>,
    /// Remarks by row.
    pub(crate) notes: Vec<(String, String)>,
}

impl Report {
    /// Records a figure and says it at once.
    pub(crate) fn add(&mut self, row: &str, metric: &str, peer: impl Into<String>, value: f64) {
        self.push(row, metric, peer.into(), value, None, None);
    }

    /// Records a figure of ours that has a budget (others' figures have none).
    pub(crate) fn judge(&mut self, row: &str, metric: &str, kind: Kind, value: f64, budget: f64) {
        let budget = kind.is_ours().then_some(budget);
        self.push(row, metric, kind.to_string(), value, None, budget);
    }

    /// Records a ratio with its interval; the budget is for the middle.
    pub(crate) fn ratio(
        &mut self,
        row: &str,
        metric: &str,
        peer: &str,
        ratio: Estimate,
        budget: Option<f64>,
    ) {
        self.push(
            row,
            metric,
            peer.to_owned(),
            ratio.value,
            Some(ratio),
            budget,
        );
    }

    pub(crate) fn note(&mut self, row: &str, text: impl Into<String>) {
        let text = text.into();
        eprintln!("  {row}: {text}");
        self.notes.push((row.to_owned(), text));
    }

    /// The budgets that were missed.
    pub(crate) fn missed(&self) -> Vec<&Figure> {
        self.figures
            .iter()
            .filter(|figure| figure.met == Some(false))
            .collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for fact in &self.facts {
            let _ = writeln!(text, "- {fact}");
        }
        let mut rows: Vec<&str> = Vec::new();
        for row in self.figures.iter().map(|figure| figure.row.as_str()) {
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        for row in rows {
            self.table(row, &mut text);
        }
        text
    }

    fn push(
        &mut self,
        row: &str,
        metric: &str,
        peer: String,
        value: f64,
        interval: Option<Estimate>,
        budget: Option<f64>,
    ) {
        let figure = Figure {
            row: row.to_owned(),
            metric: metric.to_owned(),
            peer,
            value,
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            budget,
            met: budget.map(|budget| value <= budget),
        };
        eprintln!("  {row}: {metric}: {} {}", figure.peer, shown(&figure));
        self.figures.push(figure);
    }

    fn table(&self, row: &str, text: &mut String) {
        let figures: Vec<&Figure> = self
            .figures
            .iter()
            .filter(|figure| figure.row == row)
            .collect();
        let mut peers: Vec<&str> = Vec::new();
        let mut metrics: Vec<&str> = Vec::new();
        for figure in &figures {
            if !peers.contains(&figure.peer.as_str()) {
                peers.push(&figure.peer);
            }
            if !metrics.contains(&figure.metric.as_str()) {
                metrics.push(&figure.metric);
            }
        }
        let _ = writeln!(
            text,
            "\n### {row}\n\n| | {} | budget | |",
            peers.join(" | ")
        );
        let _ = writeln!(text, "|---|{}---|---|", "---:|".repeat(peers.len()));
        for metric in metrics {
            let of = |peer: &str| {
                figures
                    .iter()
                    .find(|figure| figure.metric == metric && figure.peer == peer)
            };
            let cells: Vec<String> = peers
                .iter()
                .map(|peer| of(peer).map_or("–".to_owned(), |f| shown(f)))
                .collect();
            let judged = figures
                .iter()
                .find(|figure| figure.metric == metric && figure.budget.is_some());
            let (budget, verdict) = judged.map_or((String::new(), ""), |figure| {
                let budget = figure.budget.map(number).unwrap_or_default();
                (
                    format!("≤ {budget}"),
                    if figure.met == Some(true) {
                        "met"
                    } else {
                        "**missed**"
                    },
                )
            });
            let _ = writeln!(
                text,
                "| {metric} | {} | {budget} | {verdict} |",
                cells.join(" | ")
            );
        }
        for (_, note) in self.notes.iter().filter(|(of, _)| of == row) {
            let _ = writeln!(text, "\n{note}");
        }
    }
}

fn shown(figure: &Figure) -> String {
    match (figure.low, figure.high) {
        (Some(low), Some(high)) => {
            format!(
                "{} ({}–{})",
                number(figure.value),
                number(low),
                number(high)
            )
        }
        _ => number(figure.value),
    }
}

/// Three significant digits or all whole ones.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        // Thousands in groups.
        let whole = format!("{size:.0}");
        let mut grouped = String::new();
        for (place, digit) in whole.chars().enumerate() {
            if place > 0 && (whole.len() - place) % 3 == 0 {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        if value < 0.0 {
            format!("-{grouped}")
        } else {
            grouped
        }
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
