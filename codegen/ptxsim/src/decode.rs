//! Operation names and operands to decoded instructions. Every part of a name must be known.

use crate::fault::ParseErrorKind;
use crate::op::{
    Addr, BinaryOp, Compare, Kind, MmaShape, Op, Operand, Reg, Round, Space, Special, TernaryOp, Ty, UnaryOp,
};
use crate::parse::{Names, Raw};

type Error = (ParseErrorKind, String);
type Result<T> = std::result::Result<T, Error>;

/// An integer literal: decimal or `0x`, with `U` after it or not.
pub(crate) fn integer(word: &str) -> Option<u64> {
    let word = word.strip_suffix('U').unwrap_or(word);
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The parts of an operation's name after the first.
struct Parts<'a> {
    whole: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn unknown<T>(&self) -> Result<T> {
        Err((ParseErrorKind::UnknownOpcode, format!("{} is not interpreted", self.whole)))
    }
    fn eat(&mut self, part: &str) -> bool {
        let hit = self.rest.first() == Some(&part);
        if hit {
            self.rest.remove(0);
        }
        hit
    }
    fn need(&mut self, part: &str) -> Result<()> {
        if self.eat(part) { Ok(()) } else { self.unknown() }
    }
    fn part(&mut self) -> Result<&'a str> {
        if self.rest.is_empty() { self.unknown() } else { Ok(self.rest.remove(0)) }
    }
    fn ty(&mut self) -> Result<Ty> {
        let part = self.part()?;
        let packed = part.strip_suffix("x2");
        let (kind, bits) = match packed.unwrap_or(part) {
            "pred" => (Kind::Pred, 1),
            "bf16" => (Kind::Brain, 16),
            other => {
                let kind = match other.as_bytes().first() {
                    Some(b'b') => Kind::Bits,
                    Some(b'u') => Kind::Unsigned,
                    Some(b's') => Kind::Signed,
                    Some(b'f') => Kind::Float,
                    _ => return self.unknown(),
                };
                let bits = other[1..].parse().ok().filter(|b| matches!(b, 8 | 16 | 32 | 64));
                match bits {
                    Some(b) if b > 8 || kind != Kind::Float => (kind, b),
                    _ => return self.unknown(),
                }
            }
        };
        if packed.is_some() && bits != 16 {
            return self.unknown();
        }
        Ok(Ty { kind, bits, lanes: if packed.is_some() { 2 } else { 1 } })
    }
    fn space(&mut self) -> Space {
        for (name, space) in [
            ("param", Space::Param),
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("local", Space::Local),
        ] {
            if self.eat(name) {
                return space;
            }
        }
        Space::Generic
    }
    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { self.unknown() }
    }
}

/// The operands, taken in order.
struct Args<'r, 'a> {
    raw: &'r [Raw<'a>],
    names: &'r Names<'a>,
}

fn wrong<T>(why: impl Into<String>) -> Result<T> {
    Err((ParseErrorKind::Operands, why.into()))
}

impl<'a> Args<'_, 'a> {
    fn next(&mut self) -> Result<Raw<'a>> {
        match self.raw.split_first() {
            Some((first, rest)) => {
                self.raw = rest;
                Ok(first.clone())
            }
            None => wrong("an operand is missing"),
        }
    }
    fn end(&self) -> Result<()> {
        if self.raw.is_empty() { Ok(()) } else { wrong("too many operands") }
    }
    fn name(&self, word: &str) -> Result<Operand> {
        if let Some(r) = self.names.registers.get(word) {
            return Ok(Operand::Reg(*r));
        }
        if let Some(at) = self.names.variables.get(word) {
            return Ok(Operand::Imm(*at));
        }
        let hex = |digits: &str| u64::from_str_radix(digits, 16).ok().map(Operand::Imm);
        let literal = if let Some(d) = word.strip_prefix("0f").or_else(|| word.strip_prefix("0d")) {
            hex(d)
        } else {
            integer(word).map(Operand::Imm)
        };
        literal.ok_or_else(|| (ParseErrorKind::UnknownName, format!("the name {word}")))
    }
    fn operand_of(&self, raw: &Raw<'a>) -> Result<Operand> {
        match raw {
            Raw::Word(w) => self.name(w),
            Raw::Negative(w) => match integer(w) {
                Some(n) => Ok(Operand::Imm(n.wrapping_neg())),
                None => wrong(format!("-{w}")),
            },
            _ => wrong("an address or a list where a value belongs"),
        }
    }
    fn operand(&mut self) -> Result<Operand> {
        let raw = self.next()?;
        self.operand_of(&raw)
    }
    fn reg_of(&self, raw: &Raw<'a>) -> Result<Reg> {
        match self.operand_of(raw)? {
            Operand::Reg(r) => Ok(r),
            Operand::Imm(_) => wrong("a literal where a register belongs"),
        }
    }
    fn reg(&mut self) -> Result<Reg> {
        let raw = self.next()?;
        self.reg_of(&raw)
    }
    fn address(&mut self) -> Result<Addr> {
        let Raw::Address(base, offset) = self.next()? else { return wrong("no address") };
        let base = match self.names.params.get(base) {
            Some(at) => Operand::Imm(*at),
            None => self.name(base)?,
        };
        Ok(Addr { base, offset })
    }
    /// A list, or one operand as a list.
    fn list(&mut self) -> Result<Vec<Raw<'a>>> {
        Ok(match self.next()? {
            Raw::List(list) => list,
            one => vec![one],
        })
    }
    fn regs<const N: usize>(&mut self) -> Result<[Reg; N]> {
        let list = self.list()?;
        let regs: Vec<Reg> = list.iter().map(|r| self.reg_of(r)).collect::<Result<_>>()?;
        regs.try_into().or_else(|_| wrong(format!("not {N} registers")))
    }
    fn operands<const N: usize>(&mut self) -> Result<[Operand; N]> {
        let list = self.list()?;
        let all: Vec<Operand> = list.iter().map(|r| self.operand_of(r)).collect::<Result<_>>()?;
        all.try_into().or_else(|_| wrong(format!("not {N} operands")))
    }
}

