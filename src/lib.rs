//! Posthouse: an SMTP-aware load balancer.
//!
//! The library serves the binary, the tests, the benches and the fuzzers; it is not an API.
//! Modules in layer order, each using only those above it; see [`manual`] for the whole house.

pub mod types;

pub mod balance;
pub mod identity;
pub mod smtp;

pub mod config;
pub mod metrics;
pub mod telemetry;

pub mod snapshot;

pub mod net;

pub mod session;

pub mod worker;

pub mod control;

pub mod admin;
pub mod lab;

pub mod app;
pub mod cli;

pub mod manual;
