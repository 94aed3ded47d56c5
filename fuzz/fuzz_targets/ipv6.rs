//! libFuzzer's door to [`shunt_fuzz::ipv6`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::ipv6::check(input));
