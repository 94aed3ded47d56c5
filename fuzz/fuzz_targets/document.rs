//! libFuzzer's door to [`shunt_fuzz::document`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::document::check(input));
