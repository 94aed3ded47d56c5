//! Between a port's stack and its device: the stack speaks IP, Ethernet is added here.
//!
//! Checksums of what comes in are not looked at: the guest's frames never were on a wire, and its kernel leaves them to a
//! NIC that does not exist.

use std::io::IoSlice;

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::drops::DropReason;
use crate::packet::Offload;
use crate::port;
use crate::stats::Cells;
use crate::tables::Port;
use crate::types::MacAddr;
use crate::wire::ethernet::{EtherType, Ethernet, HEADER_BYTES};

/// Where a stack's packets go: the port's device, under the snapshot in hand.
pub(super) struct Outlet<'a> {
    port: &'a Port,
    device: &'a dyn port::Device,
    cells: &'a Cells,
    scratch: &'a mut Vec<u8>,
}

impl<'a> Outlet<'a> {
    /// `scratch` is where frames are made.
    pub(super) fn new(
        port: &'a Port,
        device: &'a dyn port::Device,
        cells: &'a Cells,
        scratch: &'a mut Vec<u8>,
    ) -> Self {
        Self { port, device, cells, scratch }
    }

    fn send<R>(&mut self, ip_bytes: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        self.scratch.clear();
        self.scratch.resize(HEADER_BYTES + ip_bytes, 0);
        let header =
            Ethernet { destination: self.port.mac, source: MacAddr::ROUTER, ethertype: EtherType::IPV4 };
        let is_framed = header.emit(self.scratch).is_ok();
        let written = write(self.scratch.split_at_mut(HEADER_BYTES).1);
        if !is_framed || self.device.send(0, &[IoSlice::new(self.scratch)], Offload::NONE).is_err() {
            self.cells.dropped(DropReason::PortSend, 1);
        } else {
            self.cells.sent_packets.add(1);
            self.cells.sent_bytes.add(u64::try_from(self.scratch.len()).unwrap_or(u64::MAX));
        }
        written
    }
}

/// A port's device as a stack sees it, for one call.
pub(super) struct Link<'a> {
    incoming: Option<&'a [u8]>,
    outlet: Option<Outlet<'a>>,
    mtu: usize,
}

impl<'a> Link<'a> {
    /// One through which nothing goes, to make an interface of.
    pub(super) const fn shape(mtu: usize) -> Self {
        Self { incoming: None, outlet: None, mtu }
    }

    /// One that brings `incoming`, an IP packet, and takes what the stack sends.
    pub(super) const fn new(incoming: Option<&'a [u8]>, outlet: Outlet<'a>, mtu: usize) -> Self {
        Self { incoming, outlet: Some(outlet), mtu }
    }
}

impl<'a> Device for Link<'a> {
    type RxToken<'t>
        = Incoming<'a>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t, 'a>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'a>, Outgoing<'_, 'a>)> {
        let outlet = self.outlet.as_mut()?;
        Some((Incoming(self.incoming.take()?), Outgoing(outlet)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_, 'a>> {
        self.outlet.as_mut().map(Outgoing)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        checksum.ipv4 = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = checksum;
        capabilities
    }
}

pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

pub(super) struct Outgoing<'t, 'a>(&'t mut Outlet<'a>);

impl TxToken for Outgoing<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        self.0.send(length, write)
    }
}
