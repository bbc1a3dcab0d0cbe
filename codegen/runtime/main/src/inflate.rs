//! Decompression of DEFLATE streams (RFC 1951).

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    hold: u64,
    count: u32,
}

impl Bits<'_> {
    fn need(&mut self, n: u32) -> Option<()> {
        while self.count < n {
            self.hold |= u64::from(*self.bytes.get(self.at)?) << self.count;
            self.at += 1;
            self.count += 8;
        }
        Some(())
    }

    fn take(&mut self, n: u32) -> Option<u32> {
        self.need(n)?;
        let v = self.hold & ((1 << n) - 1);
        self.hold >>= n;
        self.count -= n;
        Some(v as u32)
    }
}

/// A prefix code: for each length the number of codes, and the symbols in the order of their codes.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Option<Code> {
        let mut counts = [0u16; 16];
        for &l in lengths {
            counts[l as usize] += 1;
        }
        counts[0] = 0;
        let mut left = 1i32;
        let mut offsets = [0usize; 16];
        for l in 1..16 {
            left = left * 2 - i32::from(counts[l]);
            if left < 0 {
                return None;
            }
            if l < 15 {
                offsets[l + 1] = offsets[l] + counts[l] as usize;
            }
        }
        let mut symbols = vec![0; lengths.iter().filter(|&&l| l > 0).count()];
        for (s, &l) in lengths.iter().enumerate().filter(|(_, l)| **l > 0) {
            symbols[offsets[l as usize]] = s as u16;
            offsets[l as usize] += 1;
        }
        Some(Code { counts, symbols })
    }

    fn read(&self, b: &mut Bits<'_>) -> Option<u16> {
        let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
        for &count in &self.counts[1..] {
            code |= b.take(1)? as i32;
            let count = i32::from(count);
            if code - count < first {
                return self.symbols.get((index + code - first) as usize).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

const LENGTHS: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
    227, 258,
];
const DISTANCES: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
    4097, 6145, 8193, 12289, 16385, 24577,
];

/// Decompresses `bytes`. `None` if they are damaged, end early, or hold more than `limit` bytes.
pub(crate) fn inflate(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut b = Bits { bytes, at: 0, hold: 0, count: 0 };
    let mut out = Vec::new();
    loop {
        let last = b.take(1)?;
        match b.take(2)? {
            0 => {
                b.take(b.count % 8)?;
                let (len, inverse) = (b.take(16)?, b.take(16)?);
                if len != !inverse & 0xffff || out.len() + len as usize > limit {
                    return None;
                }
                for _ in 0..len {
                    out.push(b.take(8)? as u8);
                }
            }
            1 => {
                let mut lengths = [8u8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                block(&mut b, &mut out, limit, &Code::new(&lengths)?, &Code::new(&[5; 30])?)?;
            }
            2 => {
                let (literals, distances) = tables(&mut b)?;
                block(&mut b, &mut out, limit, &literals, &distances)?;
            }
            _ => return None,
        }
        if last == 1 {
            return Some(out);
        }
    }
}

fn tables(b: &mut Bits<'_>) -> Option<(Code, Code)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances) = (b.take(5)? as usize + 257, b.take(5)? as usize + 1);
    let mut lengths = [0u8; 19];
    for &i in &ORDER[..b.take(4)? as usize + 4] {
        lengths[i] = b.take(3)? as u8;
    }
    let code = Code::new(&lengths)?;
    let mut all = Vec::with_capacity(320);
    while all.len() < literals + distances {
        let (value, times) = match code.read(b)? {
            16 => (*all.last()?, b.take(2)? + 3),
            17 => (0, b.take(3)? + 3),
            18 => (0, b.take(7)? + 11),
            s => (s as u8, 1),
        };
        all.extend(std::iter::repeat_n(value, times as usize));
    }
    if all.len() != literals + distances || literals > 286 {
        return None;
    }
    Some((Code::new(&all[..literals])?, Code::new(&all[literals..])?))
}

fn block(b: &mut Bits<'_>, out: &mut Vec<u8>, limit: usize, literals: &Code, distances: &Code) -> Option<()> {
    loop {
        let s = literals.read(b)?;
        if s < 256 {
            if out.len() == limit {
                return None;
            }
            out.push(s as u8);
            continue;
        }
        if s == 256 {
            return Some(());
        }
        let i = s as usize - 257;
        let extra = if (8..28).contains(&i) { (i as u32 - 4) / 4 } else { 0 };
        let len = *LENGTHS.get(i)? as usize + b.take(extra)? as usize;
        let d = distances.read(b)? as usize;
        let extra = (d as u32 / 2).saturating_sub(1);
        let distance = *DISTANCES.get(d)? as usize + b.take(extra)? as usize;
        let from = out.len().checked_sub(distance)?;
        if out.len() + len > limit {
            return None;
        }
        for k in 0..len {
            out.push(out[from + k]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_block_decompress() {
        let stored = [1, 3, 0, 0xfc, 0xff, b'a', b'b', b'c'];
        assert_eq!(inflate(&stored, 10).as_deref(), Some(&b"abc"[..]));
        // zlib at level 9 of b"hello hello hello hello"
        let fixed = [0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x57, 0xc8, 0x40, 0x27, 0x01];
        assert_eq!(inflate(&fixed, 100).as_deref(), Some(&b"hello hello hello hello"[..]));
        assert_eq!(inflate(&fixed, 22), None);
        for n in 0..fixed.len() {
            assert_eq!(inflate(&fixed[..n], 100), None);
        }
        let dynamic = [
            0x45, 0x4f, 0x89, 0x11, 0x04, 0x31, 0x08, 0xaa, 0x15, 0xa1, 0xff, 0x1a, 0x8e, 0x27, 0x3b, 0x97,
            0xc9, 0x62, 0x16, 0x51, 0x11, 0x02, 0x70, 0x3e, 0x46, 0x47, 0x19, 0x51, 0x00, 0x43, 0x04, 0x2f,
            0xaf, 0x5e, 0x22, 0x62, 0x36, 0xca, 0x51, 0xad, 0x09, 0xd3, 0x1c, 0xd3, 0x26, 0xf5, 0xd2, 0xa5,
            0xde, 0x1f, 0x93, 0x94, 0x69, 0x2a, 0x12, 0x72, 0x53, 0x58, 0x6d, 0x68, 0x5a, 0x7b, 0xf1, 0x60,
            0x41, 0x4b, 0x3a, 0x09, 0x9f, 0x89, 0x71, 0xf3, 0x87, 0xa1, 0x19, 0xdd, 0x93, 0xd5, 0x0b, 0xeb,
            0x52, 0x4b, 0xbe, 0xb3, 0x96, 0x6e, 0x62, 0xa9, 0xb6, 0x89, 0x9f, 0xda, 0x4a, 0x17, 0xf5, 0x53,
            0xdd, 0xd7, 0x66, 0xcb, 0x6d, 0x60, 0x0c, 0x6e, 0xd8, 0xbf, 0xdc, 0x7f, 0x3f,
        ];
        let out = inflate(&dynamic, 300).expect("decompresses");
        assert_eq!(out.len(), 300);
        let sum = out
            .iter()
            .fold((1u32, 0u32), |(a, b), &x| ((a + u32::from(x)) % 65521, (b + a + u32::from(x)) % 65521));
        assert_eq!(sum.1 << 16 | sum.0, 0x6f9272a9);
    }
}
