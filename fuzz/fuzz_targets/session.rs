//! Sessions: any client, any backend, any order of what happens to them.
#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    posthouse_fuzz::smtp::fuzz_session(Instant::now(), data);
});
