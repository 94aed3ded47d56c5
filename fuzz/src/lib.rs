//! What must hold for *any* input: one truth per parser, and one for the whole pipeline.
//!
//! Each module has a `check(input)` that panics when the code under test breaks the truth, never because of the input.
//! Where it can, a truth asks an oracle of its own: the same rule written a second time, slowly, from the RFC. The
//! programs in `fuzz_targets/` only pass libFuzzer's bytes on; everything else runs on stable, and `tests/replay.rs`
//! puts every kept input through it.
//!
//! Never here: I/O, clocks, chance. The same input always does the same.

#![forbid(unsafe_code)]

pub mod arp;
pub mod dhcp;
pub mod dice;
mod flow;
pub mod geneve;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod pipeline;
mod sum;
pub mod vxlan;

/// A truth: panics when it does not hold.
pub type Check = fn(&[u8]);

/// Every target, by the name of its program and of its folders in `corpus/` and `regressions/`.
pub const TARGETS: [(&str, Check); 8] = [
    ("vxlan", vxlan::check),
    ("geneve", geneve::check),
    ("dhcp", dhcp::check),
    ("arp", arp::check),
    ("nd", nd::check),
    ("ipv4", ipv4::check),
    ("ipv6", ipv6::check),
    ("pipeline", pipeline::check),
];
