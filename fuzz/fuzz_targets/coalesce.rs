//! libFuzzer's door to [`shunt_fuzz::coalesce`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::coalesce::check(input));
