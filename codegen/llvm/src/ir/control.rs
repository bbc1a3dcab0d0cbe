//! Structured control to basic blocks and phi nodes. Loops are emitted rotated: a guard, then the test at the bottom.

use super::{Emitter, ty};
use planish_codegen::kernel::{Block, Val};

impl Emitter<'_> {
    /// Emits into a fresh buffer and gives the text, so that phi nodes that depend on it can be written first.
    fn aside(&mut self, f: impl FnOnce(&mut Self)) -> String {
        let outer = std::mem::take(&mut self.out);
        f(self);
        std::mem::replace(&mut self.out, outer)
    }

    pub(super) fn for_loop(
        &mut self,
        outs: &[Val],
        (lo, hi, step): (Val, Val, Val),
        init: &[Val],
        body: &Block,
    ) {
        let head = self.new_label("loop");
        let latch = format!("{head}.latch");
        let exit = format!("{head}.exit");
        let before = self.label.clone();
        let known = |v: Val| self.uniform[v.index()].map(u64::cast_signed);
        let entered = known(lo).zip(known(hi)).is_some_and(|(l, h)| l < h);
        let (lo, hi, step) = (self.name(lo), self.name(hi), self.name(step));
        let init: Vec<String> = init.iter().map(|v| self.name(*v)).collect();
        if entered {
            self.line(format!("br label %{head}"));
        } else {
            let guard = self.def(format!("icmp slt i64 {lo}, {hi}"));
            self.line(format!("br i1 {guard}, label %{head}, label %{exit}"));
        }
        for (i, p) in body.params.iter().enumerate() {
            self.bind(*p, format!("%{head}.p{i}"));
        }
        let text = self.aside(|e| {
            e.label.clone_from(&head);
            e.block(body);
            e.line(format!("br label %{latch}"));
            e.start(&latch);
            let iv = e.name(body.params[0]);
            e.line(format!("%{head}.next = add nsw i64 {iv}, {step}"));
            let again = e.def(format!("icmp slt i64 %{head}.next, {hi}"));
            e.line(format!("br i1 {again}, label %{head}, label %{exit}"));
        });
        self.start(&head);
        self.line(format!("%{head}.p0 = phi i64 [ {lo}, %{before} ], [ %{head}.next, %{latch} ]"));
        for (i, (p, y)) in body.params[1..].iter().zip(&body.yields).enumerate() {
            let (t, y) = (ty(self.ty_of(*p)), self.name(*y));
            let first = &init[i];
            self.line(format!("%{head}.p{} = phi {t} [ {first}, %{before} ], [ {y}, %{latch} ]", i + 1));
        }
        self.out.push_str(&text);
        self.start(&exit);
        for (i, (o, y)) in outs.iter().zip(&body.yields).enumerate() {
            let (t, y) = (ty(self.ty_of(*o)), self.name(*y));
            let first = if entered { String::new() } else { format!("[ {}, %{before} ], ", init[i]) };
            let name = self.def(format!("phi {t} {first}[ {y}, %{latch} ]"));
            self.bind(*o, name);
        }
    }

    pub(super) fn branch(&mut self, outs: &[Val], cond: Val, then: &Block, other: &Block) {
        let yes = self.new_label("then");
        let no = self.new_label("else");
        let join = self.new_label("join");
        self.line(format!("br i1 {}, label %{yes}, label %{no}", self.name(cond)));
        let mut ends = Vec::new();
        for (label, arm) in [(&yes, then), (&no, other)] {
            self.start(label);
            self.block(arm);
            self.line(format!("br label %{join}"));
            ends.push(self.label.clone());
        }
        self.start(&join);
        for (i, o) in outs.iter().enumerate() {
            let (a, b) = (self.name(then.yields[i]), self.name(other.yields[i]));
            let t = ty(self.ty_of(*o));
            let name = self.def(format!("phi {t} [ {a}, %{} ], [ {b}, %{} ]", ends[0], ends[1]));
            self.bind(*o, name);
        }
    }

    pub(super) fn while_loop(&mut self, outs: &[Val], init: &[Val], cond: &Block, body: &Block) {
        let head = self.new_label("while");
        let (work, latch, exit) = (format!("{head}.body"), format!("{head}.latch"), format!("{head}.exit"));
        let before = self.label.clone();
        self.line(format!("br label %{head}"));
        let init: Vec<String> = init.iter().map(|v| self.name(*v)).collect();
        for (i, (c, b)) in cond.params.iter().zip(&body.params).enumerate() {
            self.bind(*c, format!("%{head}.p{i}"));
            self.bind(*b, format!("%{head}.p{i}"));
        }
        let text = self.aside(|e| {
            e.label.clone_from(&head);
            e.block(cond);
            e.line(format!("br i1 {}, label %{work}, label %{exit}", e.name(cond.yields[0])));
            e.start(&work);
            e.block(body);
            e.line(format!("br label %{latch}"));
            e.start(&latch);
            e.line(format!("br label %{head}"));
        });
        self.start(&head);
        for (i, (p, y)) in cond.params.iter().zip(&body.yields).enumerate() {
            let (t, y, first) = (ty(self.ty_of(*p)), self.name(*y), &init[i]);
            self.line(format!("%{head}.p{i} = phi {t} [ {first}, %{before} ], [ {y}, %{latch} ]"));
        }
        self.out.push_str(&text);
        self.start(&exit);
        for (i, o) in outs.iter().enumerate() {
            self.bind(*o, format!("%{head}.p{i}"));
        }
    }

    /// The error word is the first `i32` of the context.
    pub(super) fn error_if(&mut self, cond: Val, code: i32) {
        let label = self.new_label("error");
        let weights = self.md.add("!{!\"branch_weights\", i32 1, i32 2000}");
        self.line(format!(
            "br i1 {}, label %{label}, label %{label}.after, !prof {weights}",
            self.name(cond)
        ));
        self.start(&label);
        self.line(format!("store i32 {code}, ptr %ctx, align 4"));
        self.line(format!("br label %{label}.after"));
        self.start(&format!("{label}.after"));
    }
}
