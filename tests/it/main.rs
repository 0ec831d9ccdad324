//! One integration binary: a real balancer in process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics has failed, and helpers of tests are tests"
)]

mod admin;
mod architecture;
mod bind;
mod bounds;
mod chaos;
mod cli;
mod config_mistakes;
mod config_samples;
mod demo;
mod drain;
mod files;
mod half_close;
mod harness;
mod mail;
mod mail_changes;
mod mail_evidence;
mod mail_full;
mod mail_quota;
mod mail_storm;
mod mail_words;
mod names;
mod operator;
mod passthrough;
mod probes;
mod prometheus;
mod reload;
mod service;
mod session_lines;
mod sink;
mod whole;
