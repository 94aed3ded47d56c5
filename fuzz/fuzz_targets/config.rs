//! libFuzzer's door to [`shunt_fuzz::machine::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::machine::config::check(input));
