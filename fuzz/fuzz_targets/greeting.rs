//! Replies and greetings: any octets, any chunking.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::smtp::fuzz_greeting(data));
