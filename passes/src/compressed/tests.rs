//! Round trips, sizes, and bytes that are none of a tensor.

use super::*;
use planish_ir::op::random::{stream, unit};

/// Numbers of a seed.
struct Random(u64, u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.1 += 1;
        unit(stream(self.0, self.1))
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() * n as f64) as usize
    }
}

fn indices(shape: &[usize], v: Vec<i128>) -> Result<Tensor, Diag> {
    Tensor::ints(DType::I32, shape, v)
}

/// Indices of which a share is not zero, uneven in frequency.
fn random(r: &mut Random, shape: &[usize], k: usize, share: f64) -> Result<Tensor, Diag> {
    let mut one = || if r.next() < share { 1 + (r.next().powi(2) * k as f64) as i128 } else { 0 };
    let n = shape.iter().product();
    indices(shape, (0..n).map(|_| one()).collect())
}

fn book(dtype: DType, k: usize) -> Result<Tensor, Diag> {
    Tensor::floats(dtype, &[k], (0..k).map(|i| 0.25 * i as f64 - 1.125).collect())
}

/// Checks that the bytes stand for the same, and are as many as was said.
fn returns(e: &Encoder, want: &Decoded, gap_bits: u32) -> Result<Vec<u8>, Diag> {
    let bytes = e.bytes(gap_bits)?;
    assert_eq!(bytes.len(), e.size(gap_bits)?);
    let count = e.shape.iter().product();
    assert_eq!(&decode(&bytes, count)?, want);
    Ok(bytes)
}

#[test]
fn tensors_return() -> Result<(), Diag> {
    let r = &mut Random(1, 0);
    for round in 0..60 {
        let dtype = TYPES[round % 4];
        let rank = r.below(4);
        let shape: Vec<usize> = (0..rank).map(|_| r.below(if round % 3 == 0 { 3 } else { 12 })).collect();
        let k = [1, 2, 3, 64, 200][r.below(5)];
        let share = [0.0, 0.02, 0.3, 1.0][r.below(4)];
        let indices = random(r, &shape, k, share)?;
        let codebook = book(dtype, k)?;
        let shared = Decoded::Shared { indices: indices.clone(), codebook: codebook.clone() };
        let t = shared.tensor()?;
        let values = Decoded::Values(t.clone());
        for gap_bits in [1, 2, 5, 8, 16] {
            for huffman in [false, true] {
                returns(&Encoder::shared(&indices, &codebook, huffman)?, &shared, gap_bits)?;
            }
            returns(&Encoder::values(&t)?, &values, gap_bits)?;
        }
    }
    Ok(())
}

#[test]
fn sizes_of_none_one_and_all() -> Result<(), Diag> {
    let codebook = book(DType::F32, 4)?;
    for shape in [&[0][..], &[], &[1], &[3, 0, 2]] {
        let n: usize = shape.iter().product();
        for v in [0, 4] {
            let indices = indices(shape, vec![v; n])?;
            for huffman in [false, true] {
                let e = Encoder::shared(&indices, &codebook, huffman)?;
                assert_eq!(e.kept(), if v == 0 { 0 } else { n });
                let shared = Decoded::Shared { indices: indices.clone(), codebook: codebook.clone() };
                returns(&e, &shared, 3)?;
            }
        }
    }
    // Zeros that are -0 and numbers that are none stand for themselves.
    let odd = Tensor::f32s(&[4], &[-0.0, 0.0, f32::NAN, f32::NEG_INFINITY])?;
    let bytes = Encoder::values(&odd)?.bytes(4)?;
    assert_eq!(decode(&bytes, 4)?.tensor()?.bytes(), odd.bytes());
    Ok(())
}

#[test]
fn gaps_are_as_the_format_says() -> Result<(), Diag> {
    // With 2 bits: 3 zeros and more are fillers of 3 zeros, without symbols.
    let one = book(DType::F16, 2)?;
    for (zeros, fillers) in [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (7, 2)] {
        let mut v = vec![0; zeros];
        v.extend([2, 0, 0]);
        let e = Encoder::shared(&indices(&[v.len()], v)?, &one, false)?;
        assert_eq!((e.kept(), e.fillers(2)), (1, fillers), "{zeros} zeros");
        let shared = decode(&e.bytes(2)?, 99)?;
        assert_eq!(shared.tensor()?.to_f64()[zeros], -0.875);
        let head = e.head(2)?.len();
        let want = if 2 * fillers + 3 > 8 { 2 } else { 1 };
        assert_eq!(e.bytes(2)?.len() - head, want);
    }
    let e = Encoder::shared(&indices(&[5], vec![0, 0, 0, 0, 2])?, &one, false)?;
    // A filler (11), the gap 1 (01), the symbol 1.
    assert_eq!(e.bytes(2)?.last(), Some(&0b1101_1000));
    assert_eq!(
        e.bytes(2)?[..14],
        [b'P', b'W', b'C', 1, 1, 2, 2, 1, 5, 1, 2, 0x80, 0xbc, 0x00],
        "the head and the first shared values"
    );
    Ok(())
}

