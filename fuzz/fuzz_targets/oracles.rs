//! libFuzzer's door to [`shunt_fuzz::oracles`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::oracles::check(input));
