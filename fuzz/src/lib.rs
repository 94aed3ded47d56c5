//! What must hold for *any* input: one truth per parser, and one for the whole pipeline.
//!
//! Each module has a `check(input)` that panics when the code under test breaks the truth, never because of the input.
//! Where it can, a truth asks an oracle of its own: the same rule written a second time, slowly, from the RFC. The
//! programs in `fuzz_targets/` only pass libFuzzer's bytes on; everything else runs on stable, and `tests/replay.rs`
//! puts every kept input through it.
//!
//! Never here: clocks, chance, and I/O but in [`machine`]. The same input always does the same.

#![forbid(unsafe_code)]

pub mod arp;
pub mod coalesce;
pub mod dhcp;
pub mod dhcp_client;
pub mod dice;
pub mod document;
mod flow;
pub mod geneve;
pub mod ipv4;
pub mod ipv6;
pub mod machine;
pub mod nd;
pub mod oracles;
pub mod pipeline;
mod sum;
pub mod virtio_net_hdr;
pub mod vxlan;

/// A truth: panics when it does not hold.
pub type Check = fn(&[u8]);

/// Every target, by the name of its program and of its folders in `corpus/` and `regressions/`.
pub const TARGETS: [(&str, Check); 17] = [
    ("vxlan", vxlan::check),
    ("geneve", geneve::check),
    ("dhcp", dhcp::check),
    ("arp", arp::check),
    ("nd", nd::check),
    ("ipv4", ipv4::check),
    ("ipv6", ipv6::check),
    ("oracles", oracles::check),
    ("virtio_net_hdr", virtio_net_hdr::check),
    ("coalesce", coalesce::check),
    ("dhcp_client", dhcp_client::check),
    ("pipeline", pipeline::check),
    ("two_hosts", pipeline::check_changing),
    ("document", document::check),
    ("config", machine::config::check),
    ("state", machine::state::check),
    ("control", machine::control::check),
];
