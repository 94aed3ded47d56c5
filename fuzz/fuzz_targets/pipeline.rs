//! libFuzzer's door to [`shunt_fuzz::pipeline`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::pipeline::check(input));
