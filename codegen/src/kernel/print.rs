//! The `.kir` text form: deterministic, for people, tests and hashes. There is no parser.

use super::func::{Class, Kernel, KernelModule, ParamKind};
use super::inst::{Block, Dot4, Frag, Inst, Op, Special};
use super::types::{Buf, Space, Val};
use std::fmt::{self, Write};

impl fmt::Display for KernelModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for k in &self.kernels {
            write!(f, "{k}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel @{} ", self.name)?;
        match self.class {
            Class::Cpu => f.write_str("cpu")?,
            Class::Simt { block: [x, y, z] } => write!(f, "simt[{x},{y},{z}]")?,
        }
        f.write_str(" {\n")?;
        for p in &self.params {
            match &p.kind {
                ParamKind::Buffer { elem, access, align, may_alias } => {
                    let alias = if *may_alias { " may_alias" } else { "" };
                    writeln!(f, "  param %{}: {elem}[] {} align {align}{alias}", p.name, access.name())?;
                }
                ParamKind::Scalar => writeln!(f, "  param %{}: i64", p.name)?,
            }
        }
        for l in &self.locals {
            let space = match l.space {
                Space::Private => "private",
                Space::Shared => "shared",
            };
            writeln!(f, "  local %{}: {}[{}] {space}", l.name, l.elem, l.len)?;
        }
        let mut s = String::new();
        print_block(self, &self.body, 1, &mut s)?;
        f.write_str(&s)?;
        f.write_str("}\n")
    }
}

/// One instruction without its nested blocks, for messages.
pub(crate) fn print_inst_head(k: &Kernel, inst: &Inst) -> String {
    let mut s = String::new();
    // Writing to a String cannot fail.
    let _ = head(k, inst, &mut s);
    s
}

fn list(vals: &[Val]) -> String {
    vals.iter().map(Val::to_string).collect::<Vec<_>>().join(", ")
}

fn print_block(k: &Kernel, b: &Block, depth: usize, out: &mut String) -> fmt::Result {
    let pad = "  ".repeat(depth);
    for inst in &b.insts {
        out.push_str(&pad);
        head(k, inst, out)?;
        let nested = inst.op.blocks();
        let last = nested.len().saturating_sub(1);
        for (i, nb) in nested.iter().enumerate() {
            out.push_str(" {");
            if !nb.params.is_empty() {
                write!(out, " |{}|", list(&nb.params))?;
            }
            out.push('\n');
            print_block(k, nb, depth + 1, out)?;
            if !nb.yields.is_empty() {
                writeln!(out, "{pad}  yield {}", list(&nb.yields))?;
            }
            write!(out, "{pad}}}")?;
            if i < last {
                out.push_str(if matches!(inst.op, Op::If { .. }) { " else" } else { " do" });
            }
        }
        out.push('\n');
    }
    Ok(())
}

