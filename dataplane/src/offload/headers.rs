//! Where the headers of a TCP or UDP packet lie: just enough of a parse to cut and to join. Tagged frames, fragments
//! and anything that contradicts itself have no [`Headers`].

use crate::wire::checksum::Sum;

pub(super) const ETHERNET: usize = 14;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Offsets into a frame that begins with its Ethernet header. `ETHERNET < transport < payload <= end <= frame.len()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    /// IPv6, else IPv4.
    pub(super) v6: bool,
    /// [`TCP`] or [`UDP`].
    pub(super) protocol: u8,
    /// The L4 header.
    pub(super) transport: usize,
    /// The L4 payload.
    pub(super) payload: usize,
    /// Where the IP packet ends; Ethernet padding may follow.
    pub(super) end: usize,
}

/// `N` bytes at `at`.
pub(super) fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

/// The big-endian word at `at`.
pub(super) fn word(frame: &[u8], at: usize) -> Option<u16> {
    bytes(frame, at).map(u16::from_be_bytes)
}

/// Writes the big-endian word at `at`; does nothing outside of the slice.
pub(super) fn put<const N: usize>(frame: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = frame.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}

impl Headers {
    /// Finds them; `None` for every frame that is not one whole, untagged TCP or UDP packet.
    pub(super) fn find(frame: &[u8]) -> Option<Self> {
        let (v6, protocol, transport, end) = match word(frame, 12)? {
            0x0800 => {
                let [version, _, l0, l1] = bytes(frame, ETHERNET)?;
                let header_bytes = usize::from(version & 0x0f) * 4;
                let fragment = word(frame, ETHERNET + 6)?;
                if version >> 4 != 4 || header_bytes < 20 || fragment & 0x3fff != 0 {
                    return None;
                }
                let end = ETHERNET + usize::from(u16::from_be_bytes([l0, l1]));
                (false, *frame.get(ETHERNET + 9)?, ETHERNET + header_bytes, end)
            }
            0x86dd => {
                if frame.get(ETHERNET)? >> 4 != 6 {
                    return None;
                }
                let end = ETHERNET + 40 + usize::from(word(frame, ETHERNET + 4)?);
                let (mut next, mut at) = (*frame.get(ETHERNET + 6)?, ETHERNET + 40);
                // Hop-by-hop, routing and destination options: three headers at most, as RFC 8200 §4.1 orders them.
                for _ in 0..3 {
                    if !matches!(next, 0 | 43 | 60) {
                        break;
                    }
                    let [following, length] = bytes(frame, at)?;
                    next = following;
                    at += 8 + usize::from(length) * 8;
                }
                (true, next, at, end)
            }
            _ => return None,
        };
        let payload = match protocol {
            TCP => {
                let header_bytes = usize::from(*frame.get(transport + 12)? >> 4) * 4;
                if header_bytes < 20 {
                    return None;
                }
                transport + header_bytes
            }
            UDP => transport + 8,
            _ => return None,
        };
        (payload <= end && end <= frame.len()).then_some(Self { v6, protocol, transport, payload, end })
    }

    /// Where the L4 checksum stands, from the start of the L4 header.
    pub(super) const fn checksum_offset(&self) -> u16 {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// The sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) for an L4 packet of `length` bytes.
    pub(super) fn pseudo(&self, frame: &[u8], length: u16) -> Sum {
        let addresses = if self.v6 { ETHERNET + 8..ETHERNET + 40 } else { ETHERNET + 12..ETHERNET + 20 };
        let addresses = frame.get(addresses).unwrap_or_default();
        Sum::ZERO.add_bytes(addresses).add_word(u16::from(self.protocol)).add_word(length)
    }

    /// Sets the IP header's length field for a packet that ends at `end`, and IPv4's header checksum.
    /// False when `end` does not fit the field.
    pub(super) fn set_ip_length(&self, header: &mut [u8], end: usize) -> bool {
        let counted_from = if self.v6 { ETHERNET + 40 } else { ETHERNET };
        let Some(length) = end.checked_sub(counted_from).and_then(|length| u16::try_from(length).ok()) else {
            return false;
        };
        if self.v6 {
            put(header, ETHERNET + 4, length.to_be_bytes());
            return true;
        }
        put(header, ETHERNET + 2, length.to_be_bytes());
        put(header, ETHERNET + 10, [0, 0]);
        let sum = Sum::ZERO.add_bytes(header.get(ETHERNET..self.transport).unwrap_or_default());
        put(header, ETHERNET + 10, sum.checksum().to_be_bytes());
        true
    }
}
