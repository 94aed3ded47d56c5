//! What a NIC would do: cutting super-packets, joining segments, finishing checksums. Pure: no I/O.
//!
//! A super-packet is one frame that stands for many ([`crate::packet::Segmentation`]). It stays whole as long as the
//! path allows; [`segment`] cuts it where it leaves for another host, [`coalesce`] joins what arrives from one. Never
//! here: trust in what the sender of a frame claims about it; every claim is checked against the bytes.

pub mod checksum;
pub mod coalesce;
mod headers;
pub mod segment;
pub mod virtio;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test values that fit")]
mod tests;