#[test]
fn one_symbol_has_a_code_of_one_bit() -> Result<(), Diag> {
    let codebook = book(DType::F32, 64)?;
    let same = indices(&[800], vec![7; 800])?;
    let e = Encoder::shared(&same, &codebook, true)?;
    let tables = (64 + 8) * 5;
    assert_eq!(e.size(3)? - e.head(3)?.len(), (tables + 2 * 800usize).div_ceil(8));
    let shared = Decoded::Shared { indices: same, codebook };
    returns(&e, &shared, 3)?;
    Ok(())
}

#[test]
fn huffman_codes_are_near_the_entropy_and_never_too_long() {
    let r = &mut Random(2, 0);
    let frequencies: Vec<u64> = (0..100).map(|_| (r.next().powi(4) * 1000.0) as u64).collect();
    let lengths = huffman::lengths(&frequencies);
    let total: f64 = frequencies.iter().sum::<u64>() as f64;
    let mean = |f: &dyn Fn(f64, f64) -> f64| {
        frequencies
            .iter()
            .zip(&lengths)
            .filter(|(f, _)| **f > 0)
            .map(|(n, l)| f(*n as f64, f64::from(*l)))
            .sum::<f64>()
            / total
    };
    let (length, entropy) = (mean(&|n, l| n * l), mean(&|n, _| -n * (n / total).log2()));
    assert!(entropy <= length && length < entropy + 0.1, "{entropy} bits, {length} with codes");
    // Frequencies that grow like Fibonacci's numbers make the longest codes.
    let mut steep = vec![1u64, 1];
    (2..60).for_each(|i| steep.push(steep[i - 1] + steep[i - 2]));
    let lengths = huffman::lengths(&steep);
    assert!(lengths.iter().all(|l| (1..32).contains(l)), "{lengths:?}");
    let kraft: f64 = lengths.iter().map(|l| 0.5f64.powi(*l as i32)).sum();
    assert!(kraft <= 1.0);
    assert_eq!(huffman::lengths(&[0, 9, 0]), [0, 1, 0]);
    assert_eq!(huffman::lengths(&[0, 0]), [0, 0]);
}

