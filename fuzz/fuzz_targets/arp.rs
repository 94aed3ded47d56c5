//! libFuzzer's door to [`shunt_fuzz::arp`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::arp::check(input));