/// One instruction.
pub(crate) fn decode(opcode: &str, raw: &[Raw<'_>], names: &Names<'_>) -> Result<Op> {
    let mut words = opcode.split('.');
    let base = words.next().unwrap_or_default();
    let mut p = Parts { whole: opcode, rest: words.collect() };
    let mut a = Args { raw, names };
    let op = match base {
        "ld" => load(&mut p, &mut a)?,
        "st" => store(&mut p, &mut a)?,
        "mov" => mov(&mut p, &mut a)?,
        "cvt" => convert(&mut p, &mut a)?,
        "cvta" => {
            let back = p.eat("to");
            let space = p.space();
            if space == Space::Generic || p.ty()?.bits != 64 {
                return p.unknown();
            }
            Op::Generic { dst: a.reg()?, src: a.operand()?, space, back }
        }
        "setp" => {
            let cmp = compare(p.part()?).map_or_else(|| p.unknown(), Ok)?;
            let ty = p.ty()?;
            let int = matches!(
                cmp,
                Compare::Eq | Compare::Ne | Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge
            );
            if !(ty.is_float() || ty.is_int() && int) || ty.lanes != 1 {
                return p.unknown();
            }
            Op::Compare { cmp, ty, dst: a.reg()?, a: a.operand()?, b: a.operand()? }
        }
        "selp" => {
            p.ty()?;
            Op::Select { dst: a.reg()?, a: a.operand()?, b: a.operand()?, cond: a.operand()? }
        }
        "bra" => {
            p.eat("uni");
            let Raw::Word(label) = a.next()? else { return wrong("no label") };
            match names.labels.get(label) {
                Some(target) => Op::Branch { target: *target },
                None => return Err((ParseErrorKind::UnknownName, format!("the label {label}"))),
            }
        }
        "ret" | "exit" => Op::Return,
        "bar" => {
            p.need("sync")?;
            match a.operand()? {
                Operand::Imm(0) => Op::Barrier,
                _ => return wrong("a barrier other than 0"),
            }
        }
        "shfl" => {
            for part in ["sync", "bfly", "b32"] {
                p.need(part)?;
            }
            Op::Butterfly {
                dst: a.reg()?,
                src: a.operand()?,
                lane_mask: a.operand()?,
                clamp: a.operand()?,
                members: a.operand()?,
            }
        }
        "mma" => mma(&mut p, &mut a)?,
        "cp" => copy_async(&mut p, &mut a)?,
        "prefetch" => {
            if p.space() != Space::Global {
                return p.unknown();
            }
            p.part()?;
            a.next()?;
            Op::Nothing
        }
        _ => arithmetic(base, &mut p, &mut a)?,
    };
    p.end()?;
    a.end()?;
    Ok(op)
}

fn load(p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    let space = p.space();
    let read_only = p.eat("nc");
    let lanes = lanes(p);
    let ty = p.ty()?;
    if ty.lanes != 1 || ty.kind == Kind::Pred || (read_only && space != Space::Global) {
        return p.unknown();
    }
    let list = a.list()?;
    let dst: Vec<Reg> = list.iter().map(|r| a.reg_of(r)).collect::<Result<_>>()?;
    if dst.len() != lanes {
        return wrong(format!("not {lanes} registers"));
    }
    Ok(Op::Load { space, ty, dst, addr: a.address()?, read_only })
}

fn store(p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    let space = p.space();
    let lanes = lanes(p);
    let ty = p.ty()?;
    if ty.lanes != 1 || ty.kind == Kind::Pred || space == Space::Param {
        return p.unknown();
    }
    let addr = a.address()?;
    let list = a.list()?;
    let src: Vec<Operand> = list.iter().map(|r| a.operand_of(r)).collect::<Result<_>>()?;
    if src.len() != lanes {
        return wrong(format!("not {lanes} operands"));
    }
    Ok(Op::Store { space, ty, src, addr })
}

fn lanes(p: &mut Parts<'_>) -> usize {
    if p.eat("v2") {
        2
    } else if p.eat("v4") {
        4
    } else {
        1
    }
}

fn mov(p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    let ty = p.ty()?;
    let to = a.next()?;
    if let Raw::List(list) = to {
        let dst: Vec<Option<Reg>> = list
            .iter()
            .map(|r| if *r == Raw::Word("_") { Ok(None) } else { a.reg_of(r).map(Some) })
            .collect::<Result<_>>()?;
        let bits = part_bits(ty, dst.len())?;
        return Ok(Op::Unpack { dst, src: a.operand()?, bits });
    }
    let dst = a.reg_of(&to)?;
    match a.next()? {
        Raw::List(list) => {
            let parts: Vec<Operand> = list.iter().map(|r| a.operand_of(r)).collect::<Result<_>>()?;
            let bits = part_bits(ty, parts.len())?;
            Ok(Op::Pack { dst, parts, bits })
        }
        Raw::Word(w) if w.starts_with('%') && !a.names.registers.contains_key(w) => {
            let axis = |name: &str| {
                let axis = w.strip_prefix(name)?;
                [".x", ".y", ".z"].iter().position(|n| *n == axis).map(|i| i as u8)
            };
            let which = match w {
                "%laneid" => Some(Special::Lane),
                _ => axis("%tid")
                    .map(Special::Tid)
                    .or_else(|| axis("%ntid").map(Special::Ntid))
                    .or_else(|| axis("%ctaid").map(Special::Ctaid))
                    .or_else(|| axis("%nctaid").map(Special::Nctaid)),
            };
            match which {
                Some(which) => Ok(Op::Special { dst, which }),
                None => Err((ParseErrorKind::UnknownName, format!("the register {w}"))),
            }
        }
        other => Ok(Op::Move { dst, src: a.operand_of(&other)? }),
    }
}

fn part_bits(ty: Ty, parts: usize) -> Result<u32> {
    match parts {
        2 | 4 if ty.bits / parts as u32 >= 8 => Ok(ty.bits / parts as u32),
        _ => wrong(format!("{parts} parts of {} bits", ty.bits)),
    }
}

fn convert(p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    let rounds = [
        ("rni", Round::Rni),
        ("rzi", Round::Rzi),
        ("rmi", Round::Rmi),
        ("rpi", Round::Rpi),
        ("rn", Round::Rn),
    ];
    let round = rounds.into_iter().find(|(name, _)| p.eat(name)).map_or(Round::None, |r| r.1);
    let (to, from) = (p.ty()?, p.ty()?);
    let float = |t: Ty| matches!(t.kind, Kind::Float | Kind::Brain);
    if to.lanes == 2 {
        if !float(to) || round != Round::Rn || from != Ty::new(Kind::Float, 32) {
            return p.unknown();
        }
        return Ok(Op::ConvertPair { dst: a.reg()?, high: a.operand()?, low: a.operand()?, to });
    }
    let integral = matches!(round, Round::Rni | Round::Rzi | Round::Rmi | Round::Rpi);
    let known = from.lanes == 1
        && match (float(to), float(from)) {
            (false, false) => to.is_int() && from.is_int() && round == Round::None,
            (false, true) => to.is_int() && from.is_float() && integral,
            (true, false) => to.is_float() && from.is_int() && round == Round::Rn,
            (true, true) if to == from => to.is_float() && integral,
            (true, true) if to.bits > from.bits => round == Round::None,
            (true, true) => to.bits < from.bits && from.is_float() && round == Round::Rn,
        };
    if !known {
        return p.unknown();
    }
    Ok(Op::Convert { dst: a.reg()?, src: a.operand()?, to, from, round })
}

fn compare(name: &str) -> Option<Compare> {
    Some(match name {
        "eq" => Compare::Eq,
        "ne" => Compare::Ne,
        "lt" => Compare::Lt,
        "le" => Compare::Le,
        "gt" => Compare::Gt,
        "ge" => Compare::Ge,
        "equ" => Compare::Equ,
        "neu" => Compare::Neu,
        "ltu" => Compare::Ltu,
        "leu" => Compare::Leu,
        "gtu" => Compare::Gtu,
        "geu" => Compare::Geu,
        "num" => Compare::Num,
        "nan" => Compare::Nan,
        _ => return None,
    })
}

fn mma(p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    p.need("sync")?;
    p.need("aligned")?;
    let size = p.part()?;
    p.need("row")?;
    p.need("col")?;
    if size == "m16n8k8" {
        for part in ["f32", "tf32", "tf32", "f32"] {
            p.need(part)?;
        }
        let (d, left, right) = (a.regs()?, a.operands::<4>()?, a.operands::<2>()?);
        let (left, right) = (left.to_vec(), right.to_vec());
        return Ok(Op::Mma { shape: MmaShape::Tf32, d, a: left, b: right, c: a.operands()? });
    }
    let (d, left, right, c) = (p.ty()?, p.ty()?, p.ty()?, p.ty()?);
    let plain = d == c && d.lanes == 1 && left.lanes == 1 && right.lanes == 1;
    let half = matches!(left.kind, Kind::Float | Kind::Brain) && left.bits == 16 && left == right;
    let byte = |t: Ty| matches!(t.kind, Kind::Unsigned | Kind::Signed) && t.bits == 8;
    let shape = match size {
        "m16n8k16" if half && d == Ty::new(Kind::Float, 32) => MmaShape::Half(left),
        "m16n8k32" if byte(left) && byte(right) && d == Ty::new(Kind::Signed, 32) => {
            MmaShape::Bytes { left: left.kind, right: right.kind }
        }
        _ => return p.unknown(),
    };
    if !plain {
        return p.unknown();
    }
    let (d, left, right) = (a.regs()?, a.operands::<4>()?, a.operands::<2>()?);
    Ok(Op::Mma { shape, d, a: left.to_vec(), b: right.to_vec(), c: a.operands()? })
}

fn copy_async(p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    p.need("async")?;
    if p.eat("commit_group") {
        return Ok(Op::CopyCommit);
    }
    if p.eat("wait_all") {
        return Ok(Op::CopyWait(0));
    }
    if p.eat("wait_group") {
        return match a.operand()? {
            Operand::Imm(n) if n < 64 => Ok(Op::CopyWait(n as usize)),
            _ => wrong("the number of groups"),
        };
    }
    let bypass = p.eat("cg");
    if !bypass {
        p.need("ca")?;
    }
    p.need("shared")?;
    p.need("global")?;
    let (dst, src) = (a.address()?, a.address()?);
    match a.operand()? {
        Operand::Imm(16) => Ok(Op::CopyAsync { dst, src, bytes: 16 }),
        Operand::Imm(n @ (4 | 8)) if !bypass => Ok(Op::CopyAsync { dst, src, bytes: n as usize }),
        _ => wrong("the number of bytes"),
    }
}

/// What a form of an operation takes.
fn arithmetic(base: &str, p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    let unary = match base {
        "neg" => Some(UnaryOp::Neg),
        "abs" => Some(UnaryOp::Abs),
        "not" => Some(UnaryOp::Not),
        "sqrt" => Some(UnaryOp::Sqrt),
        "rcp" => Some(UnaryOp::Rcp),
        "popc" => Some(UnaryOp::Popc),
        "clz" => Some(UnaryOp::Clz),
        _ => None,
    };
    if let Some(op) = unary {
        if matches!(op, UnaryOp::Sqrt | UnaryOp::Rcp) {
            p.need("rn")?;
        }
        let ty = p.ty()?;
        let known = ty.lanes == 1
            && match op {
                UnaryOp::Sqrt | UnaryOp::Rcp => ty.is_float(),
                UnaryOp::Neg | UnaryOp::Abs => ty.is_float() || ty.signed(),
                UnaryOp::Not => ty.kind == Kind::Bits || ty.kind == Kind::Pred,
                UnaryOp::Popc | UnaryOp::Clz => ty.kind == Kind::Bits && ty.bits >= 32,
            };
        return if known { Ok(Op::Unary { op, ty, dst: a.reg()?, a: a.operand()? }) } else { p.unknown() };
    }
    match base {
        "fma" => {
            p.need("rn")?;
            let ty = p.ty()?;
            if !ty.is_float() {
                return p.unknown();
            }
            return ternary(TernaryOp::Mad, ty, a);
        }
        "mad" => {
            let wide = p.eat("wide");
            if !wide {
                p.need("lo")?;
            }
            let ty = p.ty()?;
            if !ty.is_int() || ty.lanes != 1 || (wide && ty.bits == 64) {
                return p.unknown();
            }
            return ternary(if wide { TernaryOp::MadWide } else { TernaryOp::Mad }, ty, a);
        }
        "bfe" => {
            let ty = p.ty()?;
            if !ty.is_int() || ty.bits < 32 {
                return p.unknown();
            }
            return ternary(TernaryOp::Bfe, ty, a);
        }
        "prmt" => {
            let ty = p.ty()?;
            if ty != Ty::new(Kind::Bits, 32) {
                return p.unknown();
            }
            return ternary(TernaryOp::Prmt, ty, a);
        }
        "shf" => {
            let left = p.eat("l");
            if !left {
                p.need("r")?;
            }
            let wrap = p.eat("wrap");
            if !wrap {
                p.need("clamp")?;
            }
            let ty = p.ty()?;
            if ty != Ty::new(Kind::Bits, 32) {
                return p.unknown();
            }
            return ternary(TernaryOp::Funnel { left, wrap }, ty, a);
        }
        "bfi" => {
            let ty = p.ty()?;
            if ty.kind != Kind::Bits || ty.bits < 32 {
                return p.unknown();
            }
            return Ok(Op::Insert {
                ty,
                dst: a.reg()?,
                a: a.operand()?,
                b: a.operand()?,
                pos: a.operand()?,
                len: a.operand()?,
            });
        }
        _ => {}
    }
    binary(base, p, a)
}

fn ternary(op: TernaryOp, ty: Ty, a: &mut Args<'_, '_>) -> Result<Op> {
    Ok(Op::Ternary { op, ty, dst: a.reg()?, a: a.operand()?, b: a.operand()?, c: a.operand()? })
}

fn binary(base: &str, p: &mut Parts<'_>, a: &mut Args<'_, '_>) -> Result<Op> {
    let rounded = p.eat("rn");
    let (mut op, float) = match base {
        "add" => (BinaryOp::Add, true),
        "sub" => (BinaryOp::Sub, true),
        "mul" if p.eat("lo") => (BinaryOp::Mul, false),
        "mul" if p.eat("hi") => (BinaryOp::MulHi, false),
        "mul" if p.eat("wide") => (BinaryOp::MulWide, false),
        "mul" => (BinaryOp::Mul, true),
        "div" => (BinaryOp::Div, true),
        "rem" => (BinaryOp::Rem, false),
        "and" => (BinaryOp::And, false),
        "or" => (BinaryOp::Or, false),
        "xor" => (BinaryOp::Xor, false),
        "shl" => (BinaryOp::Shl, false),
        "shr" => (BinaryOp::Shr, false),
        "min" => (BinaryOp::Min, true),
        "max" => (BinaryOp::Max, true),
        _ => return p.unknown(),
    };
    if p.eat("NaN") {
        op = match op {
            BinaryOp::Min => BinaryOp::MinNan,
            BinaryOp::Max => BinaryOp::MaxNan,
            _ => return p.unknown(),
        };
    }
    let ty = p.ty()?;
    let logic = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor);
    let extreme = matches!(op, BinaryOp::Min | BinaryOp::Max);
    let nan = matches!(op, BinaryOp::MinNan | BinaryOp::MaxNan);
    let known = if ty.is_float() {
        // Without a rounding, ptxas may contract a product and a sum; then the result is not defined bit for bit.
        float && (rounded || extreme || nan)
    } else if ty.lanes == 2 {
        !rounded && ty.is_int() && (extreme || op == BinaryOp::Add)
    } else if ty.kind == Kind::Pred {
        !rounded && logic
    } else {
        let typed = if logic || op == BinaryOp::Shl {
            ty.kind == Kind::Bits
        } else {
            matches!(ty.kind, Kind::Unsigned | Kind::Signed) || (op == BinaryOp::Shr && ty.is_int())
        };
        let fits = !(op == BinaryOp::MulWide && ty.bits == 64) && ty.bits > 8;
        let lone = op == BinaryOp::Mul && float;
        !rounded && !nan && !lone && typed && fits
    };
    if !known {
        return p.unknown();
    }
    Ok(Op::Binary { op, ty, dst: a.reg()?, a: a.operand()?, b: a.operand()? })
}
