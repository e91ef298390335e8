//! Integers of 7 bits a byte, the lowest first; the high bit of a byte says that more follow. Eight bytes at a time, since
//! a payload of small fields consists of little else.

/// Most bytes of a `u64`.
pub(in crate::message) const MAX: usize = 10;
/// The bits that say that more follow.
const MORE: u64 = 0x8080_8080_8080_8080;

/// An integer's bytes: the first eight, the last two, and how many of them count.
#[inline(always)]
pub(in crate::message) fn spread(value: u64) -> ([u8; 8], [u8; 2], usize) {
    // How many times seven bits, without a division: 9/64 is a little less than 1/7 (tested at each edge).
    let highest = 63 - (value | 1).leading_zeros();
    let len = (highest * 9 + 73) as usize / 64;
    // Groups of 28, then 14, then 7 bits move apart.
    let x = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x0fff_c000_0fff_c000) << 2;
    let x = (x & 0x007f_007f_007f_007f) | (x & 0x3f80_3f80_3f80_3f80) << 1;
    if len <= 8 {
        // All but the last.
        let more = MORE >> 8 >> (64 - 8 * len);
        return ((x | more).to_le_bytes(), [0; 2], len);
    }
    let high = value >> 56;
    // Its highest bit says that a tenth byte follows, and is that byte.
    let last = (high | (high & 0x80) << 1) as u16;
    ((x | MORE).to_le_bytes(), last.to_le_bytes(), len)
}

/// The integer at the start of `word`, and of how many bytes it is. If it goes on behind `word`, its lowest 56 bits and 9.
#[inline(always)]
pub(super) fn gather(word: [u8; 8]) -> (u64, usize) {
    let word = u64::from_le_bytes(word);
    let ends = !word & MORE;
    // All up to the first end; everything, if there is none.
    let x = word & !MORE & (ends ^ ends.wrapping_sub(1));
    let x = (x & 0x007f_007f_007f_007f) | (x & 0x7f00_7f00_7f00_7f00) >> 1;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x3fff_0000_3fff_0000) >> 2;
    let x = (x & 0x0fff_ffff) | (x & 0x0fff_ffff_0000_0000) >> 4;
    (x, ends.trailing_zeros() as usize / 8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn check(value: u64) {
        let (first, last, len) = spread(value);
        let bytes = [&first[..], &last].concat();
        assert_eq!(bytes[..len], plain(value));
        if len <= 8 {
            for rest in [0, 0x80, 0xff] {
                let mut word = [rest; 8];
                word[..len].copy_from_slice(&bytes[..len]);
                assert_eq!(gather(word), (value, len));
            }
        } else {
            assert_eq!(gather(first), (value & (u64::MAX >> 8), 9));
        }
    }

    #[test]
    fn an_integer_at_the_edge_of_a_length_changes() {
        for bits in 0..64 {
            let edge = 1u64 << bits;
            for value in [edge - 1, edge, edge + 1, !edge, u64::MAX >> bits] {
                check(value);
            }
        }
    }

    proptest! {
        #[test]
        fn an_integer_differs_from_the_plain_loop(value: u64, shift in 0u32..64) {
            check(value >> shift);
        }
    }
}
