//! The laboratory: hosts, guests and wires made of network namespaces, all inside one [`World`] that vanishes with its
//! owner. `shunt demo` and the end-to-end tests are written in its words.
//!
//! It starts programs (`ip`, DHCP clients, `tcpdump`) and never touches a namespace, interface or file of the machine:
//! what it makes lives in mount, network and PID namespaces of its own.
//!
//! ```text
//!   guest ns ── TAP of the switch ── host ns ── veth ── bridge in "fabric" ── veth ── host ns ── TAP ── guest ns
//! ```

mod capture;
mod dhcp;
mod error;
mod guest;
mod host;
mod inject;
mod link;
mod pcap;
mod peer;
mod process;
mod sandbox;
mod switch;
mod tools;
mod wait;

pub use capture::{Capture, Frame};
pub use dhcp::{ClientKind, DhcpClient, LeaseEvent};
pub use error::LabError;
pub use guest::{CarrierWatch, Guest};
pub use host::{FABRIC, Host, make_fabric};
pub use link::{enter_netns, enter_world, set_checksum_offload};
pub use pcap::{Record, read_pcap};
pub use peer::KernelPeer;
pub use process::Process;
pub use sandbox::World;
pub use switch::{CliFailure, Switch, SwitchOptions};
pub use tools::{Tool, require};
pub use wait::wait_until;
