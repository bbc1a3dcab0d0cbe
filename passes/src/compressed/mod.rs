//! Tensors in which most elements are zero, as bytes: how far an element lies from the one before, and which of a few shared values it is
//! (Han, Mao and Dally, *Deep Compression*, 2016).
//!
//! The bytes, with numbers of unknown size in groups of 7 bits, low ones first, and all else with the highest bit first:
//!
//! - `PWC`, the version 1, the [`Coding`] (0, 1, 2), the float type (0 f32, 1 f64, 2 f16, 3 bf16) and B, the bits of a gap, from 1 to 16;
//! - the rank, the dims and how many elements are not zero;
//! - unless the elements stand for themselves the number of shared values, and these in the bytes of their type, low ones first;
//! - with Huffman codes the length of the code of each shared value, then that of each of the 2^B gaps, 5 bits each;
//! - for each element that is not zero its gap and its symbol. What is left of the last byte is 0.
//!
//! A gap is how many zeros lie between an element and the one before. Up to 2^B - 2 of them are the gap of an entry. The gap 2^B - 1 is a
//! filler: it skips 2^B - 1 zeros and no symbol follows, but another gap. So 2^b shared values need symbols of no more than b bits, as zero
//! is none of them. Behind the last entry all is zero.

mod bits;
mod huffman;
#[cfg(test)]
mod tests;

use bits::{Reader, Writer, put_number};
use planish_ir::tensor::{byte_len, elem_count};
use planish_ir::{DType, Diag, Tensor};

/// What stands for an element that is not zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// Itself.
    Values,
    /// The number of a shared value, in as many bits for all.
    Fixed,
    /// The Huffman code of that number; gaps have such codes too.
    Huffman,
}

const MAGIC: &[u8] = b"PWC\x01";
const CODINGS: [Coding; 3] = [Coding::Values, Coding::Fixed, Coding::Huffman];
const TYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
/// The most bits of a gap, and of the number of a shared value.
const MOST_BITS: u32 = 16;
/// The most axes.
const MOST_RANK: usize = 64;

/// A tensor that is to become bytes.
#[derive(Clone, Debug)]
pub struct Encoder {
    coding: Coding,
    dtype: DType,
    shape: Vec<usize>,
    codebook: Tensor,
    /// Zeros before each element that is not zero.
    gaps: Vec<usize>,
    /// Numbers of shared values, or the bits of elements.
    symbols: Vec<u64>,
}

/// A tensor that was bytes.
#[derive(Clone, PartialEq, Debug)]
pub enum Decoded {
    /// Its elements stood for themselves.
    Values(Tensor),
    /// It is made of shared values.
    Shared {
        /// For each element 0, if it is zero, or a position in the codebook, counted from 1; i32.
        indices: Tensor,
        /// The shared values.
        codebook: Tensor,
    },
}

impl Decoded {
    /// The tensor.
    ///
    /// # Errors
    /// `compressed-malformed` for indices that are not in the codebook, and where [`Encoder::shared`] refuses the codebook for its type.
    pub fn tensor(&self) -> Result<Tensor, Diag> {
        match self {
            Decoded::Values(t) => Ok(t.clone()),
            Decoded::Shared { indices, codebook } => {
                float_code(codebook.dtype())?;
                // Bytes, since numbers may lose what a NaN carries.
                let size = codebook.dtype().size();
                let shared = [&vec![0; size][..], codebook.bytes()].concat();
                let of = |i: i64| usize::try_from(i).ok().and_then(|i| shared.chunks_exact(size).nth(i));
                let mut bytes = Vec::with_capacity(indices.len() * size);
                for i in indices.to_i64()? {
                    bytes.extend_from_slice(
                        of(i).ok_or_else(|| malformed("an index is not in the codebook"))?,
                    );
                }
                Tensor::from_bytes(codebook.dtype(), indices.shape().to_vec(), bytes.into())
            }
        }
    }
}

fn malformed(text: impl Into<String>) -> Diag {
    Diag::error("compressed-malformed", text)
}

/// Zeros before each element that is not zero, and these elements.
fn apart<T: Copy>(elements: impl Iterator<Item = T>, is_zero: impl Fn(T) -> bool) -> (Vec<usize>, Vec<T>) {
    let (mut gaps, mut kept, mut gap) = (Vec::new(), Vec::new(), 0);
    for x in elements {
        if is_zero(x) {
            gap += 1;
        } else {
            gaps.push(std::mem::take(&mut gap));
            kept.push(x);
        }
    }
    (gaps, kept)
}

/// Bits for numbers below `count`.
fn width(count: usize) -> u32 {
    count.saturating_sub(1).checked_ilog2().map_or(0, |b| b + 1)
}

fn float_code(dtype: DType) -> Result<u8, Diag> {
    let at = TYPES.iter().position(|t| *t == dtype);
    at.map(|i| i as u8).ok_or_else(|| malformed(format!("{dtype} is not stored like this")))
}

