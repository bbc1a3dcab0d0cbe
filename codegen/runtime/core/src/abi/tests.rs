use super::*;
use crate::cpu::Isa;
use crate::image::{self, Arch, Variant};
use crate::plan::*;
use alloc::string::String;
use alloc::vec;

/// Copies 4-byte elements `lo..hi` from the first argument to the second.
const COPY: [u8; 24] = [
    0x48, 0x8b, 0x07, 0x48, 0x8b, 0x7f, 0x08, 0x48, 0x39, 0xd6, 0x7d, 0x0b, 0x8b, 0x0c, 0xb0, 0x89, 0x0c,
    0xb7, 0x48, 0xff, 0xc6, 0xeb, 0xf0, 0xc3,
];

fn copy_plan() -> Plan {
    let mut pool = ExprPool::new();
    let n = pool.sym(SymId(0));
    let one = pool.constant(1);
    let slot = |place| Slot { kind: SlotKind::Tensor { dtype: DType::F32, dims: vec![n] }, place };
    let ty = ValueType::Tensor(DType::F32);
    let port =
        |name: &str, s| Port { name: name.into(), ty: ty.clone(), dims: Some(vec![n]), slot: SlotId(s) };
    let args = vec![Arg::Slot(SlotId(0)), Arg::Slot(SlotId(1))];
    Plan {
        meta: Meta { name: "copy".into(), ..Meta::default() },
        symbols: vec![Symbol { name: "n".into(), min: 0, max: 8, values: vec![] }],
        exprs: pool.finish(),
        slots: vec![slot(Place::Input(0)), slot(Place::Output(0))],
        inputs: vec![port("x", 0)],
        outputs: vec![port("y", 1)],
        blocks: vec![Block {
            steps: vec![Step::Launch { kernel: KernelId(0), args, extent: n, grain: one, round: None }],
        }],
        kernels: vec![KernelDecl { name: "copy".into(), params: 2, nodes: vec![], flops: None, bytes: None }],
        ..Plan::default()
    }
}

fn text(b: &[u8]) -> String {
    let end = b.iter().position(|&c| c == 0).expect("ends with a zero byte");
    String::from_utf8(b[..end].to_vec()).expect("UTF-8")
}

#[test]
fn the_table_works_as_from_c() {
    let v = Variant { isa: Isa::Base, code: &COPY, text_len: COPY.len(), entries: vec![0] };
    let parts = image::build(&copy_plan(), 0, Arch::X86_64, &[v]).expect("builds");
    let mut pages = crate::sys::Pages::new(parts.code.len()).expect("memory");
    pages.bytes()[..parts.code.len()].copy_from_slice(&parts.code);
    let code = pages.make_executable().expect("allowed");
    let d = ModelDescriptor {
        table: AtomicPtr::default(),
        data: parts.head.as_ptr(),
        data_len: parts.head.len(),
        code: code.ptr(),
        code_len: parts.code.len(),
    };
    let mut error = [1u8; 200];
    let (e, len) = (error.as_mut_ptr().cast::<c_char>(), error.len());
    // SAFETY: the calls below keep the contract of `planish.h`.
    unsafe {
        let m = &*planish_rt_model_v1(&d);
        assert!(ptr::eq(m, planish_rt_model_v1(&d)));
        assert_eq!((m.abi, m.inputs, m.outputs), (1, 1, 1));
        assert_eq!(core::ffi::CStr::from_ptr(m.name).to_bytes(), b"copy");
        let n = (m.describe)(m, ptr::null_mut(), 0);
        let mut json = vec![1u8; n];
        assert_eq!((m.describe)(m, json.as_mut_ptr().cast(), n), n);
        assert!(text(&json).starts_with("{\"schema\":\"planish.describe\""));
        let pool = (m.pool_create)(2);
        let options =
            Options { size: size_of::<Options>() as u32, threads: 0, pool, max_steps: 0, max_memory: 0 };
        let mut s = ptr::null_mut();
        assert_eq!((m.create)(m, &options, &mut s, e, len), 0);
        let dims = [3i64];
        let mut shape = Shape { dtype: 1, rank: 1, dims: dims.as_ptr() };
        assert_eq!((m.output_shape)(s, 0, &mut shape), ErrorKind::Input as i32);
        assert_eq!((m.bind)(s, &shape, 1, e, len), 0);
        let mut out = Shape { dtype: 0, rank: 0, dims: ptr::null() };
        assert_eq!((m.output_shape)(s, 0, &mut out), 0);
        assert_eq!((out.dtype, out.rank, *out.dims), (1, 1, 3));
        let x = [1f32, 2.0, 3.0];
        let mut y = [0f32; 3];
        let input = Buffer { data: x.as_ptr().cast_mut().cast(), bytes: 12 };
        let mut output = Buffer { data: y.as_mut_ptr().cast(), bytes: 12 };
        assert_eq!((m.run)(s, &input, 1, &mut output, 1, e, len), 0);
        assert_eq!((y, output.bytes), (x, 12));
        let mut own = Buffer { data: ptr::null_mut(), bytes: 0 };
        assert_eq!((m.run)(s, &input, 1, &mut own, 1, e, len), 0);
        assert_eq!(core::slice::from_raw_parts(own.data.cast::<f32>(), own.bytes / 4), x);
        let mut small = Buffer { data: y.as_mut_ptr().cast(), bytes: 11 };
        assert_eq!((m.run)(s, &input, 1, &mut small, 1, e, 12), ErrorKind::Buffer as i32);
        assert_eq!(text(core::slice::from_raw_parts(e.cast(), 12)), "the output ");
        assert_eq!((m.run)(s, &input, 2, &mut output, 1, e, len), ErrorKind::Input as i32);
        assert_eq!((m.add_state)(s, 0, 0, e, len), 0);
        let none = Shape { dtype: 0, rank: 0, dims: ptr::null() };
        assert_eq!((m.bind)(s, &none, 1, e, len), 0);
        (m.reset)(s);
        let large = [9i64];
        shape.dims = large.as_ptr();
        assert_eq!((m.bind)(s, &shape, 1, e, len), ErrorKind::Input as i32);
        assert!(text(core::slice::from_raw_parts(e.cast(), len)).contains("outside the range 0..=8"));
        (m.destroy)(s);
        (m.pool_destroy)(pool);
    }
}

#[test]
fn the_header_agrees_with_the_table() {
    assert!(HEADER.contains(&alloc::format!("#define PLANISH_ABI {ABI_VERSION}")));
    // Two integers, a name, two counts and ten functions.
    assert_eq!(PUBLIC_SIZE, 8 + 8 + 8 + 10 * 8);
}
