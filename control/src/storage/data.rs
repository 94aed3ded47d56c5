//! Customers' own disks: made, attached to a machine, detached.

use jiff::Timestamp;

use super::{disk_key, of_vm_key};
use crate::model::{Disk, DiskId, DiskKind, Name, TenantId, VmId};
use crate::store::rows::Versioned;
use crate::store::{Draft, KeyError};

/// Makes a disk that is attached to no machine. Its name is the caller's business.
///
/// # Errors
/// Never.
pub fn put_data_disk(
    draft: &mut Draft,
    tenant: TenantId,
    name: &Name,
    size_gib: u32,
    now: Timestamp,
) -> Result<Disk, KeyError> {
    let disk = Disk {
        id: DiskId::new(),
        tenant,
        name: name.clone(),
        kind: DiskKind::Data,
        size_gib,
        vm: None,
        created_at: now,
    };
    draft.create(&disk_key(disk.id)?, &disk);
    Ok(disk)
}

/// Attaches a disk that nobody has written since it was read. Whether it may be is the caller's business.
///
/// # Errors
/// Never.
pub fn attach(draft: &mut Draft, disk: &Versioned<Disk>, vm: VmId) -> Result<Disk, KeyError> {
    let row = Disk { vm: Some(vm), ..disk.row.clone() };
    draft.replace(disk, &row);
    draft.put(&of_vm_key(vm, row.id)?, "{}");
    Ok(row)
}

/// Detaches a disk that nobody has written since it was read.
///
/// # Errors
/// Never.
pub fn detach(draft: &mut Draft, disk: &Versioned<Disk>) -> Result<Disk, KeyError> {
    let row = Disk { vm: None, ..disk.row.clone() };
    draft.replace(disk, &row);
    if let Some(vm) = disk.row.vm {
        draft.delete(&of_vm_key(vm, row.id)?);
    }
    Ok(row)
}
