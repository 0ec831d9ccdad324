//! The probe's conversation and our closing dialogues, fed with anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::smtp::fuzz_dialogues(data));
