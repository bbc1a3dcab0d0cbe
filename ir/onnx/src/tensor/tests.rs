use super::*;
use DataType::*;

fn read(t: &TensorProto) -> Result<Dense, &'static str> {
    let mut external = ExternalData::none();
    TensorReader::new(&mut external, &Limits::default()).dense(t).map_err(|e| e.id)
}

fn raw(dtype: DataType, dims: &[i64], data: &[u8]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(dtype as i32),
        raw_data: Some(Bytes::copy_from_slice(data)),
        ..TensorProto::default()
    }
}

fn int32(dtype: DataType, dims: &[i64], data: &[i32]) -> TensorProto {
    TensorProto { raw_data: None, int32_data: data.to_vec(), ..raw(dtype, dims, &[]) }
}

fn bytes(d: &Dense) -> &[u8] {
    match &d.data {
        Data::Bytes(b) => b,
        Data::Strings(_) => panic!("strings"),
    }
}

#[test]
fn low_bit_elements_take_a_byte_each() {
    let cases: [(DataType, &[u8], &[u8]); 7] = [
        (Uint4, &[0x21, 0x0f], &[1, 2, 15]),
        (Int4, &[0x8f, 0x07], &[0xff, 0xf8, 7]),
        (Float4e2m1, &[0xf1, 0x03], &[1, 15, 3]),
        (Uint2, &[0b00_10_01_11], &[3, 1, 2]),
        (Int2, &[0b00_10_01_11], &[0xff, 1, 0xfe]),
        // x0 = 1, x1 = 62, x2 = 43
        (Float6e2m3, &[0x81, 0xbf, 0x02], &[1, 62, 43]),
        (Float6e3m2, &[0x81, 0xbf, 0x02], &[1, 62, 43]),
    ];
    for (dtype, packed, unpacked) in cases {
        let dense = read(&raw(dtype, &[3], packed)).unwrap();
        assert_eq!(bytes(&dense), unpacked, "{dtype:?}");
        assert_eq!(dense.file_bytes().unwrap(), packed, "{dtype:?}");
        let mut long = packed.to_vec();
        long.push(0);
        assert_eq!(read(&raw(dtype, &[3], &long)), Err("tensor-length"), "{dtype:?}");
    }
    assert_eq!(bytes(&read(&int32(Int4, &[3], &[0x8f, 0x07])).unwrap()), [0xff, 0xf8, 7]);
    assert_eq!(bytes(&read(&int32(Float6e2m3, &[3], &[1, 62, 43])).unwrap()), [1, 62, 43]);
    assert_eq!(read(&int32(Float6e2m3, &[1], &[64])), Err("tensor-value"));
}

#[test]
fn typed_fields_of_every_width() {
    assert_eq!(bytes(&read(&int32(Int8, &[2], &[-1, 5])).unwrap()), [0xff, 5]);
    assert_eq!(bytes(&read(&int32(Bool, &[2], &[1, 0])).unwrap()), [1, 0]);
    assert_eq!(bytes(&read(&int32(Float16, &[1], &[0x3c00])).unwrap()), [0, 0x3c]);
    assert_eq!(bytes(&read(&int32(Int16, &[1], &[-2])).unwrap()), [0xfe, 0xff]);
    assert_eq!(bytes(&read(&int32(Int32, &[1], &[-2])).unwrap()), (-2i32).to_le_bytes());
    assert_eq!(bytes(&read(&int32(Float8e4m3fn, &[1], &[0x7e])).unwrap()), [0x7e]);
    assert_eq!(read(&int32(Uint8, &[1], &[256])), Err("tensor-value"));
    assert_eq!(read(&int32(Uint8, &[2], &[1])), Err("tensor-length"));
    let base = raw(Float, &[], &[]);
    let typed =
        |dtype: DataType| TensorProto { data_type: Some(dtype as i32), raw_data: None, ..base.clone() };
    let t = TensorProto { float_data: vec![1.5], ..typed(Float) };
    assert_eq!(bytes(&read(&t).unwrap()), 1.5f32.to_le_bytes());
    let t = TensorProto { float_data: vec![1.5, 2.0], ..typed(Complex64) };
    assert_eq!(bytes(&read(&t).unwrap()).len(), 8);
    let t = TensorProto { double_data: vec![1.5], ..typed(Double) };
    assert_eq!(bytes(&read(&t).unwrap()), 1.5f64.to_le_bytes());
    let t = TensorProto { uint64_data: vec![1 << 33], ..typed(Uint64) };
    assert_eq!(bytes(&read(&t).unwrap()), (1u64 << 33).to_le_bytes());
    assert_eq!(read(&TensorProto { data_type: Some(Uint32 as i32), ..t }), Err("tensor-value"));
    let t = TensorProto { int64_data: vec![-1], ..typed(Int64) };
    assert_eq!(bytes(&read(&t).unwrap()), [0xff; 8]);
    let t = TensorProto { string_data: vec![Bytes::from_static(b"a")], ..typed(String) };
    assert_eq!(read(&t).unwrap().data, Data::Strings(vec![Bytes::from_static(b"a")]));
}