impl Encoder {
    /// Elements that stand for themselves. Zeros are those whose bits are all 0.
    ///
    /// # Errors
    /// `compressed-malformed` for other types than floats of 16 bits or more.
    pub fn values(t: &Tensor) -> Result<Encoder, Diag> {
        float_code(t.dtype())?;
        let bits = |e: &[u8]| e.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        let elements = t.bytes().chunks_exact(t.dtype().size()).map(bits);
        let (gaps, symbols) = apart(elements, |v| v == 0);
        let codebook = Tensor::floats(t.dtype(), &[0], Vec::new())?;
        let (coding, dtype, shape) = (Coding::Values, t.dtype(), t.shape().to_vec());
        Ok(Encoder { coding, dtype, shape, codebook, gaps, symbols })
    }
    /// Elements that are 0 where their index is, and else a shared value, counted from 1.
    ///
    /// # Errors
    /// `compressed-malformed` for indices of no value, and for codebooks of more than 2^16 values or of another type than floats of 16 bits
    /// or more.
    pub fn shared(indices: &Tensor, codebook: &Tensor, huffman: bool) -> Result<Encoder, Diag> {
        float_code(codebook.dtype())?;
        if codebook.rank() != 1 || width(codebook.len()) > MOST_BITS {
            return Err(malformed("a codebook is a vector of at most 65536 values"));
        }
        let list = indices.to_i64()?;
        if list.iter().any(|i| !usize::try_from(*i).is_ok_and(|i| i <= codebook.len())) {
            return Err(malformed("an index is not in the codebook"));
        }
        let (gaps, kept) = apart(list.into_iter(), |i| i == 0);
        let symbols = kept.into_iter().map(|i| i as u64 - 1).collect();
        let coding = if huffman { Coding::Huffman } else { Coding::Fixed };
        let (dtype, shape) = (codebook.dtype(), indices.shape().to_vec());
        Ok(Encoder { coding, dtype, shape, codebook: codebook.clone(), gaps, symbols })
    }
    /// How many elements are not zero.
    pub fn kept(&self) -> usize {
        self.gaps.len()
    }
    /// How many fillers there are with gaps of so many bits.
    pub fn fillers(&self, gap_bits: u32) -> usize {
        let filler = (1usize << gap_bits) - 1;
        self.gaps.iter().map(|g| g / filler).sum()
    }
    /// Bits of a symbol, unless it has a Huffman code.
    fn symbol_bits(&self) -> u32 {
        match self.coding {
            Coding::Values => 8 * self.dtype.size() as u32,
            _ => width(self.codebook.len()),
        }
    }
    /// How often each symbol and each gap occurs.
    fn frequencies(&self, gap_bits: u32) -> [Vec<u64>; 2] {
        let filler = (1 << gap_bits) - 1;
        let (mut symbols, mut gaps) = (vec![0; self.codebook.len()], vec![0; filler + 1]);
        self.symbols.iter().for_each(|s| symbols[*s as usize] += 1);
        for gap in &self.gaps {
            gaps[filler] += (gap / filler) as u64;
            gaps[gap % filler] += 1;
        }
        [symbols, gaps]
    }
    /// How many bytes [`Encoder::bytes`] gives.
    ///
    /// # Errors
    /// As [`Encoder::bytes`].
    pub fn size(&self, gap_bits: u32) -> Result<usize, Diag> {
        let head = self.head(gap_bits)?.len();
        let bits: u64 = if self.coding == Coding::Huffman {
            let of = |f: Vec<u64>| {
                let codes: u64 = f.iter().zip(huffman::lengths(&f)).map(|(f, l)| f * u64::from(l)).sum();
                codes + f.len() as u64 * u64::from(huffman::LENGTH_BITS)
            };
            self.frequencies(gap_bits).into_iter().map(of).sum()
        } else {
            let entries = self.kept() as u64 * u64::from(gap_bits + self.symbol_bits());
            entries + self.fillers(gap_bits) as u64 * u64::from(gap_bits)
        };
        Ok(head + bits.div_ceil(8) as usize)
    }
    /// The bits of gaps that make the fewest bytes, and how many these are.
    ///
    /// # Errors
    /// As [`Encoder::bytes`].
    pub fn smallest(&self) -> Result<(u32, usize), Diag> {
        let sizes = (1..=MOST_BITS).map(|b| Ok((self.size(b)?, b))).collect::<Result<Vec<_>, Diag>>()?;
        let best = sizes.into_iter().min().map(|(size, b)| (b, size));
        best.ok_or_else(|| malformed("no bits for gaps"))
    }
    fn head(&self, gap_bits: u32) -> Result<Vec<u8>, Diag> {
        if !(1..=MOST_BITS).contains(&gap_bits) || self.shape.len() > MOST_RANK {
            return Err(malformed(format!(
                "gaps have 1 to {MOST_BITS} bits, tensors up to {MOST_RANK} axes"
            )));
        }
        let mut out = MAGIC.to_vec();
        out.extend([self.coding as u8, float_code(self.dtype)?, gap_bits as u8]);
        put_number(&mut out, self.shape.len());
        self.shape.iter().for_each(|d| put_number(&mut out, *d));
        put_number(&mut out, self.kept());
        if self.coding != Coding::Values {
            put_number(&mut out, self.codebook.len());
            out.extend_from_slice(self.codebook.bytes());
        }
        Ok(out)
    }
    /// The bytes, with gaps of so many bits.
    ///
    /// # Errors
    /// `compressed-malformed` for gaps of less than 1 or more than 16 bits, and for more than 64 axes.
    pub fn bytes(&self, gap_bits: u32) -> Result<Vec<u8>, Diag> {
        let mut out = Writer::after(self.head(gap_bits)?);
        let (filler, bits) = ((1 << gap_bits) - 1, self.symbol_bits());
        let codes = (self.coding == Coding::Huffman).then(|| {
            self.frequencies(gap_bits).map(|f| huffman::Encoder::new(huffman::lengths(&f), &mut out))
        });
        for (gap, symbol) in self.gaps.iter().zip(&self.symbols) {
            let fields = std::iter::repeat_n(filler, gap / filler).chain([gap % filler]);
            match &codes {
                Some([symbols, gaps]) => {
                    fields.for_each(|f| gaps.put(f, &mut out));
                    symbols.put(*symbol as usize, &mut out);
                }
                None => {
                    fields.for_each(|f| out.put(f as u64, gap_bits));
                    out.put(*symbol, bits);
                }
            }
        }
        Ok(out.done())
    }
}

