//! Two hosts in one thread: what guests send on one, what arrives on the other, what they are answered. Time is an
//! argument and there is no device, so every scenario is a few lines.
//!
//! `etherparse` and `dhcproto` build what guests send and judge what they get. Of every packet the harness checks
//! all counters of all ports and of the underlay: exactly what the verdict calls for has moved, and nothing else.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod answers;
mod attacks;
mod dhcp;
mod drops;
mod floods;
mod frames;
mod ingress;
mod metadata;
mod moves;
mod mtu;
mod paths;
mod robust;
mod rules;
#[path = "../../../tests/attacks/mod.rs"]
mod table;
mod world;
