//! Explicit congestion notification over a tunnel (RFC 6040). On entering, the outer header takes the inner's field as
//! it is (section 4.1, normal mode); on leaving, both are combined.

const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The inner traffic class after leaving the tunnel (section 4.2, figure 4); `None` when the packet must be dropped:
/// congestion was marked, and its receiver would not understand the mark.
#[inline]
pub(super) const fn combine(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => return None,
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Some(inner & !ECN | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6040_figure_4() {
        // Rows: inner; columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let figure = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, row) in figure {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                assert_eq!(combine(inner, outer), expected, "{inner:02b} {outer:02b}");
            }
        }
    }

    #[test]
    fn dscp_stays_the_inner_ones() {
        assert_eq!(combine(0b1011_1010, 0b0000_0011), Some(0b1011_1011));
    }
}
