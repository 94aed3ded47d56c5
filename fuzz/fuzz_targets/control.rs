//! libFuzzer's door to [`shunt_fuzz::machine::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::machine::control::check(input));
