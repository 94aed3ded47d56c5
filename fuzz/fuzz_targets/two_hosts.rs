//! libFuzzer's door to [`shunt_fuzz::pipeline::check_changing`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::pipeline::check_changing(input));
