//! What surrounds the steps of a run: buffers before, results and states after.
use super::session::{Desc, State};
use super::{Home, Program, Session};
use crate::error::{Result, fail};
use crate::kernel::Ctx;
use crate::object::{Object, dense_bytes};
use crate::plan::{Port, ValueType};
use alloc::sync::Arc;
use core::ptr;

/// A state of so many bytes changes places with the output that it is taken from; a smaller one is copied, because new addresses cost
/// more than the copy.
const SWAPPED: usize = 1 << 16;

impl Session {
    pub(super) fn prepare(&mut self, p: &Program, given: &[Option<Desc>]) -> Result<()> {
        let moved = |s: &State| {
            let i = &self.inputs[s.input];
            i.external.is_none() && s.dims.as_ref().is_some_and(|d| *d != i.dims)
        };
        if self.states.iter().any(moved) {
            self.bind_dims(p, given, true)?;
        }
        for &s in &p.late_syms {
            self.exprs.set(&p.plan.exprs, s, None);
        }
        for i in 0..self.inputs.len() {
            let port = &p.plan.inputs[i];
            if !port.ty.is_dense() {
                let state = self.states.iter().find(|s| s.input == i);
                let value = self.inputs[i].object.clone().or_else(|| state.and_then(|s| s.object.clone()));
                self.objects[port.slot.index()] = match value {
                    Some(v) => Some(v),
                    None => Some(zero_object(port)?),
                };
                continue;
            }
            let bytes = self.inputs[i].bytes;
            let ptr = match (self.inputs[i].external, self.states.iter_mut().find(|s| s.input == i)) {
                (Some((ptr, _)), _) => ptr,
                (None, Some(s)) => {
                    s.buf.reserve(bytes)?;
                    if s.dims.is_none() {
                        // SAFETY: the buffer holds `bytes` bytes.
                        unsafe { ptr::write_bytes(s.buf.ptr(), 0, bytes) };
                    }
                    s.buf.ptr().cast_const()
                }
                (None, None) => fail!(Input, "the input {:?} is missing", port.name),
            };
            let mut ptr = ptr;
            if p.memory.0.is_some() {
                let staged = &mut self.inputs[i].staged;
                staged.reserve(bytes)?;
                // SAFETY: the input holds `bytes` bytes, and so does the buffer.
                unsafe { p.memory.write(staged.ptr(), core::slice::from_raw_parts(ptr, bytes))? };
                ptr = staged.ptr().cast_const();
            }
            if ptr != self.inputs[i].ptr {
                self.inputs[i].ptr = ptr;
                self.pointers += 1;
            }
        }
        for o in 0..self.outputs.len() {
            if !p.known_outputs[o] {
                continue;
            }
            let out = &mut self.outputs[o];
            let bytes = out_bytes(&p.plan.outputs[o], &out.dims)?;
            let (ptr, capacity) = match out.external {
                Some((ptr, capacity)) if capacity >= bytes && p.memory.0.is_none() => (ptr, capacity),
                Some((_, capacity)) if capacity < bytes => {
                    fail!(
                        Buffer,
                        "the output {:?} needs {bytes} bytes, the buffer has {capacity}",
                        p.plan.outputs[o].name
                    )
                }
                _ => {
                    if p.homes[p.plan.outputs[o].slot.index()] == Home::Output(o) {
                        out.own.reserve(bytes)?;
                    }
                    (out.own.ptr(), out.own.capacity())
                }
            };
            if out.ptr != ptr || out.capacity != capacity {
                (out.ptr, out.capacity) = (ptr, capacity);
                self.pointers += 1;
            }
        }
        self.counters.fill(0);
        self.steps_left = self.options.max_steps;
        self.ctx = Ctx::default();
        Ok(())
    }

    pub(super) fn finish(&mut self, p: &Program) -> Result<()> {
        for (o, port) in p.plan.outputs.iter().enumerate() {
            if !port.ty.is_dense() {
                continue;
            }
            let (_, bytes) = self.slot_bytes(p, port.slot)?;
            if !p.known_outputs[o] {
                self.outputs[o].dims.clear();
                for &d in port.dims.iter().flatten() {
                    let v = self.eval(p, d)?;
                    self.outputs[o].dims.push(v);
                }
                // An empty result may never have been written.
                self.ensure(p, port.slot, bytes, bytes)?;
            }
            let (ptr, have) = self.place(p, port.slot)?;
            let out = &mut self.outputs[o];
            if bytes > have {
                fail!(Program, "the output {:?} of {bytes} bytes is in {have} bytes", port.name);
            }
            (out.result, out.bytes) = (ptr, bytes);
            if p.memory.0.is_some() {
                let to = match out.external {
                    Some((to, capacity)) if bytes <= capacity => to,
                    Some((_, capacity)) => {
                        fail!(
                            Buffer,
                            "the output {:?} needs {bytes} bytes, the buffer has {capacity}",
                            port.name
                        )
                    }
                    None => {
                        out.fetched.reserve(bytes)?;
                        out.fetched.ptr()
                    }
                };
                // SAFETY: the slot holds `bytes` bytes and so does the buffer, which nobody else uses during a run.
                unsafe { p.memory.read(core::slice::from_raw_parts_mut(to, bytes), ptr)? };
                out.result = to;
                continue;
            }
            if let Some((to, capacity)) = out.external
                && to != ptr
            {
                if bytes > capacity {
                    fail!(
                        Buffer,
                        "the output {:?} needs {bytes} bytes, the buffer has {capacity}",
                        port.name
                    );
                }
                // SAFETY: the caller's buffer holds `capacity` bytes, the slot `bytes`.
                unsafe { ptr::copy(ptr, to, bytes) };
                out.result = to;
            }
        }
        for k in 0..self.states.len() {
            let (o, i) = (self.states[k].output, self.states[k].input);
            let port = &p.plan.outputs[o];
            if !port.ty.is_dense() {
                self.states[k].object = self.objects[port.slot.index()].clone();
                continue;
            }
            let (result, bytes) = (self.outputs[o].result, self.outputs[o].bytes);
            let s = &mut self.states[k];
            s.buf.reserve(bytes)?;
            let own = &mut self.outputs[o].own;
            if bytes >= SWAPPED && result == own.ptr().cast_const() && p.memory.0.is_none() {
                // The result stays where it is until the next run, which writes to the other buffer.
                core::mem::swap(own, &mut s.buf);
            } else {
                // SAFETY: the output of this run holds `bytes` bytes, and so does the state.
                unsafe { ptr::copy(result, s.buf.ptr(), bytes) };
            }
            let dims = &self.outputs[o].dims;
            if s.dims.as_ref() != Some(dims) {
                s.dims = Some(dims.clone());
            }
            // The next run reads the state even where this one was given its start.
            self.inputs[i].external = None;
        }
        Ok(())
    }
}

fn out_bytes(port: &Port, dims: &[i64]) -> Result<usize> {
    let ValueType::Tensor(dtype) = port.ty else { return Ok(0) };
    match dense_bytes(dtype, dims) {
        Some(n) => Ok(n as usize),
        None => fail!(Data, "the output {:?} would get the shape {dims:?}", port.name),
    }
}

/// What an object input is where the caller gives none: nothing for an optional.
fn zero_object(port: &Port) -> Result<Arc<Object>> {
    match port.ty {
        ValueType::Optional(_) => Ok(Arc::new(Object::Optional(None))),
        _ => fail!(Input, "the input {:?} is missing", port.name),
    }
}
