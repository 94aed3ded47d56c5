//! libFuzzer's door to [`shunt_fuzz::vxlan`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::vxlan::check(input));
