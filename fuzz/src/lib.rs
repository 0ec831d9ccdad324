//! The rows of Posthouse that read what others write, mounted without the rest of the house.
//!
//! Fuzzing needs them instrumented, with every dependency; the whole library would bring a TLS
//! stack and a runtime that no target reaches and take minutes to build. So the sources are
//! mounted here by path, under the names they have in the house: a row uses only rows above its
//! own, and these are the uppermost. What each target checks stands next to the code it checks
//! (`fuzz_greeting` and its kin).

#![allow(
    dead_code,
    missing_docs,
    unused,
    reason = "the house lints its own sources"
)]
#![allow(rustdoc::all, reason = "links lead to rows that are not mounted")]

#[path = "../../src/balance/mod.rs"]
pub mod balance;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/identity/mod.rs"]
pub mod identity;
#[path = "../../src/smtp/mod.rs"]
pub mod smtp;
#[path = "../../src/types/mod.rs"]
pub mod types;
