//! The compute manager: machines' rows, where they are placed, and what hosts say about them.
//!
//! Never here: networks beyond their monikers, journeys, connections to hosts.

mod facts;
mod hosts;
mod placement;
mod rows;

pub use facts::{fact_key, fact_of, fact_prefix, facts_prefix, merged, put_fact};
pub use hosts::{all as hosts, host, host_key, put_host};
pub use placement::{PlacementError, place};
pub use rows::{
    load_nic, load_vm, naming, new_mac, new_port, nic_key, note_naming, on_host, on_host_prefix, put_new,
    remove, save_nic, save_vm, vm_key, vms_prefix,
};