/// Reads what [`Encoder::bytes`] made, of a tensor of at most `most` elements.
///
/// # Errors
/// `compressed-malformed` for bytes that do not have the form above, and for more elements.
pub fn decode(bytes: &[u8], most: usize) -> Result<Decoded, Diag> {
    let mut from = Reader::new(bytes);
    if from.bytes(MAGIC.len())? != MAGIC {
        return Err(malformed("it begins with other bytes, or is of another version"));
    }
    let &[coding, dtype, gap_bits] = from.bytes(3)? else { return Err(malformed("it ends too early")) };
    let coding = CODINGS.get(usize::from(coding)).ok_or_else(|| malformed("a coding that is not known"))?;
    let dtype = *TYPES.get(usize::from(dtype)).ok_or_else(|| malformed("a type that is not known"))?;
    let gap_bits = u32::from(gap_bits);
    if !(1..=MOST_BITS).contains(&gap_bits) {
        return Err(malformed("gaps have 1 to 16 bits"));
    }
    let rank = from.number()?;
    if rank > MOST_RANK {
        return Err(malformed(format!("{rank} axes")));
    }
    let shape = (0..rank).map(|_| from.number()).collect::<Result<Vec<_>, _>>()?;
    let count = elem_count(&shape).ok().filter(|n| *n <= most);
    let count = count.ok_or_else(|| malformed(format!("more than {most} elements")))?;
    let kept = from.number()?;
    if kept > count {
        return Err(malformed(format!("{kept} of {count} elements are not zero")));
    }
    let codebook = if *coding == Coding::Values {
        None
    } else {
        let k = from.number()?;
        if width(k) > MOST_BITS {
            return Err(malformed(format!("{k} shared values")));
        }
        let values = from.bytes(k * dtype.size())?.to_vec();
        Some(Tensor::from_bytes(dtype, vec![k], values.into())?)
    };
    let k = codebook.as_ref().map_or(0, Tensor::len);
    let codes = match coding {
        Coding::Huffman => {
            Some((huffman::Decoder::new(k, &mut from)?, huffman::Decoder::new(1 << gap_bits, &mut from)?))
        }
        _ => None,
    };
    let symbol_bits = if codebook.is_some() { width(k) } else { 8 * dtype.size() as u32 };
    let filler = (1 << gap_bits) - 1;
    let stored = if codebook.is_some() { DType::I32 } else { dtype };
    let mut out = vec![0; byte_len(stored, &shape)?];
    let mut at = 0;
    for _ in 0..kept {
        loop {
            let gap = match &codes {
                Some((_, gaps)) => gaps.symbol(&mut from)?,
                None => from.bits(gap_bits)? as usize,
            };
            at += gap;
            if at >= count {
                return Err(malformed("an element lies behind the end"));
            }
            if gap != filler {
                break;
            }
        }
        let symbol = match &codes {
            Some((symbols, _)) => symbols.symbol(&mut from)? as u64,
            None => from.bits(symbol_bits)?,
        };
        if codebook.is_some() && symbol >= k as u64 || codebook.is_none() && symbol == 0 {
            return Err(malformed(format!("the symbol {symbol}")));
        }
        let bits = if codebook.is_some() { symbol + 1 } else { symbol };
        let size = stored.size();
        out[at * size..][..size].copy_from_slice(&bits.to_le_bytes()[..size]);
        at += 1;
    }
    if from.left() >= 8 || from.bits(from.left() as u32)? != 0 {
        return Err(malformed("something follows the last element"));
    }
    Ok(match codebook {
        Some(codebook) => {
            Decoded::Shared { indices: Tensor::from_bytes(stored, shape, out.into())?, codebook }
        }
        None => Decoded::Values(Tensor::from_bytes(stored, shape, out.into())?),
    })
}
