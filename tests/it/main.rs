//! One integration binary: a real balancer in process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics has failed, and helpers of tests are tests"
)]

mod architecture;
mod cli;
mod config_mistakes;
mod config_samples;
mod demo;
mod sink;
