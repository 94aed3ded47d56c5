//! Between the model and the messages of the link: sizes are bounded on the way out, and everything is checked on the way in.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use dataplane::desired::NetworkConfig;
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::proto;
use super::source::{DesiredChange, DirectoryEntry};
use crate::model::{VmDesired, VmId};

/// The longest message that either side reads, in bytes.
pub const LARGEST_MESSAGE: usize = 4 << 20;
/// A part of a document is sent when it is this long, in bytes.
pub const PART: usize = 512 << 10;
/// The longest machine in a document, in bytes: with a part before it, it still fits a message.
pub const LARGEST_VM: usize = 2 << 20;
/// Entries in a page or a delta of a directory.
pub const LARGEST_PAGE: usize = 1024;
/// Facts in one message.
pub const MOST_FACTS: usize = 64;

/// A message that is not what it should be: the sender is not one of us, or of another time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct CodecError {
    /// Which part of it.
    pub what: &'static str,
    /// What is wrong.
    pub why: String,
}

fn wrong(what: &'static str) -> impl Fn(String) -> CodecError {
    move |why| CodecError { what, why }
}

/// The JSON of a value of the model.
///
/// # Errors
/// When it has none.
pub fn to_json(what: &'static str, value: &impl Serialize) -> Result<Bytes, CodecError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| wrong(what)(error.to_string()))
}

/// A value of the model from its JSON.
///
/// # Errors
/// When it is something else.
pub fn from_json<T: DeserializeOwned>(what: &'static str, json: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(json).map_err(|error| wrong(what)(error.to_string()))
}

/// A VNI.
///
/// # Errors
/// When the number cannot be one.
pub fn vni(number: u32) -> Result<Vni, CodecError> {
    Vni::new(number).map_err(|error| wrong("vni")(error.to_string()))
}

fn address(what: &'static str, bytes: &[u8]) -> Result<IpAddr, CodecError> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(four.into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes);
    sixteen.map(IpAddr::from).map_err(|_| wrong(what)(format!("{} bytes are no address", bytes.len())))
}

