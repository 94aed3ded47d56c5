//! Geneve header (RFC 8926 §3.4): eight bytes and up to 252 of options.
//!
//! No option is known here, so an option with the critical bit refuses the packet and others are skipped.

use super::{Layer, ParseError, take};
use crate::types::Vni;

/// The destination port that IANA assigned.
pub const PORT: u16 = 6081;
/// Bytes of a header without options, the only kind that is emitted.
pub const HEADER_BYTES: usize = 8;

/// "Transparent Ethernet bridging": the payload is an Ethernet frame.
const PROTOCOL_ETHERNET: u16 = 0x6558;
const CONTROL: u8 = 0x80;
const OPTION_CRITICAL: u8 = 0x80;

/// Splits a UDP payload into its VNI and the inner Ethernet frame.
///
/// # Errors
/// `Truncated`, `BadVersion`; `Unsupported` for another payload than Ethernet and for control packets (O bit);
/// `NoVni`; `BadLength` for options that overrun their area; `UnknownCriticalOption`.
#[inline]
pub fn parse(udp_payload: &[u8]) -> Result<(Vni, &[u8]), ParseError> {
    const LAYER: Layer = Layer::Geneve;
    let [version_length, flags, p0, p1, a, b, c, _] = *take::<HEADER_BYTES>(udp_payload, 0, LAYER)?;
    // §3.4: an unknown version must be dropped.
    if version_length >> 6 != 0 {
        return Err(ParseError::BadVersion { layer: LAYER, found: version_length >> 6 });
    }
    // §3.4: O marks a control packet, whose payload is for the tunnel endpoint itself and must not be forwarded.
    if flags & CONTROL != 0 {
        return Err(ParseError::Unsupported { layer: LAYER, field: "O bit", found: 1 });
    }
    let protocol = u16::from_be_bytes([p0, p1]);
    if protocol != PROTOCOL_ETHERNET {
        return Err(ParseError::Unsupported {
            layer: LAYER,
            field: "protocol type",
            found: u32::from(protocol),
        });
    }
    let vni = Vni::from_be_bytes([a, b, c]).ok_or(ParseError::NoVni { layer: LAYER })?;
    let end = HEADER_BYTES + usize::from(version_length & 0x3f) * 4;
    let truncated = ParseError::Truncated { layer: LAYER, need: end, have: udp_payload.len() };
    let (header, frame) = udp_payload.split_at_checked(end).ok_or(truncated)?;
    let options = header.get(HEADER_BYTES..).unwrap_or_default();
    if !options.is_empty() {
        refuse_critical(options)?;
    }
    Ok((vni, frame))
}

/// An option's own critical bit is what counts (§3.5), whatever the base header's C bit promises: the two can only
/// disagree in a broken packet.
fn refuse_critical(options: &[u8]) -> Result<(), ParseError> {
    let mut rest = options;
    while let Some((&[c0, c1, kind, length], after)) = rest.split_first_chunk() {
        if kind & OPTION_CRITICAL != 0 {
            return Err(ParseError::UnknownCriticalOption { class: u16::from_be_bytes([c0, c1]), kind });
        }
        // §3.5: options whose lengths do not add up to Opt Len make the packet invalid.
        let claimed = usize::from(length & 0x1f) * 4;
        rest = after.get(claimed..).ok_or(ParseError::BadLength {
            layer: Layer::Geneve,
            claimed,
            least: 0,
            most: after.len(),
        })?;
    }
    Ok(())
}

/// The header's bytes, without options.
#[must_use]
#[inline]
pub const fn to_bytes(vni: Vni) -> [u8; HEADER_BYTES] {
    ((PROTOCOL_ETHERNET as u64) << 32 | (vni.value() as u64) << 8).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTION: [u8; 8] = [0x01, 0x02, 0x05, 0x01, 0xde, 0xad, 0xbe, 0xef];

    fn packet(version_length: u8, flags: u8, options: &[u8]) -> Vec<u8> {
        [&[version_length, flags, 0x65, 0x58, 0, 0, 42, 0xff], options, &[0xaa]].concat()
    }

    #[test]
    fn unknown_options_are_skipped_unless_critical() {
        let bytes = packet(2, 0, &OPTION);
        assert_eq!(parse(&bytes).map(|(vni, frame)| (vni.value(), frame)), Ok((42, &[0xaa][..])));
        let mut critical = OPTION;
        critical[2] |= OPTION_CRITICAL;
        let refused = Err(ParseError::UnknownCriticalOption { class: 0x0102, kind: 0x85 });
        for critical_present in [0, 0x40] {
            assert_eq!(parse(&packet(2, critical_present, &critical)), refused);
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let layer = Layer::Geneve;
        assert_eq!(parse(&packet(0x40, 0, &[])), Err(ParseError::BadVersion { layer, found: 1 }));
        assert_eq!(
            parse(&packet(0, CONTROL, &[])),
            Err(ParseError::Unsupported { layer, field: "O bit", found: 1 })
        );
        let mut other = packet(0, 0, &[]);
        other[2..4].copy_from_slice(&[0x08, 0x00]);
        assert_eq!(
            parse(&other),
            Err(ParseError::Unsupported { layer, field: "protocol type", found: 0x0800 })
        );
        let mut none = packet(0, 0, &[]);
        none[6] = 0;
        assert_eq!(parse(&none), Err(ParseError::NoVni { layer }));
        assert_eq!(parse(&packet(9, 0, &OPTION)), Err(ParseError::Truncated { layer, need: 44, have: 17 }));
        let mut overrun = OPTION;
        overrun[3] = 2;
        assert!(matches!(
            parse(&packet(2, 0, &overrun)),
            Err(ParseError::BadLength { claimed: 8, most: 4, .. })
        ));
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(value in 1..=Vni::MAX, frame in proptest::collection::vec(any::<u8>(), 0..40)) {
            let vni = Vni::new(value).unwrap();
            let bytes = [&to_bytes(vni), &frame[..]].concat();
            prop_assert_eq!(parse(&bytes), Ok((vni, &frame[..])));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let [first, second, p0, p1, ..] = &mut bytes[..] {
                (*first, *second, *p0, *p1) = (*first & 0x3f, *second & 0x7f, 0x65, 0x58);
            }
            let _ = parse(&bytes);
        }
    }
}
