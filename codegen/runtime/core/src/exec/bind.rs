//! Binding the shapes of inputs, and what follows from them: symbols, dims of outputs, the layout of the arena.
use super::session::{Desc, LAYOUTS, check_desc};
use super::{Program, Session};
use crate::arena::{self, Want};
use crate::error::{Result, fail};
use crate::object::dense_bytes;
use crate::plan::{Expr, Port, SymId, Symbol, ValueType};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// What a free dim of a state is that nobody has given, as near as its range allows: 0 where each run makes it longer,
/// as in a cache; else 1, as in the batch of a stream.
fn first_size(s: &Symbol, grows: bool) -> i64 {
    let min = s.min.max(0);
    let size = i64::from(!grows).clamp(min, s.max.max(min));
    if s.allows(size) { size } else { s.values.first().copied().unwrap_or(size) }
}

impl Session {
    /// With `resume`, a state that the session feeds in the next run has the dims of what it holds.
    pub(super) fn bind_dims(&mut self, p: &Program, descs: &[Option<Desc>], resume: bool) -> Result<()> {
        for s in 0..p.plan.symbols.len() {
            self.exprs.set(&p.plan.exprs, SymId(s as u32), None);
        }
        let mut shapes: Vec<Option<Vec<i64>>> = vec![None; descs.len()];
        for (i, (port, desc)) in p.plan.inputs.iter().zip(descs).enumerate() {
            let state = self.states.iter().find(|s| s.input == i);
            let held =
                state.and_then(|s| s.dims.clone()).filter(|_| resume && self.inputs[i].external.is_none());
            shapes[i] = match (desc, state) {
                _ if !port.ty.is_dense() => None,
                _ if held.is_some() => held,
                (Some(d), _) => {
                    check_desc(port, d)?;
                    Some(d.dims.clone())
                }
                (None, Some(s)) => s.dims.clone(),
                (None, None) => fail!(Input, "the input {:?} is missing", port.name),
            };
            if let Some(dims) = &shapes[i] {
                self.bind_symbols(p, port, dims)?;
            }
        }
        // A state that is zero so far takes its shape from the other inputs. Where they do not say, it is a guess:
        // operations refuse it where it does not fit.
        for (i, port) in p.plan.inputs.iter().enumerate() {
            if !port.ty.is_dense() || shapes[i].is_some() {
                continue;
            }
            let output = self.states.iter().find(|s| s.input == i).map(|s| &p.plan.outputs[s.output]);
            for (axis, &d) in port.dims.iter().flatten().enumerate() {
                if let Expr::Sym(s) = p.plan.exprs[d.index()]
                    && self.exprs.symbol(s).is_none()
                {
                    let next = output.and_then(|o| o.dims.as_ref()?.get(axis).copied());
                    let grows = next.is_some_and(|e| e != d && self.exprs.deps(e).contains(&s));
                    self.exprs.set(&p.plan.exprs, s, Some(first_size(&p.plan.symbols[s.index()], grows)));
                }
            }
            shapes[i] = Some(port.dims.iter().flatten().map(|&d| self.eval(p, d)).collect::<Result<_>>()?);
        }
        for (port, dims) in p.plan.inputs.iter().zip(&shapes) {
            let Some(dims) = dims else { continue };
            for (axis, (&e, &d)) in port.dims.iter().flatten().zip(dims).enumerate() {
                let want = self.eval(p, e)?;
                if want != d {
                    fail!(
                        Input,
                        "the input {:?} has {d} at axis {axis}, but {} = {want} is needed",
                        port.name,
                        p.plan.show_expr(e)
                    );
                }
            }
        }
        for (i, dims) in shapes.into_iter().enumerate() {
            let port = &p.plan.inputs[i];
            let ValueType::Tensor(dtype) = port.ty else { continue };
            let Some(dims) = dims else { continue };
            match dense_bytes(dtype, &dims) {
                Some(n) => self.inputs[i].bytes = n as usize,
                None => fail!(Input, "the input {:?} of shape {dims:?} is too large", port.name),
            }
            self.inputs[i].dims = dims;
        }
        self.place_arena(p)?;
        for o in 0..self.outputs.len() {
            self.outputs[o].dims.clear();
            if p.known_outputs[o] {
                for &d in p.plan.outputs[o].dims.iter().flatten() {
                    let v = self.eval(p, d)?;
                    self.outputs[o].dims.push(v);
                }
            }
        }
        Ok(())
    }

    fn bind_symbols(&mut self, p: &Program, port: &Port, dims: &[i64]) -> Result<()> {
        for (axis, (&e, &d)) in port.dims.iter().flatten().zip(dims).enumerate() {
            let Expr::Sym(s) = p.plan.exprs[e.index()] else { continue };
            let sym = &p.plan.symbols[s.index()];
            if !sym.values.is_empty() && !sym.allows(d) {
                fail!(
                    Input,
                    "the input {:?} has {d} at axis {axis}, but the model was compiled for {} only",
                    port.name,
                    sym.allowed()
                );
            }
            if !sym.allows(d) {
                let range = (sym.min, sym.max);
                fail!(
                    Input,
                    "the input {:?} has {d} at axis {axis}, outside the range {}..={} of {:?}",
                    port.name,
                    range.0,
                    range.1,
                    sym.name
                );
            }
            match self.exprs.symbol(s) {
                Some(v) if v != d => fail!(
                    Input,
                    "the input {:?} has {d} at axis {axis}, but {:?} is {v} in another place",
                    port.name,
                    sym.name
                ),
                _ => self.exprs.set(&p.plan.exprs, s, Some(d)),
            }
        }
        Ok(())
    }

    fn place_arena(&mut self, p: &Program) -> Result<()> {
        let mut wants = Vec::with_capacity(p.arena.len());
        for a in &p.arena {
            let bytes = self.eval(p, a.bytes)?;
            let Ok(bytes) = u64::try_from(bytes) else { fail!(Data, "a tensor would get {bytes} bytes") };
            wants.push(Want { bytes, first: a.first, last: a.last });
        }
        let layout = match self.layouts.iter().position(|(w, _)| *w == wants) {
            Some(k) => {
                let found = self.layouts.remove(k);
                self.layouts.push(found);
                self.layouts[self.layouts.len() - 1].1.clone()
            }
            None => {
                let Some(l) = arena::plan(&wants) else {
                    fail!(Memory, "the model needs more than 2^63 bytes")
                };
                let l = Arc::new(l);
                if self.layouts.len() == LAYOUTS {
                    self.layouts.remove(0);
                }
                self.layouts.push((wants.clone(), l.clone()));
                l
            }
        };
        let total = usize::try_from(layout.total).unwrap_or(usize::MAX);
        if total > self.options.max_memory {
            fail!(
                Memory,
                "the model needs {total} bytes of memory, above the limit of {}",
                self.options.max_memory
            );
        }
        self.arena.reserve(total)?;
        for (k, w) in wants.iter().enumerate() {
            self.offsets[k] = layout.offsets[k] as usize;
            self.arena_bytes[k] = w.bytes as usize;
        }
        self.layout += 1;
        Ok(())
    }
}