#[test]
fn shape_and_data_must_agree() {
    assert_eq!(read(&raw(Float, &[64, 64], &[0; 8])), Err("tensor-length"));
    assert_eq!(read(&raw(Float, &[1 << 31, 1 << 31, 4], &[0; 8])), Err("limit-elements"));
    assert_eq!(read(&raw(Float, &[1 << 62, 1 << 62, 0], &[])), Err("limit-elements"));
    assert_eq!(read(&raw(Double, &[1 << 34], &[])), Err("limit-tensor-bytes"));
    assert_eq!(read(&raw(Float, &[-4], &[0; 16])), Err("tensor-negative-dim"));
    assert_eq!(read(&raw(Float, &[1; 17], &[0; 4])), Err("limit-rank"));
    assert_eq!(read(&TensorProto { data_type: Some(99), ..raw(Float, &[], &[]) }), Err("tensor-dtype"));
    assert_eq!(read(&raw(Undefined, &[0], &[])), Err("tensor-dtype"));
    assert_eq!(bytes(&read(&raw(Float, &[0, 3], &[])).unwrap()), []);
    assert_eq!(bytes(&read(&raw(Bool, &[3], &[0, 1, 7])).unwrap()), [0, 1, 1]);
}

#[test]
fn raw_data_is_not_copied() {
    let t = raw(Float, &[2], &[1, 2, 3, 4, 5, 6, 7, 8]);
    let dense = read(&t).unwrap();
    assert_eq!(bytes(&dense).as_ptr(), t.raw_data.as_ref().unwrap().as_ptr());
}

fn sparse(dims: &[i64], values: &[u8], index_dims: &[i64], indices: &[i64]) -> Result<Dense, &'static str> {
    let sparse = SparseTensorProto {
        values: Some(raw(Uint8, &[values.len() as i64], values)),
        indices: Some(TensorProto {
            int64_data: indices.to_vec(),
            raw_data: None,
            ..raw(Int64, index_dims, &[])
        }),
        dims: dims.to_vec(),
    };
    let mut external = ExternalData::none();
    TensorReader::new(&mut external, &Limits::default()).sparse(&sparse).map_err(|e| e.id)
}

#[test]
fn sparse_tensors_become_dense() {
    let by_axis = sparse(&[2, 3], &[7, 8], &[2, 2], &[0, 1, 1, 2]).unwrap();
    let linear = sparse(&[2, 3], &[7, 8], &[2], &[1, 5]).unwrap();
    assert_eq!(bytes(&by_axis), [0, 7, 0, 0, 0, 8]);
    assert_eq!(by_axis, linear);
    assert_eq!(bytes(&sparse(&[4], &[7], &[1, 1], &[2]).unwrap()), [0, 0, 7, 0]);
    assert_eq!(bytes(&sparse(&[2], &[], &[0], &[]).unwrap()), [0, 0]);
}

#[test]
fn sparse_indices_are_checked() {
    assert_eq!(sparse(&[2, 3], &[7], &[1], &[6]), Err("sparse-tensor"));
    assert_eq!(sparse(&[2, 3], &[7], &[1], &[-1]), Err("sparse-tensor"));
    assert_eq!(sparse(&[2, 3], &[7], &[1, 2], &[0, 3]), Err("sparse-tensor"));
    assert_eq!(sparse(&[2, 3], &[7, 8], &[2], &[1, 1]), Err("sparse-tensor"));
    assert_eq!(sparse(&[2, 3], &[7, 8], &[2], &[2, 1]), Err("sparse-tensor"));
    assert_eq!(sparse(&[2, 3], &[7], &[1, 3], &[0, 0, 0]), Err("sparse-tensor"));
    assert_eq!(sparse(&[1 << 33], &[7], &[1], &[0]), Err("limit-memory"));
    assert_eq!(sparse(&[1 << 33, 0], &[7], &[1, 2], &[0, 0]), Err("sparse-tensor"));
}

#[test]
fn encoding_is_the_inverse_of_decoding() {
    for dtype in [Uint4, Int4, Float4e2m1, Uint2, Int2, Float6e2m3, Float6e3m2] {
        for len in 0..9 {
            let packed: Vec<u8> = (0..stored_bytes(dtype, len)).map(|i| (i * 37 + 11) as u8).collect();
            let dense = read(&raw(dtype, &[len as i64], &packed)).unwrap();
            assert_eq!(read(&dense.to_proto("x")).unwrap(), dense, "{dtype:?} {len}");
        }
    }
}
