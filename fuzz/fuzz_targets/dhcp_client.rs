//! libFuzzer's door to [`shunt_fuzz::dhcp_client`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::dhcp_client::check(input));
