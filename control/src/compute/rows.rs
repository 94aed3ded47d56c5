//! Machines' and interfaces' rows, and the index of who runs where.

use dataplane::types::MacAddr;

use crate::model::{HostId, Nic, NicId, Vm, VmId};
use crate::store::rows::{self, Row, RowError, Versioned};
use crate::store::{Draft, Key, KeyError, Prefix, Store};

impl Row for Vm {
    const KIND: &'static str = "vm";
    const SCHEMA: u32 = 1;
}

impl Row for Nic {
    const KIND: &'static str = "nic";
    const SCHEMA: u32 = 1;
}

/// Where a machine's row is.
///
/// # Errors
/// Never.
pub fn vm_key(id: VmId) -> Result<Key, KeyError> {
    Key::of(["vm", &id.to_string()])
}

/// All machines.
///
/// # Errors
/// Never.
pub fn vms_prefix() -> Result<Prefix, KeyError> {
    Prefix::of(["vm"])
}

/// Where an interface's row is.
///
/// # Errors
/// Never.
pub fn nic_key(id: NicId) -> Result<Key, KeyError> {
    Key::of(["nic", &id.to_string()])
}

fn mac_key(mac: MacAddr) -> Result<Key, KeyError> {
    Key::of(["mac", &mac.to_string()])
}

fn on_host_key(host: HostId, vm: VmId) -> Result<Key, KeyError> {
    Key::of(["on_host", &host.to_string(), &vm.to_string()])
}

/// The machines of a host: `on_host/HOST/VM`.
///
/// # Errors
/// Never.
pub fn on_host_prefix(host: HostId) -> Result<Prefix, KeyError> {
    Prefix::of(["on_host", &host.to_string()])
}

/// A machine.
///
/// # Errors
/// The store's.
pub async fn load_vm(store: &dyn Store, id: VmId) -> Result<Option<Versioned<Vm>>, RowError> {
    rows::load(store, &vm_key(id)?).await
}

/// An interface.
///
/// # Errors
/// The store's.
pub async fn load_nic(store: &dyn Store, id: NicId) -> Result<Option<Versioned<Nic>>, RowError> {
    rows::load(store, &nic_key(id)?).await
}

/// Which machines a host has.
///
/// # Errors
/// The store's.
pub async fn on_host(store: &dyn Store, host: HostId) -> Result<Vec<VmId>, RowError> {
    let prefix = on_host_prefix(host)?;
    let (mut vms, mut after): (Vec<VmId>, Option<Key>) = (Vec::new(), None);
    loop {
        let page = store.list(&prefix, after.as_ref(), usize::MAX).await?;
        after = page.entries.last().map(|entry| entry.key.clone());
        vms.extend(page.entries.iter().filter_map(|entry| entry.key.segments().nth(2)?.parse::<VmId>().ok()));
        if !page.more {
            return Ok(vms);
        }
    }
}

/// Writes a machine that was not there before, with its interface.
///
/// # Errors
/// Never.
pub fn put_new(draft: &mut Draft, vm: &Vm, nic: &Nic) -> Result<(), KeyError> {
    let (vm_key, nic_key, mac_key) = (vm_key(vm.id)?, nic_key(nic.id)?, mac_key(nic.mac)?);
    draft.require_absent(&vm_key).put_row(&vm_key, vm);
    draft.require_absent(&nic_key).put_row(&nic_key, nic);
    draft.require_absent(&mac_key).put(&mac_key, "{}");
    draft.put(&on_host_key(vm.host, vm.id)?, "{}");
    Ok(())
}

/// Writes a machine that nobody has written since it was read.
///
/// # Errors
/// Never.
pub fn save_vm(draft: &mut Draft, vm: &Versioned<Vm>) -> Result<(), KeyError> {
    let key = vm_key(vm.row.id)?;
    draft.require(&key, vm.revision).put_row(&key, &vm.row);
    Ok(())
}

/// Writes an interface that nobody has written since it was read.
///
/// # Errors
/// Never.
pub fn save_nic(draft: &mut Draft, nic: &Versioned<Nic>) -> Result<(), KeyError> {
    let key = nic_key(nic.row.id)?;
    draft.require(&key, nic.revision).put_row(&key, &nic.row);
    Ok(())
}

/// Removes a machine, its interface and what its host said of it.
///
/// # Errors
/// Never.
pub fn remove(draft: &mut Draft, vm: &Versioned<Vm>, nic: &Nic) -> Result<(), KeyError> {
    let key = vm_key(vm.row.id)?;
    draft.require(&key, vm.revision).delete(&key);
    draft.delete(&nic_key(nic.id)?);
    draft.delete(&mac_key(nic.mac)?);
    draft.delete(&on_host_key(vm.row.host, vm.row.id)?);
    draft.delete(&super::fact_key(vm.row.id)?);
    Ok(())
}

fn naming_key(named: VmId, by: VmId) -> Result<Key, KeyError> {
    Key::of(["named_by", &named.to_string(), &by.to_string()])
}

/// From now on a rule of `by` names `named`. The index may say too much, never too little.
///
/// # Errors
/// Never.
pub fn note_naming(draft: &mut Draft, named: VmId, by: VmId) -> Result<(), KeyError> {
    draft.put(&naming_key(named, by)?, "{}");
    Ok(())
}

/// The machines with rules that name this one.
///
/// # Errors
/// The store's.
pub async fn naming(store: &dyn Store, named: VmId) -> Result<Vec<VmId>, RowError> {
    let page = store.list(&Prefix::of(["named_by", &named.to_string()])?, None, usize::MAX).await?;
    Ok(page.entries.iter().filter_map(|entry| entry.key.segments().nth(2)?.parse().ok()).collect())
}

/// A MAC address for life: locally administered, unicast (IEEE 802, section 8.2), 40 bits of chance.
#[must_use]
pub fn new_mac() -> MacAddr {
    let chance = uuid::Uuid::new_v4().into_bytes();
    MacAddr([0x02, chance[0], chance[1], chance[2], chance[3], chance[4]])
}

/// A port's name: an `s` and twelve digits of the machine's id, of its random part.
#[must_use]
pub fn new_port(vm: VmId) -> String {
    let text = vm.uuid().simple().to_string();
    format!("s{}", text.get(20..).unwrap_or(&text))
}
