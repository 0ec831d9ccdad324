//! The content of DATA: any octets, any chunking, both policies, stuffing off and on.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::smtp::fuzz_data(data));
