//! Loads and stores.

use super::masks::Fixed;
use super::{Emitter, Mem, constant, elem_ty, mem_elem, suffix, ty, vec_ty};
use planish_codegen::kernel::{Buf, Elem, Ty, Val};

impl Emitter<'_> {
    fn ptr_ty(m: &Mem) -> String {
        if m.space == 0 { "ptr".into() } else { format!("ptr addrspace({})", m.space) }
    }

    /// Address of element `idx` (operand text of type `i64` or a vector of integers).
    fn address(&mut self, m: &Mem, e: Elem, idx_ty: &str, idx: &str) -> String {
        let e = elem_ty(mem_elem(e));
        self.def(format!("getelementptr {e}, {} {}, {idx_ty} {idx}", Self::ptr_ty(m), m.ptr))
    }

    /// Register from memory form.
    fn loaded(&mut self, v: String, t: Ty) -> String {
        if t.elem != Elem::I1 {
            return v;
        }
        let bytes = t.with_elem(Elem::I8);
        self.def(format!("icmp ne {} {v}, {}", ty(bytes), constant(bytes, &[0])))
    }

    /// Memory form of a register.
    fn stored(&mut self, v: String, t: Ty) -> String {
        if t.elem != Elem::I1 {
            return v;
        }
        self.def(format!("zext {} {v} to {}", ty(t), ty(t.with_elem(Elem::I8))))
    }

    /// A mask or pass-through as a vector even where it has one lane.
    fn as_vector(&mut self, v: String, t: Ty) -> String {
        if !t.is_scalar() {
            return v;
        }
        self.def(format!("bitcast {0} {v} to <1 x {0}>", elem_ty(t.elem)))
    }

    fn always_vec(t: Ty) -> (String, String) {
        let name = format!("<{} x {}>", t.lanes, elem_ty(t.elem));
        let suffix = if t.is_scalar() { format!("v1{}", suffix(t)) } else { suffix(t) };
        (name, suffix)
    }

    fn mask_arg(&mut self, m: Val) -> (String, String) {
        let t = self.ty_of(m);
        let v = self.as_vector(self.name(m), t);
        (format!("<{} x i1>", t.lanes), v)
    }

    fn scalar_of(&mut self, v: String, t: Ty) -> String {
        if !t.is_scalar() {
            return v;
        }
        self.def(format!("bitcast <1 x {0}> {v} to {0}", elem_ty(t.elem)))
    }

    pub(super) fn load(&mut self, buf: Buf, idx: Val, align: u32, mask: Option<(Val, Val)>, t: Ty) -> String {
        let m = self.mem(buf);
        let at = self.address(&m, t.elem, "i64", &self.name(idx));
        let mt = t.with_elem(mem_elem(t.elem));
        let Some((mask, pass)) = mask else {
            let v =
                self.def(format!("load {}, {} {at}, align {align}{}", ty(mt), Self::ptr_ty(&m), m.load_md));
            return self.loaded(v, t);
        };
        let pass = self.stored(self.name(pass), t);
        let pass = self.as_vector(pass, mt);
        let (vt, vs) = Self::always_vec(mt);
        let ptr = (format!("{} align {align}", Self::ptr_ty(&m)), at);
        let mask = self.mask_arg(mask);
        let name = format!("llvm.masked.load.{vs}.p{}", m.space);
        let text = self.call_text(&vt, &name, &[ptr, mask, (vt.clone(), pass)]);
        let v = self.def(format!("{text}{}", m.load_md));
        let v = self.scalar_of(v, mt);
        self.loaded(v, t)
    }

    pub(super) fn store(&mut self, buf: Buf, idx: Val, val: Val, align: u32, mask: Option<Val>) {
        let m = self.mem(buf);
        let t = self.ty_of(val);
        let at = self.address(&m, t.elem, "i64", &self.name(idx));
        let v = self.stored(self.name(val), t);
        let mt = t.with_elem(mem_elem(t.elem));
        let p = Self::ptr_ty(&m);
        let mask = match mask.map(|mask| (mask, self.fixed_mask(mask))) {
            None | Some((_, Some(Fixed::All))) => {
                self.line(format!("store {} {v}, {p} {at}, align {align}{}", ty(mt), m.store_md));
                return;
            }
            Some((_, Some(Fixed::None))) => return,
            Some((_, Some(Fixed::One(lane)))) => {
                let e = elem_ty(mt.elem);
                let at = self.def(format!("getelementptr {e}, {p} {at}, i64 {lane}"));
                let v = self.def(format!("extractelement {} {v}, i64 {lane}", ty(mt)));
                self.line(format!("store {e} {v}, {p} {at}, align {}{}", mt.elem.bytes(), m.store_md));
                return;
            }
            Some((mask, None)) => mask,
        };
        let v = self.as_vector(v, mt);
        let (vt, vs) = Self::always_vec(mt);
        let ptr = (format!("{} align {align}", Self::ptr_ty(&m)), at);
        let mask = self.mask_arg(mask);
        let name = format!("llvm.masked.store.{vs}.p{}", m.space);
        let text = self.call_text("void", &name, &[(vt, v), ptr, mask]);
        self.line(format!("{text}{}", m.store_md));
    }

    /// Vector of addresses and the type of it, for gathers and scatters.
    fn addresses(&mut self, m: &Mem, e: Elem, idx: Val, align: usize) -> (String, String) {
        let it = self.ty_of(idx);
        let at = self.address(m, e, &ty(it), &self.name(idx));
        (format!("<{} x {}> align {align}", it.lanes, Self::ptr_ty(m)), at)
    }

    /// A mask argument, all true without one.
    fn mask_or_all(&mut self, mask: Option<Val>, lanes: u16) -> (String, String) {
        match mask {
            Some(m) => self.mask_arg(m),
            None => (vec_ty("i1", lanes), "splat (i1 true)".into()),
        }
    }

    pub(super) fn gather(&mut self, buf: Buf, idx: Val, mask: Option<(Val, Val)>, t: Ty) -> String {
        let m = self.mem(buf);
        let mt = t.with_elem(mem_elem(t.elem));
        let align = t.elem.bytes();
        if t.is_scalar() {
            let at = self.address(&m, t.elem, &ty(self.ty_of(idx)), &self.name(idx));
            let v = match mask {
                None => self.def(format!(
                    "load {}, {} {at}, align {align}{}",
                    ty(mt),
                    Self::ptr_ty(&m),
                    m.load_md
                )),
                Some((mask, pass)) => {
                    let pass = self.stored(self.name(pass), t);
                    let pass = self.as_vector(pass, mt);
                    let (vt, vs) = Self::always_vec(mt);
                    let mask = self.mask_arg(mask);
                    let ptr = (format!("{} align {align}", Self::ptr_ty(&m)), at);
                    let name = format!("llvm.masked.load.{vs}.p{}", m.space);
                    let v = self.call(&vt, &name, &[ptr, mask, (vt.clone(), pass)]);
                    self.scalar_of(v, mt)
                }
            };
            return self.loaded(v, t);
        }
        let ptrs = self.addresses(&m, t.elem, idx, align);
        let pass = match mask {
            Some((_, p)) => self.stored(self.name(p), t),
            None => "poison".into(),
        };
        let mask = self.mask_or_all(mask.map(|(m, _)| m), t.lanes);
        let name = format!("llvm.masked.gather.{}.v{}p{}", suffix(mt), t.lanes, m.space);
        let text = self.call_text(&ty(mt), &name, &[ptrs, mask, (ty(mt), pass)]);
        let v = self.def(format!("{text}{}", m.load_md));
        self.loaded(v, t)
    }

    pub(super) fn scatter(&mut self, buf: Buf, idx: Val, val: Val, mask: Option<Val>) {
        let m = self.mem(buf);
        let t = self.ty_of(val);
        let mt = t.with_elem(mem_elem(t.elem));
        let align = t.elem.bytes();
        let v = self.stored(self.name(val), t);
        if t.is_scalar() {
            let at = self.address(&m, t.elem, &ty(self.ty_of(idx)), &self.name(idx));
            match mask {
                None => {
                    let p = Self::ptr_ty(&m);
                    self.line(format!("store {} {v}, {p} {at}, align {align}{}", ty(mt), m.store_md));
                }
                Some(mask) => {
                    let v = self.as_vector(v, mt);
                    let (vt, vs) = Self::always_vec(mt);
                    let mask = self.mask_arg(mask);
                    let ptr = (format!("{} align {align}", Self::ptr_ty(&m)), at);
                    self.call_void(&format!("llvm.masked.store.{vs}.p{}", m.space), &[(vt, v), ptr, mask]);
                }
            }
            return;
        }
        let ptrs = self.addresses(&m, t.elem, idx, align);
        let mask = self.mask_or_all(mask, t.lanes);
        let name = format!("llvm.masked.scatter.{}.v{}p{}", suffix(mt), t.lanes, m.space);
        let text = self.call_text("void", &name, &[(ty(mt), v), ptrs, mask]);
        self.line(format!("{text}{}", m.store_md));
    }

    pub(super) fn prefetch(&mut self, buf: Buf, idx: Val) {
        let m = self.mem(buf);
        let at = self.address(&m, self.elem_of(buf), "i64", &self.name(idx));
        let arg = |v: &str| ("i32".to_string(), v.to_string());
        self.call_void(
            &format!("llvm.prefetch.p{}", m.space),
            &[(Self::ptr_ty(&m), at), arg("0"), arg("3"), arg("1")],
        );
    }
}
