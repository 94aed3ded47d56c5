//! libFuzzer's door to [`shunt_fuzz::geneve`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::geneve::check(input));
