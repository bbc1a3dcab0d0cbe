//! The byte encoding of plans: `PLNP`, a version, then the fields in order.
//!
//! Integers are LEB128 (signed ones zigzag), strings and lists carry their length, alternatives a tag byte. Decoding
//! accepts any bytes: it never panics, and allocates at most a constant factor of the input's length.
use super::*;
use core::fmt;

/// The first four bytes of an encoded plan.
pub const PLAN_MAGIC: [u8; 4] = *b"PLNP";
/// The version this code reads and writes.
pub const PLAN_VERSION: u32 = 4;
const MAX_TYPE_DEPTH: u32 = 16;

/// Why bytes are no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// They do not begin with the magic number.
    Magic,
    /// They are of another version.
    Version(u32),
    /// They are malformed at this offset.
    Malformed(usize),
    /// They decode, but the plan breaks a rule.
    Invalid(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Magic => f.write_str("not a plan"),
            DecodeError::Version(v) => write!(f, "plan version {v}, but this runtime reads {PLAN_VERSION}"),
            DecodeError::Malformed(at) => write!(f, "the plan is damaged at byte {at}"),
            DecodeError::Invalid(why) => write!(f, "the plan is invalid: {why}"),
        }
    }
}

impl core::error::Error for DecodeError {}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

type Result<T> = core::result::Result<T, DecodeError>;

impl Reader<'_> {
    fn bad<T>(&self) -> Result<T> {
        Err(DecodeError::Malformed(self.at))
    }

    fn byte(&mut self) -> Result<u8> {
        let Some(&b) = self.bytes.get(self.at) else { return self.bad() };
        self.at += 1;
        Ok(b)
    }

    fn take(&mut self, n: usize) -> Result<&[u8]> {
        match self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end)) {
            Some(s) => {
                self.at += n;
                Ok(s)
            }
            None => self.bad(),
        }
    }
}

trait Codec: Sized {
    fn put(&self, w: &mut Vec<u8>);
    fn get(r: &mut Reader<'_>) -> Result<Self>;
}

impl Codec for u64 {
    fn put(&self, w: &mut Vec<u8>) {
        let mut v = *self;
        while v >= 0x80 {
            w.push(v as u8 | 0x80);
            v >>= 7;
        }
        w.push(v as u8);
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let b = r.byte()?;
            let part = u64::from(b & 0x7f);
            if shift == 63 && part > 1 {
                return r.bad();
            }
            v |= part << shift;
            if b & 0x80 == 0 {
                return Ok(v);
            }
        }
        r.bad()
    }
}

macro_rules! narrow {
    ($($t:ty),*) => { $(
        impl Codec for $t {
            fn put(&self, w: &mut Vec<u8>) {
                (*self as u64).put(w);
            }
            fn get(r: &mut Reader<'_>) -> Result<Self> {
                u64::get(r)?.try_into().or_else(|_| r.bad())
            }
        }
    )* };
}
narrow!(u32, u16);

impl Codec for i64 {
    fn put(&self, w: &mut Vec<u8>) {
        (((self << 1) ^ (self >> 63)) as u64).put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        let v = u64::get(r)?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }
}

impl Codec for f64 {
    fn put(&self, w: &mut Vec<u8>) {
        w.extend_from_slice(&self.to_bits().to_le_bytes());
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        let mut b = [0; 8];
        b.copy_from_slice(r.take(8)?);
        Ok(f64::from_bits(u64::from_le_bytes(b)))
    }
}

impl Codec for String {
    fn put(&self, w: &mut Vec<u8>) {
        (self.len() as u64).put(w);
        w.extend_from_slice(self.as_bytes());
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        let n = u64::get(r)?.try_into().or_else(|_| r.bad())?;
        let at = r.at;
        match core::str::from_utf8(r.take(n)?) {
            Ok(s) => Ok(String::from(s)),
            Err(_) => Err(DecodeError::Malformed(at)),
        }
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn put(&self, w: &mut Vec<u8>) {
        (self.len() as u64).put(w);
        self.iter().for_each(|x| x.put(w));
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        let n = u64::get(r)?;
        // Every element takes at least one byte.
        if n > (r.bytes.len() - r.at) as u64 {
            return r.bad();
        }
        let mut v = Vec::with_capacity((n as usize).min(1024));
        for _ in 0..n {
            v.push(T::get(r)?);
        }
        Ok(v)
    }
}

impl<T: Codec> Codec for Option<T> {
    fn put(&self, w: &mut Vec<u8>) {
        w.push(self.is_some() as u8);
        if let Some(x) = self {
            x.put(w);
        }
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        match r.byte()? {
            0 => Ok(None),
            1 => Ok(Some(T::get(r)?)),
            _ => r.bad(),
        }
    }
}

impl<T: Codec> Codec for Box<T> {
    fn put(&self, w: &mut Vec<u8>) {
        (**self).put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        r.depth += 1;
        if r.depth > MAX_TYPE_DEPTH {
            return r.bad();
        }
        let x = T::get(r)?;
        r.depth -= 1;
        Ok(Box::new(x))
    }
}

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn put(&self, w: &mut Vec<u8>) {
        self.0.put(w);
        self.1.put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        Ok((A::get(r)?, B::get(r)?))
    }
}

