//! VXLAN header (RFC 7348 §5): eight bytes, no options.

use super::{Layer, ParseError};
use crate::types::Vni;

/// The destination port that IANA assigned.
pub const PORT: u16 = 4789;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

const I_FLAG: u8 = 0x08;

/// Splits a UDP payload into its VNI and the inner Ethernet frame.
///
/// # Errors
/// `Truncated` below eight bytes; `NoVni` when the I flag is clear or the VNI is zero.
#[inline]
pub fn parse(udp_payload: &[u8]) -> Result<(Vni, &[u8]), ParseError> {
    let Some((header, frame)) = udp_payload.split_first_chunk::<HEADER_BYTES>() else {
        return Err(ParseError::Truncated {
            layer: Layer::Vxlan,
            need: HEADER_BYTES,
            have: udp_payload.len(),
        });
    };
    // §5: reserved bits "MUST be set to zero on transmission and ignored on receipt".
    let [flags, _, _, _, a, b, c, _] = *header;
    match Vni::from_be_bytes([a, b, c]) {
        Some(vni) if flags & I_FLAG != 0 => Ok((vni, frame)),
        _ => Err(ParseError::NoVni { layer: Layer::Vxlan }),
    }
}

/// The header's bytes.
#[must_use]
#[inline]
pub const fn to_bytes(vni: Vni) -> [u8; HEADER_BYTES] {
    ((I_FLAG as u64) << 56 | (vni.value() as u64) << 8).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_bits_are_ignored_on_receipt() {
        let (vni, frame) = parse(&[0xff, 1, 2, 3, 0, 0, 42, 0xff, 0xaa]).unwrap();
        assert_eq!((vni.value(), frame), (42, &[0xaa][..]));
    }

    #[test]
    fn a_header_without_network_is_refused() {
        let refused = Err(ParseError::NoVni { layer: Layer::Vxlan });
        assert_eq!(parse(&[0xf7, 0, 0, 0, 0, 0, 42, 0]), refused);
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 0, 0]), refused);
        assert_eq!(
            parse(&[0x08, 0, 0, 0, 0, 0, 1]),
            Err(ParseError::Truncated { layer: Layer::Vxlan, need: 8, have: 7 })
        );
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(value in 1..=Vni::MAX, frame in proptest::collection::vec(any::<u8>(), 0..40)) {
            let vni = Vni::new(value).unwrap();
            let bytes = [&to_bytes(vni), &frame[..]].concat();
            prop_assert_eq!(parse(&bytes), Ok((vni, &frame[..])));
        }
    }
}
