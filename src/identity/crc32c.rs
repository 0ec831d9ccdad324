//! CRC32c (Castagnoli), as RFC 4960 Appendix B describes it for PP2_TYPE_CRC32C.
//!
//! One table of 256 words, made at compile time. A header is checked once per session and is
//! rarely longer than 232 octets, so nothing faster is worth its code.

/// The generator polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut word = index as u32;
        let mut bit = 0;
        while bit < 8 {
            word = if word & 1 == 1 {
                word >> 1 ^ POLYNOMIAL
            } else {
                word >> 1
            };
            bit += 1;
        }
        table[index] = word;
        index += 1;
    }
    table
};

/// The checksum of the octets in `parts`, one after the other.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |sum: u32, &octet: &u8| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ octet)];
    !parts.iter().copied().flatten().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3720_hold() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        // RFC 3720 §B.4 prints the octets in transmission order, so the words are reversed here.
        let examples: [(&[u8], u32); 5] = [
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
        ];
        for (octets, sum) in examples {
            assert_eq!(crc32c(&[octets]), sum);
            assert_eq!(crc32c(&[&octets[..5], &octets[5..]]), sum);
        }
    }
}