fn head(k: &Kernel, inst: &Inst, out: &mut String) -> fmt::Result {
    if !inst.outs.is_empty() {
        let defs: Vec<String> = inst
            .outs
            .iter()
            .map(|v| format!("{v}: {}", k.vals.get(v.index()).map_or("?".into(), |t| t.to_string())))
            .collect();
        write!(out, "{} = ", defs.join(", "))?;
    }
    let buf = |b: Buf| format!("%{}", k.buf_name(b));
    let mask = |m: &Option<Val>| m.map_or(String::new(), |m| format!(" mask {m}"));
    let mask2 = |m: &Option<(Val, Val)>| m.map_or(String::new(), |(m, p)| format!(" mask {m} else {p}"));
    match &inst.op {
        Op::Const(bits) => {
            out.push_str("const");
            for b in bits {
                write!(out, " {b:#x}")?;
            }
            Ok(())
        }
        Op::Param(i) => write!(out, "param %{}", k.params.get(usize::from(*i)).map_or("?", |p| &p.name)),
        Op::Special(s) => match s {
            Special::RangeLo => write!(out, "range_lo"),
            Special::RangeHi => write!(out, "range_hi"),
            Special::ThreadId(d) => write!(out, "thread_id.{d}"),
            Special::BlockId(d) => write!(out, "block_id.{d}"),
            Special::BlockDim(d) => write!(out, "block_dim.{d}"),
            Special::GridDim(d) => write!(out, "grid_dim.{d}"),
        },
        Op::Splat(v) => write!(out, "splat {v}"),
        Op::Iota => write!(out, "iota"),
        Op::Unary(o, a) => write!(out, "{} {a}", o.name()),
        Op::Binary(o, a, b) => write!(out, "{} {a}, {b}", o.name()),
        Op::Fma(a, b, c) => write!(out, "fma {a}, {b}, {c}"),
        Op::Cmp(o, a, b) => write!(out, "cmp.{} {a}, {b}", o.name()),
        Op::Select(c, a, b) => write!(out, "select {c}, {a}, {b}"),
        Op::Cast(o, a) => write!(out, "{} {a}", o.name()),
        Op::Dot4 { kind, acc, a, b } => {
            let n = match kind {
                Dot4::U8S8 => "dot4_u8s8",
                Dot4::S8S8 => "dot4_s8s8",
                Dot4::U8S8Pairs => "dot4_u8s8_pairs",
            };
            write!(out, "{n} {acc}, {a}, {b}")
        }
        Op::Dot2Bf16 { acc, a, b } => write!(out, "dot2_bf16 {acc}, {a}, {b}"),
        Op::Shuffle(a, b, m) => write!(out, "shuffle {a}, {b}, {m:?}"),
        Op::Extract(a, i) => write!(out, "extract {a}, {i}"),
        Op::Insert(a, s, i) => write!(out, "insert {a}, {s}, {i}"),
        Op::Reduce(o, a) => write!(out, "reduce.{} {a}", o.name()),
        Op::Load { buf: b, idx, align, mask } => {
            write!(out, "load {}[{idx}] align {align}{}", buf(*b), mask2(mask))
        }
        Op::Store { buf: b, idx, val, align, mask: m } => {
            write!(out, "store {val}, {}[{idx}] align {align}{}", buf(*b), mask(m))
        }
        Op::Gather { buf: b, idx, mask } => write!(out, "gather {}[{idx}]{}", buf(*b), mask2(mask)),
        Op::Scatter { buf: b, idx, val, mask: m } => {
            write!(out, "scatter {val}, {}[{idx}]{}", buf(*b), mask(m))
        }
        Op::Prefetch { buf: b, idx } => write!(out, "prefetch {}[{idx}]", buf(*b)),
        Op::ErrorIf { cond, code } => write!(out, "error_if {cond}, {code}"),
        Op::For { axis, lo, hi, step, init, .. } => {
            write!(out, "for {} {lo}..{hi} step {step}", axis.name())?;
            if !init.is_empty() {
                write!(out, " init {}", list(init))?;
            }
            Ok(())
        }
        Op::If { cond, .. } => write!(out, "if {cond}"),
        Op::While { init, .. } => {
            out.push_str("while");
            if !init.is_empty() {
                write!(out, " init {}", list(init))?;
            }
            Ok(())
        }
        Op::Barrier => write!(out, "barrier"),
        Op::ShuffleXor(a, m) => write!(out, "shuffle_xor {a}, {m}"),
        Op::CopyAsync { dst, dst_idx, src, src_idx, bytes } => {
            write!(out, "copy_async.{bytes} {}[{dst_idx}], {}[{src_idx}]", buf(*dst), buf(*src))
        }
        Op::CopyCommit => write!(out, "copy_commit"),
        Op::CopyWait(n) => write!(out, "copy_wait {n}"),
        Op::FragLoad { frag, buf: b, idx, stride } => {
            let n = match frag {
                Frag::A => "a",
                Frag::B => "b",
                Frag::C => "c",
            };
            write!(out, "frag_load.{n} {}[{idx}] stride {stride}", buf(*b))
        }
        Op::FragStore { buf: b, idx, stride, val } => {
            write!(out, "frag_store {val}, {}[{idx}] stride {stride}", buf(*b))
        }
        Op::Mma { a, b, c } => write!(out, "mma {a}, {b}, {c}"),
    }
}