#[test]
fn the_smallest_gap_bits_are_found() -> Result<(), Diag> {
    let r = &mut Random(3, 0);
    for (share, low, high) in [(0.9, 1, 2), (0.08, 4, 6), (0.003, 8, 12)] {
        let indices = random(r, &[20_000], 64, share)?;
        for huffman in [false, true] {
            let e = Encoder::shared(&indices, &book(DType::F32, 64)?, huffman)?;
            let (bits, size) = e.smallest()?;
            assert_eq!(e.bytes(bits)?.len(), size);
            let least = (1..=16).map(|b| e.bytes(b).map(|b| b.len())).collect::<Result<Vec<_>, _>>()?;
            assert_eq!(least.into_iter().min(), Some(size));
            if !huffman {
                assert!((low..=high).contains(&bits), "{bits} bits at {share}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_has_no_form_is_refused() -> Result<(), Diag> {
    let id = |r: Result<Encoder, Diag>| r.err().map(|d| d.id);
    let one = indices(&[1], vec![3])?;
    assert_eq!(id(Encoder::shared(&one, &book(DType::F32, 2)?, false)), Some("compressed-malformed"));
    let negative = indices(&[1], vec![-1])?;
    assert_eq!(id(Encoder::shared(&negative, &book(DType::F32, 2)?, false)), Some("compressed-malformed"));
    assert_eq!(id(Encoder::shared(&one, &book(DType::F8E5M2, 4)?, false)), Some("compressed-malformed"));
    assert_eq!(id(Encoder::values(&one)), Some("compressed-malformed"));
    for i in [-1, 3] {
        let made = Decoded::Shared { indices: indices(&[1], vec![i])?, codebook: book(DType::F32, 2)? };
        assert_eq!(made.tensor().err().map(|d| d.id), Some("compressed-malformed"));
    }
    let e = Encoder::shared(&one, &book(DType::F32, 4)?, true)?;
    for bits in [0, 17] {
        assert_eq!(e.bytes(bits).err().map(|d| d.id), Some("compressed-malformed"));
    }
    Ok(())
}

/// A tensor, or a diagnostic; never more elements than were allowed.
fn survives(bytes: &[u8], most: usize) -> bool {
    match decode(bytes, most) {
        Ok(Decoded::Values(t)) => t.len() <= most,
        Ok(Decoded::Shared { indices, codebook }) => {
            let k = codebook.len() as i64;
            indices.len() <= most && indices.to_i64().is_ok_and(|v| v.iter().all(|i| (0..=k).contains(i)))
        }
        Err(d) => d.id == "compressed-malformed",
    }
}

#[test]
fn hostile_bytes_are_refused() -> Result<(), Diag> {
    let refused = |bytes: &[u8]| {
        assert_eq!(decode(bytes, 1 << 20).err().map(|d| d.id), Some("compressed-malformed"), "{bytes:?}");
    };
    let head = |rest: &[u8]| [MAGIC, rest].concat();
    refused(&[]);
    refused(b"PWC\x02\x00\x00\x01\x00\x00");
    refused(&head(&[3, 0, 1, 0, 0]));
    refused(&head(&[0, 4, 1, 0, 0]));
    refused(&head(&[0, 0, 0, 0, 0]));
    refused(&head(&[0, 0, 17, 0, 0]));
    // Many axes, numbers without end, many elements, more that are not zero than there are, more values than bytes.
    refused(&head(&[0, 0, 1, 65]));
    refused(&head(&[0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]));
    refused(&head(&[0, 0, 1, 2, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f, 0]));
    refused(&head(&[0, 0, 1, 1, 2, 3]));
    refused(&head(&[1, 0, 1, 1, 2, 1, 0xff, 0xff, 0x3]));
    refused(&head(&[1, 0, 1, 1, 2, 1, 0x81, 0x80, 0x4]));
    // Tables of 2^16 lengths that are not there.
    refused(&head(&[2, 0, 16, 1, 2, 1, 1, 0, 0, 0, 0, 0xff]));
    let e = Encoder::shared(&indices(&[3], vec![0, 2, 1])?, &book(DType::F32, 3)?, true)?;
    let good = e.bytes(2)?;
    refused(&[&good[..], &[0]].concat());
    (0..good.len()).for_each(|n| refused(&good[..n]));
    // More elements than the caller takes.
    assert!(decode(&good, 3).is_ok());
    assert_eq!(decode(&good, 2).err().map(|d| d.id), Some("compressed-malformed"));
    // More codes of one bit than there are.
    let mut all_ones = e.head(2)?;
    all_ones.extend([0b0000_1000, 0b0100_0010, 0, 0, 0, 0]);
    refused(&all_ones);
    Ok(())
}

#[test]
fn damaged_bytes_never_panic() -> Result<(), Diag> {
    let r = &mut Random(5, 0);
    let mut seeds = Vec::new();
    for (k, share) in [(2, 0.3), (64, 0.1), (5, 0.9)] {
        let indices = random(r, &[6, 7, 3], k, share)?;
        let codebook = book(DType::F16, k)?;
        for huffman in [false, true] {
            seeds.push(Encoder::shared(&indices, &codebook, huffman)?.bytes(1 + r.below(5) as u32)?);
        }
        let t = Decoded::Shared { indices, codebook }.tensor()?;
        seeds.push(Encoder::values(&t)?.bytes(3)?);
    }
    let mut refused = 0;
    for round in 0..20_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + r.below(3) {
            let at = r.below(bytes.len());
            match r.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, r.below(256) as u8),
                2 => bytes[at] = r.below(256) as u8,
                _ => bytes[at] ^= 1 << r.below(8),
            }
        }
        assert!(survives(&bytes, 1000), "{bytes:?}");
        refused += usize::from(decode(&bytes, 1000).is_err());
    }
    assert!((5_000..20_000).contains(&refused), "{refused} refused");
    for round in 0..20_000 {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([round as u8 % 3, round as u8 % 4, 1 + r.below(6) as u8, 1, r.below(100) as u8]);
        bytes.extend((0..r.below(60)).map(|_| r.below(256) as u8));
        assert!(survives(&bytes, 1000), "{bytes:?}");
    }
    Ok(())
}
