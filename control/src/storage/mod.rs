//! The storage manager: disks' rows and who owns them. A machine's disks change owner with it.
//!
//! Never here: images, files, hypervisors.

use jiff::Timestamp;

use crate::model::{Disk, DiskId, DiskKind, Name, TenantId, VmId};
use crate::store::rows::{self, Row, RowError, Versioned};
use crate::store::{Draft, Key, KeyError, Prefix, Store};

impl Row for Disk {
    const KIND: &'static str = "disk";
    const SCHEMA: u32 = 1;
}

/// Where a disk's row is.
///
/// # Errors
/// Never.
pub fn disk_key(id: DiskId) -> Result<Key, KeyError> {
    Key::of(["disk", &id.to_string()])
}

fn of_vm_key(vm: VmId, disk: DiskId) -> Result<Key, KeyError> {
    Key::of(["disk_of", &vm.to_string(), &disk.to_string()])
}

/// Makes the disk that a machine boots from.
///
/// # Errors
/// Never.
pub fn put_os_disk(
    draft: &mut Draft,
    vm: VmId,
    tenant: TenantId,
    name: &Name,
    size_gib: u32,
    now: Timestamp,
) -> Result<Disk, KeyError> {
    let disk = Disk {
        id: DiskId::new(),
        tenant,
        name: name.clone(),
        kind: DiskKind::Os,
        size_gib,
        vm: Some(vm),
        created_at: now,
    };
    let key = disk_key(disk.id)?;
    draft.require_absent(&key).put_row(&key, &disk);
    draft.put(&of_vm_key(vm, disk.id)?, "{}");
    Ok(disk)
}

/// The disks of a machine; a machine has few.
///
/// # Errors
/// The store's.
pub async fn disks_of(store: &dyn Store, vm: VmId) -> Result<Vec<Versioned<Disk>>, RowError> {
    let page = store.list(&Prefix::of(["disk_of", &vm.to_string()])?, None, 64).await?;
    let mut disks = Vec::new();
    for entry in page.entries {
        let Some(id) = entry.key.segments().nth(2).and_then(|text| text.parse().ok()) else { continue };
        disks.extend(rows::load::<Disk>(store, &disk_key(id)?).await?);
    }
    Ok(disks)
}

/// A machine's disks get another owner.
///
/// # Errors
/// The store's.
pub async fn change_owner(
    store: &dyn Store,
    draft: &mut Draft,
    vm: VmId,
    tenant: TenantId,
) -> Result<(), RowError> {
    for mut disk in disks_of(store, vm).await? {
        disk.row.tenant = tenant;
        let key = disk_key(disk.row.id)?;
        draft.require(&key, disk.revision).put_row(&key, &disk.row);
    }
    Ok(())
}

/// A machine's own disk ends with it.
///
/// # Errors
/// The store's.
pub async fn remove_with(store: &dyn Store, draft: &mut Draft, vm: VmId) -> Result<(), RowError> {
    for mut disk in disks_of(store, vm).await? {
        let key = disk_key(disk.row.id)?;
        draft.require(&key, disk.revision);
        match disk.row.kind {
            DiskKind::Os => draft.delete(&key),
            // The customer's own stay.
            DiskKind::Data => {
                disk.row.vm = None;
                draft.put_row(&key, &disk.row)
            }
        };
        draft.delete(&of_vm_key(vm, disk.row.id)?);
    }
    Ok(())
}
