//! Configuration files: any octets; mistakes are rendered too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::config::fuzz_parse(data));
