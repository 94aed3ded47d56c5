//! Between hosts: tunnel packets out in trains, and in.
//!
//! A packet given to an [`Underlay`] begins with its tunnel header; the outer UDP, IP and Ethernet headers are the
//! kernel's. What its sender left undone (checksum, segmentation) is done here or further down. Each worker has an
//! underlay of its own. Never here: tunnel headers' contents, policy, networks.

use std::os::fd::BorrowedFd;
use std::slice::ChunksMut;

use crate::packet::{Buffer, Offload};
use crate::types::PhysicalIp;

pub mod udp;

/// One receive: a datagram, or several of one size (the last may be shorter) behind each other in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The sending host.
    pub from: PhysicalIp,
    /// Bytes in the buffer's receive area.
    pub bytes: usize,
    /// The size of each datagram but the last.
    pub segment_bytes: usize,
    /// The outer traffic class (DSCP and ECN).
    pub traffic_class: u8,
}

impl Arrival {
    /// The datagrams within the buffer that was received into, tunnel header first.
    pub fn datagrams<'b>(&self, buffer: &'b mut Buffer) -> ChunksMut<'b, u8> {
        let bytes = buffer.receive_area().get_mut(..self.bytes).unwrap_or_default();
        bytes.chunks_mut(self.segment_bytes.max(1))
    }
}

/// A packet to another host.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// That host.
    pub to: PhysicalIp,
    /// Hash of the inner flow: chooses the outer source port.
    pub entropy: u16,
    /// The outer traffic class.
    pub traffic_class: u8,
    /// Bytes of tunnel header in front of the inner Ethernet header.
    pub tunnel_bytes: usize,
    /// Tunnel header and frame. A partial checksum is completed in place.
    pub packet: &'a mut [u8],
    /// What is left to be done; offsets count from the inner Ethernet header.
    pub offload: Offload,
    /// What became of it: set by [`Underlay::send`].
    pub result: Result<(), SendError>,
}

/// Why a packet did not leave. The reason is of the moment: none ends the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The frame contradicts its offload request.
    #[error("the offload request contradicts the packet's headers")]
    Offload,
    /// This host has no physical address of the destination's family.
    #[error("no local physical address of the destination's family")]
    Family,
    /// Larger than the link to that host takes.
    #[error("the packet is larger than the underlay's MTU")]
    TooBig,
    /// The socket's or the link's queue is full.
    #[error("the underlay's queue is full")]
    Full,
    /// Any other refusal, such as no route to that host.
    #[error("the kernel refused to send")]
    Refused,
}

/// What an underlay counts, in total since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that the kernel took.
    pub sent_datagrams: u64,
    /// Sends that it took them in.
    pub sends: u64,
    /// Trains that had to be sent datagram by datagram, because the link cannot cut or checksum them.
    pub broken_trains: u64,
    /// Datagrams that were not taken.
    pub refused_datagrams: u64,
    /// Receives, each of one datagram or one train.
    pub receives: u64,
    /// Receives that failed or were cut short.
    pub receive_errors: u64,
    /// Datagrams lost because a receive queue was full.
    pub lost_datagrams: u64,
}

/// A way to other hosts.
pub trait Underlay: Send {
    /// How many receive sockets there are.
    fn sockets(&self) -> usize;

    /// The descriptor that becomes readable when `socket` has an arrival.
    fn poll_fd(&self, socket: usize) -> Option<BorrowedFd<'_>>;

    /// Receives into `into` without waiting; `None` when nothing waits.
    fn receive(&mut self, socket: usize, into: &mut Buffer) -> Option<Arrival>;

    /// Sends a batch without waiting and writes each packet's [`Outgoing::result`]. Packets of one flow (same
    /// destination, entropy and class) keep their order.
    fn send(&mut self, batch: &mut [Outgoing<'_>]);

    /// What was counted so far.
    fn counters(&self) -> Counters;
}
