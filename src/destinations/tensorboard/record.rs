//! Records as TensorFlow frames them: length, checksum of the length, bytes, checksum of the bytes, all little-endian.

use crc::{CRC_32_ISCSI, Crc};

/// CRC-32C (Castagnoli).
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// Added to a rotated checksum, so that the checksum of bytes that hold one is no special case.
const MASK: u32 = 0xa282_ead8;

/// A record of these bytes.
pub(super) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked(bytes).to_le_bytes());
    record
}

fn masked(bytes: &[u8]) -> u32 {
    CHECKSUM.checksum(bytes).rotate_right(15).wrapping_add(MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4: 32 zeros; and the value that every catalogue has of the digits.
        assert_eq!(CHECKSUM.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xe306_9283);
        let record = framed(b"abc");
        assert_eq!((record.len(), &record[..8], &record[12..15]), (19, &3_u64.to_le_bytes()[..], &b"abc"[..]));
    }
}
