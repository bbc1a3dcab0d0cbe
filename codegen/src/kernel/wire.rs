//! Compact bytes for kernels, to hand them to another process.
//!
//! Decoding trusts nothing: lengths are checked against what is left, nesting and enumerations against their limits, and
//! [`decode_module`] verifies what came out. Same module, same bytes; the format has no compatibility across versions.

use super::func::{Class, Kernel, KernelModule, Local, Param, ParamKind};
use super::inst::{Axis, BinOp, Block, CastOp, CmpOp, Dot4, Frag, Inst, Op, Special, UnOp};
use super::target::{Arch, Features, TargetSpec};
use super::types::{Access, Buf, Elem, Space, Ty, Val};
use super::verify::verify_module;

const MAGIC: &[u8; 4] = b"PKI1";
const MAX_DEPTH: usize = 64;

/// Bytes of a module.
pub fn encode_module(m: &KernelModule) -> Vec<u8> {
    let mut w = MAGIC.to_vec();
    m.kernels.put(&mut w);
    w
}

/// The verified module in `bytes`, or what is wrong with them.
pub fn decode_module(bytes: &[u8]) -> Result<KernelModule, String> {
    let body = bytes.strip_prefix(MAGIC).ok_or("not kernel bytes of this version")?;
    let m = KernelModule { kernels: decode(body)? };
    match verify_module(&m).first() {
        None => Ok(m),
        Some(i) => Err(i.to_string()),
    }
}

/// Bytes of a target description.
pub fn encode_target(t: &TargetSpec) -> Vec<u8> {
    let mut w = Vec::new();
    t.put(&mut w);
    w
}

/// The target description in `bytes`.
pub fn decode_target(bytes: &[u8]) -> Result<TargetSpec, String> {
    decode(bytes)
}

fn decode<T: Wire>(bytes: &[u8]) -> Result<T, String> {
    let mut r = Reader { rest: bytes, depth: 0 };
    let v = T::get(&mut r)?;
    if r.rest.is_empty() { Ok(v) } else { Err(format!("{} bytes too many", r.rest.len())) }
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.rest.split_first().ok_or("the bytes end early")?;
        self.rest = rest;
        Ok(*first)
    }
}

/// How one type is written and read.
trait Wire: Sized {
    fn put(&self, w: &mut Vec<u8>);
    fn get(r: &mut Reader<'_>) -> Result<Self, String>;
}

impl Wire for u64 {
    fn put(&self, w: &mut Vec<u8>) {
        let mut v = *self;
        while v >= 0x80 {
            w.push(v as u8 | 0x80);
            v >>= 7;
        }
        w.push(v as u8);
    }

    fn get(r: &mut Reader<'_>) -> Result<u64, String> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let b = r.byte()?;
            let part = u64::from(b & 0x7F);
            if (part << shift) >> shift != part {
                break;
            }
            v |= part << shift;
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err("a number beyond 64 bits".into())
    }
}

macro_rules! wire_uint {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, w: &mut Vec<u8>) {
                u64::from(*self).put(w);
            }

            fn get(r: &mut Reader<'_>) -> Result<$t, String> {
                let v = u64::get(r)?;
                <$t>::try_from(v).map_err(|_| format!("{v} is too large"))
            }
        }
    )*};
}
wire_uint!(u8, u16, u32);

impl Wire for i32 {
    fn put(&self, w: &mut Vec<u8>) {
        self.cast_unsigned().put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<i32, String> {
        Ok(u32::get(r)?.cast_signed())
    }
}

impl Wire for bool {
    fn put(&self, w: &mut Vec<u8>) {
        w.push(u8::from(*self));
    }

    fn get(r: &mut Reader<'_>) -> Result<bool, String> {
        match r.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            b => Err(format!("{b} is no truth value")),
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, w: &mut Vec<u8>) {
        (self.len() as u64).put(w);
        self.iter().for_each(|v| v.put(w));
    }

