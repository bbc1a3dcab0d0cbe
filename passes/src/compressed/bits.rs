//! Bits, the most significant one of a byte first.

use super::malformed;
use planish_ir::Diag;

/// Puts bits behind bytes.
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Bits of the last byte that are taken; 0: all are.
    taken: u32,
}

impl Writer {
    pub(super) fn after(bytes: Vec<u8>) -> Writer {
        Writer { bytes, taken: 0 }
    }
    /// The lowest `count` bits, up to 64.
    pub(super) fn put(&mut self, value: u64, count: u32) {
        for i in (0..count).rev() {
            if self.taken == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= (((value >> i) & 1) as u8) << (7 - self.taken);
            }
            self.taken = (self.taken + 1) % 8;
        }
    }
    pub(super) fn done(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads bytes, then bits.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    /// In bits.
    at: usize,
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Reader<'b> {
        Reader { bytes, at: 0 }
    }
    pub(super) fn bit(&mut self) -> Result<u64, Diag> {
        let byte = self.bytes.get(self.at / 8).ok_or_else(|| malformed("it ends too early"))?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit.into())
    }
    /// Up to 64 bits.
    pub(super) fn bits(&mut self, count: u32) -> Result<u64, Diag> {
        (0..count).try_fold(0, |v, _| Ok(v << 1 | self.bit()?))
    }
    /// Bits that are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }
    /// Whole bytes, where no bits have been read yet.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'b [u8], Diag> {
        let from = self.at / 8;
        let part = from.checked_add(count).and_then(|to| self.bytes.get(from..to));
        let part = part.ok_or_else(|| malformed("it ends too early"))?;
        self.at += 8 * count;
        Ok(part)
    }
    /// A number in bytes of 7 bits, low ones first; all but the last byte have their highest bit set.
    pub(super) fn number(&mut self) -> Result<usize, Diag> {
        let mut v = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.bytes(1)?[0];
            v |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(v).map_err(|_| malformed("a number is too large"));
            }
        }
        Err(malformed("a number is too large"))
    }
}

/// What [`Reader::number`] reads.
pub(super) fn put_number(bytes: &mut Vec<u8>, mut v: usize) {
    while v >= 0x80 {
        bytes.push(v as u8 | 0x80);
        v >>= 7;
    }
    bytes.push(v as u8);
}