impl Codec for DType {
    fn put(&self, w: &mut Vec<u8>) {
        w.push(self.code() as u8);
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        let code = r.byte()?;
        DType::from_code(u32::from(code)).map_or_else(|| r.bad(), Ok)
    }
}

impl Codec for BinOp {
    fn put(&self, w: &mut Vec<u8>) {
        w.push(*self as u8);
    }

    fn get(r: &mut Reader<'_>) -> Result<Self> {
        let tag = r.byte()?;
        BinOp::ALL.get(tag as usize).copied().map_or_else(|| r.bad(), Ok)
    }
}

macro_rules! structs {
    ($($t:ident { $($f:tt),* })*) => { $(
        impl Codec for $t {
            fn put(&self, w: &mut Vec<u8>) {
                $(self.$f.put(w);)*
            }
            fn get(r: &mut Reader<'_>) -> Result<Self> {
                Ok($t { $($f: Codec::get(r)?),* })
            }
        }
    )* };
}

macro_rules! enums {
    ($($t:ident { $($tag:literal = $v:ident { $($f:tt: $b:ident),* }),* })*) => { $(
        impl Codec for $t {
            fn put(&self, w: &mut Vec<u8>) {
                match self {
                    $($t::$v { $($f: $b),* } => {
                        w.push($tag);
                        $($b.put(w);)*
                    })*
                }
            }
            fn get(r: &mut Reader<'_>) -> Result<Self> {
                match r.byte()? {
                    $($tag => Ok($t::$v { $($f: Codec::get(r)?),* }),)*
                    _ => r.bad(),
                }
            }
        }
    )* };
}

structs! {
    SymId { 0 }
    ExprId { 0 }
    SlotId { 0 }
    BlockId { 0 }
    KernelId { 0 }
    ErrorId { 0 }
    CounterId { 0 }
    Plan { meta, symbols, exprs, slots, inputs, outputs, states, blocks, entry, kernels, errors, counters }
    Meta { name, model_hash, recipe_hash, tool, precision, lossy, extra }
    Symbol { name, min, max, values }
    Slot { kind, place }
    Port { name, ty, dims, slot }
    Block { steps }
    KernelDecl { name, params, nodes, flops, bytes }
    Loop { trip, cond, iter, iter_sym, body, body_cond, carried, scans, count_sym }
    Carried { init, param, yielded, result, syms, result_syms }
    ScanOut { yielded, result, result_syms }
    Call { func, args, outs, out_syms, attrs, fattrs, sattrs, error }
}

enums! {
    Expr {
        0 = Const { 0: a },
        1 = Sym { 0: a },
        2 = Bin { 0: a, 1: b, 2: c },
        3 = Select { 0: a, 1: b, 2: c }
    }
    SlotKind { 0 = Tensor { dtype: a, dims: b }, 1 = Object {} }
    Place {
        0 = Input { 0: a },
        1 = Output { 0: a },
        2 = Weights { offset: a, len: b },
        3 = Arena { bytes: a, first: b, last: c },
        4 = Heap {},
        5 = Alias { slot: a, byte_offset: b },
        6 = Object {}
    }
    ValueType {
        0 = Tensor { 0: a },
        1 = Sequence { 0: a },
        2 = Optional { 0: a },
        3 = Map { 0: a, 1: b }
    }
    Arg { 0 = Slot { 0: a }, 1 = Scalar { 0: a } }
    Value { 0 = Slot { 0: a }, 1 = Expr { 0: a } }
    Step {
        0 = Launch { kernel: a, args: b, extent: c, grain: d, round: e },
        1 = Bind { sym: a, slot: b, index: c, min: d, max: e, error: f },
        2 = Let { sym: a, value: b },
        3 = Require { cond: a, error: b },
        4 = Copy { dst: a, src: b },
        5 = Move { dst: a, src: b },
        6 = If { cond: a, then_: b, else_: c },
        7 = Loop { 0: a },
        8 = Call { 0: a },
        9 = Count { counter: a, value: b }
    }
}

impl Plan {
    /// The bytes of this plan.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Vec::from(PLAN_MAGIC);
        PLAN_VERSION.put(&mut w);
        self.put(&mut w);
        w
    }

    /// The plan in `bytes`, validated (see [`Plan::validate`]).
    pub fn decode(bytes: &[u8]) -> Result<Plan> {
        let Some(rest) = bytes.strip_prefix(&PLAN_MAGIC) else { return Err(DecodeError::Magic) };
        let mut r = Reader { bytes: rest, at: 0, depth: 0 };
        let version = u32::get(&mut r)?;
        if version != PLAN_VERSION {
            return Err(DecodeError::Version(version));
        }
        let plan = Plan::get(&mut r)?;
        if r.at != rest.len() {
            return r.bad();
        }
        plan.validate().map_err(DecodeError::Invalid)?;
        Ok(plan)
    }
}
