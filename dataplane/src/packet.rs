//! A frame inside a buffer with headroom, and what its sender left undone (offloads).
//!
//! [`Buffer`] owns the bytes and lives in a worker's pool; [`Packet`] is the view that the pipeline works on. A view
//! may also be one segment of a larger receive (a train of datagrams), which is why it borrows. Encapsulation claims
//! headroom and decapsulation gives it back: the payload is never copied. Never here: I/O, protocol knowledge.

/// Bytes kept free in front of a received frame: room for an outer Ethernet, IPv6, UDP and Geneve header.
pub const HEADROOM: usize = 128;

/// The largest frame: an Ethernet header and a 64 KiB IP packet.
pub const MAX_FRAME: usize = 65_535 + 18;

/// Storage for one frame of up to [`MAX_FRAME`] bytes behind [`HEADROOM`].
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// Allocates. Workers do this at start only.
    #[must_use]
    pub fn new() -> Self {
        Self(vec![0; HEADROOM + MAX_FRAME].into_boxed_slice())
    }

    /// The part that a device receives a frame into, [`MAX_FRAME`] bytes.
    pub fn receive_area(&mut self) -> &mut [u8] {
        self.0.split_at_mut(HEADROOM).1
    }

    /// A view of the `length` bytes that were received into [`Buffer::receive_area`] (cut to its size).
    pub fn packet(&mut self, length: usize, offload: Offload) -> Packet<'_> {
        Packet::within(&mut self.0, HEADROOM, HEADROOM + length, offload)
    }

    /// A packet holding a copy of `frame`: for tests and for frames that the switch makes itself.
    pub fn load(&mut self, frame: &[u8]) -> Packet<'_> {
        let length = frame.len().min(MAX_FRAME);
        self.receive_area()[..length].copy_from_slice(&frame[..length]);
        self.packet(length, Offload::NONE)
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

/// A frame: bytes `start..end` of a borrowed buffer, and its offload state.
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    start: usize,
    end: usize,
    /// What the sender left to be done, or what the receiver need not do.
    pub offload: Offload,
}

impl<'a> Packet<'a> {
    /// A view of `bytes[start..end]`; bounds are clamped to the buffer.
    pub fn within(bytes: &'a mut [u8], start: usize, end: usize, offload: Offload) -> Self {
        let end = end.min(bytes.len());
        Self { start: start.min(end), end, bytes, offload }
    }

    /// The frame.
    #[must_use]
    #[inline]
    pub fn frame(&self) -> &[u8] {
        match self.bytes.get(self.start..self.end) {
            Some(frame) => frame,
            None => nothing(),
        }
    }

    /// The frame, to be rewritten in place.
    #[inline]
    pub fn frame_mut(&mut self) -> &mut [u8] {
        match self.bytes.get_mut(self.start..self.end) {
            Some(frame) => frame,
            None => nothing(),
        }
    }

    /// The frame's length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True for a frame of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Claims `length` bytes of headroom in front of the frame and returns them; `None` leaves the packet as it was.
    #[inline]
    pub fn push_front(&mut self, length: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(length)?;
        self.bytes.get_mut(self.start..self.start + length)
    }

    /// Gives the first `length` bytes back to the headroom; false when the frame is shorter.
    #[must_use]
    #[inline]
    pub fn pop_front(&mut self, length: usize) -> bool {
        let fits = length <= self.len();
        if fits {
            self.start += length;
        }
        fits
    }

    /// Sets the frame's length, growing into the buffer behind it or cutting; false (and unchanged) when the buffer
    /// is too small. Grown bytes hold whatever was there.
    #[must_use]
    #[inline]
    pub fn set_len(&mut self, length: usize) -> bool {
        let fits = length <= self.bytes.len() - self.start;
        if fits {
            self.end = self.start + length;
        }
        fits
    }
}

/// The frame of a view that leaves its buffer, which none does: cold, so that the compiler puts it aside.
#[cold]
const fn nothing<'a>() -> &'a mut [u8] {
    &mut []
}

/// What the sender of a frame left undone: the pure form of a `virtio_net_hdr`. Offsets count from the first byte of
/// the (inner) Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// The L4 checksum.
    pub checksum: Checksum,
    /// Set when the frame is a super-packet that stands for several.
    pub segmentation: Option<Segmentation>,
}

impl Offload {
    /// Nothing left undone, nothing known.
    pub const NONE: Self = Self { checksum: Checksum::Complete, segmentation: None };
}

/// The state of a frame's L4 checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Stands in the frame; nobody has checked it.
    #[default]
    Complete,
    /// Stands in the frame and was verified on the way.
    Verified,
    /// The field at `start + offset` holds the pseudo-header's sum only; the rest, from `start` to the end of the
    /// frame, is still to be added (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    Partial {
        /// Where the checksummed bytes begin: the L4 header.
        start: u16,
        /// Where the field is, from `start`: 16 for TCP, 6 for UDP.
        offset: u16,
    },
}

/// A super-packet: one frame whose L4 payload is to be cut into pieces of `segment_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Which headers repeat, and how they change from piece to piece.
    pub kind: SegmentKind,
    /// L4 payload bytes of each piece but the last. Never zero.
    pub segment_bytes: u16,
    /// Bytes of Ethernet, IP and L4 headers in front of the payload, as the sender claims: to be checked against the
    /// parsed headers before use.
    pub header_bytes: u16,
}

/// What a super-packet is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4 (TSO).
    TcpV4,
    /// TCP over IPv6 (TSO).
    TcpV6,
    /// UDP over either (USO).
    Udp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_claimed_and_given_back() {
        let mut buffer = Buffer::new();
        let mut packet = buffer.load(b"inner frame");
        packet.push_front(8).unwrap().copy_from_slice(b"VXLAN---");
        assert_eq!(packet.frame(), b"VXLAN---inner frame");
        assert!(packet.pop_front(8));
        assert_eq!(packet.frame(), b"inner frame");
        assert!(!packet.pop_front(100));
        assert_eq!(packet.frame(), b"inner frame");
    }

    #[test]
    fn claiming_more_headroom_than_there_is_changes_nothing() {
        let mut bytes = *b"abcdef";
        let mut packet = Packet::within(&mut bytes, 2, 4, Offload::NONE);
        assert!(packet.push_front(3).is_none());
        assert_eq!(packet.frame(), b"cd");
        assert!(packet.set_len(4));
        assert_eq!(packet.frame(), b"cdef");
        assert!(!packet.set_len(5));
    }

    #[test]
    fn a_view_never_leaves_its_buffer() {
        let mut bytes = *b"abcdef";
        assert_eq!(Packet::within(&mut bytes, 9, 99, Offload::NONE).frame(), b"");
    }
}