    fn get(r: &mut Reader<'_>) -> Result<Vec<T>, String> {
        let n = u64::get(r)?;
        // Every element takes at least one byte.
        if n > r.rest.len() as u64 {
            return Err(format!("a list of {n} elements in {} bytes", r.rest.len()));
        }
        (0..n).map(|_| T::get(r)).collect()
    }
}

impl Wire for String {
    fn put(&self, w: &mut Vec<u8>) {
        self.as_bytes().to_vec().put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<String, String> {
        String::from_utf8(Vec::get(r)?).map_err(|_| "a name that is not UTF-8".into())
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, w: &mut Vec<u8>) {
        self.is_some().put(w);
        self.iter().for_each(|v| v.put(w));
    }

    fn get(r: &mut Reader<'_>) -> Result<Option<T>, String> {
        if bool::get(r)? { T::get(r).map(Some) } else { Ok(None) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, w: &mut Vec<u8>) {
        self.0.put(w);
        self.1.put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<(A, B), String> {
        Ok((A::get(r)?, B::get(r)?))
    }
}

impl Wire for [u32; 3] {
    fn put(&self, w: &mut Vec<u8>) {
        self.iter().for_each(|v| v.put(w));
    }

    fn get(r: &mut Reader<'_>) -> Result<[u32; 3], String> {
        Ok([u32::get(r)?, u32::get(r)?, u32::get(r)?])
    }
}

impl Wire for Val {
    fn put(&self, w: &mut Vec<u8>) {
        self.0.put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<Val, String> {
        u32::get(r).map(Val)
    }
}

/// Enumerations without fields, by their place in a list.
macro_rules! wire_listed {
    ($($t:ident: $all:expr;)*) => {$(
        impl Wire for $t {
            fn put(&self, w: &mut Vec<u8>) {
                let at = $all.iter().position(|v| v == self);
                w.push(at.map_or(u8::MAX, |i| i as u8));
            }

            fn get(r: &mut Reader<'_>) -> Result<$t, String> {
                let i = r.byte()?;
                $all.get(usize::from(i)).copied().ok_or_else(|| format!("{i} is no {}", stringify!($t)))
            }
        }
    )*};
}
wire_listed! {
    Elem: Elem::ALL;
    UnOp: UnOp::ALL;
    BinOp: BinOp::ALL;
    CmpOp: CmpOp::ALL;
    CastOp: CastOp::ALL;
    Axis: Axis::ALL;
    Dot4: [Dot4::U8S8, Dot4::S8S8, Dot4::U8S8Pairs];
    Frag: [Frag::A, Frag::B, Frag::C];
    Access: [Access::Read, Access::Write, Access::ReadWrite];
    Space: [Space::Private, Space::Shared];
    Arch: [Arch::X86_64, Arch::Aarch64, Arch::Nvptx];
}

/// Enumerations with fields: a tag byte, then the fields in order.
macro_rules! wire_enum {
    ($t:ident: $($tag:literal = $v:ident $(($($a:ident),*))? $({$($b:ident),*})?;)*) => {
        impl Wire for $t {
            fn put(&self, w: &mut Vec<u8>) {
                match self {
                    $($t::$v $(($($a),*))? $({$($b),*})? => {
                        w.push($tag);
                        $($($a.put(w);)*)?
                        $($($b.put(w);)*)?
                    })*
                }
            }

            fn get(r: &mut Reader<'_>) -> Result<$t, String> {
                Ok(match r.byte()? {
                    $($tag => {
                        $($(let $a = Wire::get(r)?;)*)?
                        $($(let $b = Wire::get(r)?;)*)?
                        $t::$v $(($($a),*))? $({$($b),*})?
                    })*
                    tag => return Err(format!("{tag} is no {}", stringify!($t))),
                })
            }
        }
    };
}
wire_enum! { Buf: 0 = Param(i); 1 = Local(i); }
wire_enum! { Class: 0 = Cpu; 1 = Simt { block }; }
wire_enum! { ParamKind: 0 = Buffer { elem, access, align, may_alias }; 1 = Scalar; }
wire_enum! { Special:
    0 = RangeLo; 1 = RangeHi; 2 = ThreadId(d); 3 = BlockId(d); 4 = BlockDim(d); 5 = GridDim(d);
}
wire_enum! { Op:
    0 = Const(bits);
    1 = Param(i);
    2 = Special(s);
    3 = Splat(v);
    4 = Iota;
    5 = Unary(o, a);
    6 = Binary(o, a, b);
    7 = Fma(a, b, c);
    8 = Cmp(o, a, b);
    9 = Select(c, a, b);
    10 = Cast(o, a);
    11 = Dot4 { kind, acc, a, b };
    12 = Dot2Bf16 { acc, a, b };
    13 = Shuffle(a, b, mask);
    14 = Extract(a, i);
    15 = Insert(a, s, i);
    16 = Reduce(o, a);
    17 = Load { buf, idx, align, mask };
    18 = Store { buf, idx, val, align, mask };
    19 = Gather { buf, idx, mask };
    20 = Scatter { buf, idx, val, mask };
    21 = Prefetch { buf, idx };
    22 = ErrorIf { cond, code };
    23 = For { axis, lo, hi, step, init, body };
    24 = If { cond, then, other };
    25 = While { init, cond, body };
    26 = Barrier;
    27 = ShuffleXor(v, mask);
    28 = CopyAsync { dst, dst_idx, src, src_idx, bytes };
    29 = CopyCommit;
    30 = CopyWait(n);
    31 = FragLoad { frag, buf, idx, stride };
    32 = FragStore { buf, idx, stride, val };
    33 = Mma { a, b, c };
}

macro_rules! wire_struct {
    ($($t:ident { $($f:ident),* })*) => {$(
        impl Wire for $t {
            fn put(&self, w: &mut Vec<u8>) {
                $(self.$f.put(w);)*
            }

            fn get(r: &mut Reader<'_>) -> Result<$t, String> {
                $(let $f = Wire::get(r)?;)*
                Ok($t { $($f),* })
            }
        }
    )*};
}
wire_struct! {
    Ty { elem, lanes }
    Param { name, kind }
    Local { name, elem, len, space }
    Inst { outs, op }
    Kernel { name, class, params, locals, vals, body }
    Features { avx2, fma, avx512, vnni, bf16, neon, dotprod }
    TargetSpec { name, arch, lanes_f32, registers, features, sm, ptx }
}

impl Wire for Block {
    fn put(&self, w: &mut Vec<u8>) {
        self.params.put(w);
        self.insts.put(w);
        self.yields.put(w);
    }

    fn get(r: &mut Reader<'_>) -> Result<Block, String> {
        r.depth += 1;
        if r.depth > MAX_DEPTH {
            return Err(format!("blocks are nested more than {MAX_DEPTH} deep"));
        }
        let b = Block { params: Vec::get(r)?, insts: Vec::get(r)?, yields: Vec::get(r)? };
        r.depth -= 1;
        Ok(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::difftest::{Rng, memory, ops, random};

    fn samples() -> Vec<KernelModule> {
        let mut kernels: Vec<Kernel> = ops::cases(8).into_iter().map(|c| c.kernel).collect();
        kernels.push(memory::cases(8, &[1]).remove(0).kernel);
        kernels.extend((0..20).map(|s| random::case(s, 8).kernel));
        kernels.into_iter().map(|k| KernelModule { kernels: vec![k] }).collect()
    }

    #[test]
    fn decodes_what_it_encodes() {
        for m in samples() {
            assert_eq!(decode_module(&encode_module(&m)).unwrap(), m);
        }
        for t in TargetSpec::all_cpu().into_iter().chain([TargetSpec::nvptx(90)]) {
            assert_eq!(decode_target(&encode_target(&t)).unwrap(), t);
        }
    }

    #[test]
    fn damaged_bytes_give_an_error_or_a_valid_module() {
        let mut rng = Rng(3);
        let (mut refused, mut total) = (0, 0);
        for m in samples() {
            let bytes = encode_module(&m);
            for cut in [0, 3, 4, bytes.len() / 2, bytes.len() - 1] {
                assert!(decode_module(&bytes[..cut]).is_err());
            }
            for _ in 0..60 {
                let mut b = bytes.clone();
                for _ in 0..=rng.below(3) {
                    let at = rng.below(b.len());
                    b[at] = rng.next_u64() as u8;
                }
                total += 1;
                match decode_module(&b) {
                    Ok(m) => assert!(verify_module(&m).is_empty()),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > total / 2, "{refused} of {total}");
    }

    #[test]
    fn refuses_lengths_and_depths_beyond_the_input() {
        let e = decode_module(b"PKI1\xff\xff\xff\xff\x0f").unwrap_err();
        assert!(e.contains("elements in 0 bytes"), "{e}");
        assert!(decode_module(b"PKI0\0").unwrap_err().contains("version"));
        let mut deep = Block::default();
        for _ in 0..200 {
            let inst =
                Inst { outs: vec![], op: Op::If { cond: Val(0), then: deep, other: Block::default() } };
            deep = Block { params: vec![], insts: vec![inst], yields: vec![] };
        }
        let k = Kernel {
            name: "k".into(),
            class: Class::Cpu,
            params: vec![],
            locals: vec![],
            vals: vec![],
            body: deep,
        };
        let e = decode_module(&encode_module(&KernelModule { kernels: vec![k] })).unwrap_err();
        assert!(e.contains("nested more than"), "{e}");
    }
}
