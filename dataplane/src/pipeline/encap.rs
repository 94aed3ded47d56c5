//! Tunnel headers: pushed into the headroom on the way out, taken off on the way in. The inner frame is never copied.

use crate::desired::Encapsulation;
use crate::drops::DropReason;
use crate::packet::Packet;
use crate::refusal;
use crate::types::Vni;
use crate::wire::{geneve, vxlan};

/// Bytes of the header that both formats push. (Geneve is sent without options.)
pub(super) const HEADER_BYTES: u8 = 8;

const _: () = assert!(
    vxlan::HEADER_BYTES == HEADER_BYTES as usize && geneve::HEADER_BYTES == HEADER_BYTES as usize,
    "both formats push the same number of bytes"
);

/// Puts the tunnel header in front of the frame.
#[inline]
pub(super) fn encapsulate(
    packet: &mut Packet<'_>,
    format: Encapsulation,
    vni: Vni,
) -> Result<(), DropReason> {
    let header = match format {
        Encapsulation::Vxlan => vxlan::to_bytes(vni),
        Encapsulation::Geneve => geneve::to_bytes(vni),
    };
    let room = packet.push_front(header.len()).ok_or(DropReason::UnderlayEncapsulation)?;
    room.copy_from_slice(&header);
    Ok(())
}

/// Takes the tunnel header off: the packet is then the inner frame.
#[inline]
pub(super) fn decapsulate(packet: &mut Packet<'_>, format: Encapsulation) -> Result<Vni, DropReason> {
    let all = packet.frame();
    let parsed = match format {
        Encapsulation::Vxlan => vxlan::parse(all),
        Encapsulation::Geneve => geneve::parse(all),
    };
    let (vni, header_bytes) = match parsed {
        Ok((vni, inner)) => (vni, all.len() - inner.len()),
        Err(error) => return Err(refusal::of(&error)),
    };
    if packet.pop_front(header_bytes) { Ok(vni) } else { Err(DropReason::TunnelMalformed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::Buffer;

    proptest! {
        #[test]
        fn decapsulation_undoes_encapsulation(value in 1..=Vni::MAX, frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let vni = Vni::new(value).unwrap();
            let mut buffer = Buffer::new();
            for format in [Encapsulation::Vxlan, Encapsulation::Geneve] {
                let mut packet = buffer.load(&frame);
                encapsulate(&mut packet, format, vni).unwrap();
                prop_assert_eq!(packet.len(), frame.len() + 8);
                prop_assert_eq!(decapsulate(&mut packet, format), Ok(vni));
                prop_assert_eq!(packet.frame(), &frame[..]);
            }
        }
    }
}
