//! libFuzzer's door to [`shunt_fuzz::nd`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::nd::check(input));
