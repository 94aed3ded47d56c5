//! libFuzzer's door to [`shunt_fuzz::virtio_net_hdr`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shunt_fuzz::virtio_net_hdr::check(input));