fn octets(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

impl From<&DirectoryEntry> for proto::DirectoryEntry {
    fn from(entry: &DirectoryEntry) -> Self {
        let mac = Bytes::copy_from_slice(&entry.mac.0);
        Self { ip: octets(entry.ip.0), mac, physical_ip: octets(entry.physical_ip.0) }
    }
}

impl TryFrom<&proto::DirectoryEntry> for DirectoryEntry {
    type Error = CodecError;
    fn try_from(entry: &proto::DirectoryEntry) -> Result<Self, CodecError> {
        let mac = <[u8; 6]>::try_from(entry.mac.as_ref());
        let mac = mac.map_err(|_| wrong("mac")(format!("{} bytes are no MAC address", entry.mac.len())))?;
        Ok(Self {
            ip: CustomerIp(address("ip", &entry.ip)?),
            mac: MacAddr(mac),
            physical_ip: PhysicalIp(address("physical_ip", &entry.physical_ip)?),
        })
    }
}

/// Entries of a message.
///
/// # Errors
/// The first that is none; too many.
pub fn entries(from: &[proto::DirectoryEntry]) -> Result<Vec<DirectoryEntry>, CodecError> {
    if from.len() > LARGEST_PAGE {
        return Err(wrong("entries")(format!("{} are too many, at most {LARGEST_PAGE} may be", from.len())));
    }
    from.iter().map(TryInto::try_into).collect()
}

/// Addresses to remove.
///
/// # Errors
/// The first that is none; too many.
pub fn removes(from: &[Bytes]) -> Result<Vec<CustomerIp>, CodecError> {
    if from.len() > LARGEST_PAGE {
        return Err(wrong("removes")(format!("{} are too many, at most {LARGEST_PAGE} may be", from.len())));
    }
    from.iter().map(|ip| address("removes", ip).map(CustomerIp)).collect()
}

/// Addresses to remove, for a message.
#[must_use]
pub fn removed(ips: &[CustomerIp]) -> Vec<Bytes> {
    ips.iter().map(|ip| octets(ip.0)).collect()
}

/// A change of a document that is being sent part by part.
#[derive(Debug)]
pub struct Parts {
    change: DesiredChange,
    next_vm: usize,
    first: bool,
    done: bool,
}

impl Parts {
    /// From the beginning.
    #[must_use]
    pub fn new(change: DesiredChange) -> Self {
        Self { change, next_vm: 0, first: true, done: false }
    }

    /// What is being sent.
    #[must_use]
    pub fn change(&self) -> &DesiredChange {
        &self.change
    }

    /// The next part; none after the last. Machines that are too long for any message come back beside it.
    ///
    /// # Errors
    /// When something has no JSON.
    pub fn next_part(&mut self) -> Result<Option<(proto::Desired, Vec<VmId>)>, CodecError> {
        if self.done {
            return Ok(None);
        }
        let (mut bytes, mut vm_json, mut too_long) = (0, Vec::new(), Vec::new());
        while let Some(vm) = self.change.vms.get(self.next_vm)
            && bytes < PART
        {
            self.next_vm += 1;
            let json = to_json("vm", &**vm)?;
            if json.len() > LARGEST_VM {
                too_long.push(vm.vm);
            } else {
                bytes += json.len();
                vm_json.push(json);
            }
        }
        let more = self.next_vm < self.change.vms.len();
        let DesiredChange { generation, base, networks, removed, .. } = &self.change;
        let mut part = proto::Desired {
            generation: *generation,
            full: base.is_none(),
            base: base.unwrap_or_default(),
            vm_json,
            more,
            ..Default::default()
        };
        if std::mem::take(&mut self.first) {
            part.network_json =
                networks.iter().map(|network| to_json("network", &**network)).collect::<Result<_, _>>()?;
            part.removed = removed.iter().map(ToString::to_string).collect();
        }
        self.done = !more;
        Ok(Some((part, too_long)))
    }
}

/// A change of a document that is being received part by part.
#[derive(Debug, Default)]
pub struct Gathered {
    change: Option<DesiredChange>,
    bytes: usize,
}

/// The longest document that a host takes, in bytes of JSON.
pub const LARGEST_DOCUMENT: usize = 64 << 20;

impl Gathered {
    /// Adds a part; the whole change when that was the last one.
    ///
    /// # Errors
    /// When it is garbled, does not belong to the part before, or makes the whole too long. Then nothing is left of it.
    pub fn add(&mut self, part: &proto::Desired) -> Result<Option<DesiredChange>, CodecError> {
        let so_far = self.change.take();
        let base = if part.full { None } else { Some(part.base) };
        let mut change = match so_far {
            None => {
                self.bytes = 0;
                DesiredChange {
                    generation: part.generation,
                    base,
                    networks: Vec::new(),
                    vms: Vec::new(),
                    removed: Vec::new(),
                }
            }
            Some(change) if change.generation == part.generation && change.base == base => change,
            Some(change) => {
                let why = format!("a part of {} came within {}", part.generation, change.generation);
                return Err(wrong("desired")(why));
            }
        };
        let lengths = part.vm_json.iter().chain(&part.network_json).map(Bytes::len);
        self.bytes += lengths.sum::<usize>() + part.removed.len() * 36;
        if self.bytes > LARGEST_DOCUMENT {
            return Err(wrong("desired")(format!("it is longer than {LARGEST_DOCUMENT} bytes")));
        }
        for json in &part.network_json {
            change.networks.push(Arc::new(from_json::<NetworkConfig>("network", json)?));
        }
        for json in &part.vm_json {
            change.vms.push(Arc::new(from_json::<VmDesired>("vm", json)?));
        }
        for id in &part.removed {
            change.removed.push(id.parse().map_err(|error| wrong("removed")(format!("{error}")))?);
        }
        if part.more {
            self.change = Some(change);
            return Ok(None);
        }
        Ok(Some(change))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]
    use super::*;
    use crate::fleet::samples;

    fn change(vms: usize, script: usize) -> DesiredChange {
        let vm = |_| {
            let mut vm = samples::vm(1);
            vm.config.settings.script = Some("x".repeat(script));
            Arc::new(vm)
        };
        DesiredChange {
            generation: 9,
            base: Some(8),
            networks: vec![Arc::new(samples::network(100))],
            vms: (0..vms).map(vm).collect(),
            removed: vec![VmId::new()],
        }
    }

    #[test]
    fn a_change_arrives_as_it_was_sent_in_parts_that_fit_a_message() {
        for (vms, script, least) in [(0, 0, 1), (3, 10, 1), (5, 300 << 10, 3)] {
            let sent = change(vms, script);
            let (mut parts, mut gathered, mut count) = (Parts::new(sent.clone()), Gathered::default(), 0);
            let mut arrived = None;
            while let Some((part, too_long)) = parts.next_part().unwrap() {
                assert!(arrived.is_none() && too_long.is_empty());
                assert!(prost::Message::encoded_len(&part) < LARGEST_MESSAGE / 2);
                arrived = gathered.add(&part).unwrap();
                count += 1;
            }
            assert_eq!(arrived.unwrap(), sent);
            assert!(count >= least, "{count} parts");
        }
    }

    #[test]
    fn a_machine_that_fits_no_message_is_named_and_does_not_stop_the_others() {
        let mut sent = change(2, 0);
        let mut long = samples::vm(1);
        long.config.settings.script = Some("x".repeat(LARGEST_VM));
        let id = long.vm;
        sent.vms.insert(1, Arc::new(long));
        let (part, too_long) = Parts::new(sent).next_part().unwrap().unwrap();
        assert_eq!((part.vm_json.len(), too_long), (2, vec![id]));
    }

    #[test]
    fn parts_of_different_changes_are_not_mixed_and_rubbish_is_refused() {
        let mut gathered = Gathered::default();
        let part = |generation, more| proto::Desired { generation, full: true, more, ..Default::default() };
        assert_eq!(gathered.add(&part(1, true)).unwrap(), None);
        assert!(gathered.add(&part(2, false)).is_err());
        assert!(gathered.add(&part(2, false)).unwrap().is_some(), "the refused one leaves nothing behind");
        for bad in [
            proto::Desired { vm_json: vec![Bytes::from_static(b"{}")], ..part(1, false) },
            proto::Desired { network_json: vec![Bytes::from_static(b"{")], ..part(1, false) },
            proto::Desired { removed: vec!["x".to_owned()], ..part(1, false) },
        ] {
            assert!(gathered.add(&bad).is_err());
        }
        let entry = proto::DirectoryEntry::from(&samples::entry(1, 1));
        assert_eq!(entries(std::slice::from_ref(&entry)).unwrap(), [samples::entry(1, 1)]);
        let five = Bytes::from_static(&[1, 2, 3, 4, 5]);
        for bad in [
            proto::DirectoryEntry { ip: five.clone(), ..entry.clone() },
            proto::DirectoryEntry { mac: five.clone(), ..entry.clone() },
            proto::DirectoryEntry { physical_ip: Bytes::new(), ..entry.clone() },
        ] {
            assert!(entries(&[bad]).is_err());
        }
        assert!(entries(&vec![entry; LARGEST_PAGE + 1]).is_err());
        assert!(removes(&[five]).is_err() && vni(0).is_err() && vni(1 << 24).is_err());
    }
}
