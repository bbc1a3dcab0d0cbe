use super::*;
use crate::tensor::Data;

fn tensor(values: &[i64]) -> OnnxValue {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    OnnxValue::Tensor(Dense {
        dtype: DataType::Int64,
        dims: vec![values.len() as u64],
        data: Data::Bytes(data.into()),
    })
}

#[test]
fn every_kind_survives_a_file() {
    let strings = MapKeys::Strings(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
    let values = [
        (Root::Tensor, tensor(&[1, -2])),
        (Root::Sequence, OnnxValue::Sequence(vec![])),
        (Root::Sequence, OnnxValue::Sequence(vec![tensor(&[1]), tensor(&[])])),
        (Root::Sequence, OnnxValue::Sequence(vec![OnnxValue::Sequence(vec![tensor(&[4])])])),
        (Root::Optional, OnnxValue::Optional(None)),
        (Root::Optional, OnnxValue::Optional(Some(Box::new(tensor(&[3]))))),
        (Root::Optional, OnnxValue::Optional(Some(Box::new(OnnxValue::Sequence(vec![tensor(&[3])]))))),
        (Root::Map, OnnxValue::Map(strings.clone(), vec![tensor(&[1]), tensor(&[2])])),
        (Root::Map, OnnxValue::Map(MapKeys::Ints(DataType::Int64, vec![5]), vec![tensor(&[1])])),
        (
            Root::Sequence,
            OnnxValue::Sequence(vec![OnnxValue::Map(strings, vec![tensor(&[1]), tensor(&[2])])]),
        ),
    ];
    for (root, value) in values {
        let bytes = Bytes::from(value.encode("v").unwrap());
        assert_eq!(decode_value(root, &bytes, &Limits::default()).unwrap(), value);
    }
}

#[test]
fn inconsistent_values_are_rejected() {
    let mixed = OnnxValue::Sequence(vec![tensor(&[1]), OnnxValue::Optional(None)]);
    assert_eq!(mixed.encode("v").unwrap_err().id, "value-kind");
    let map = MapProto { key_type: Some(DataType::Int64 as i32), keys: vec![1, 2], ..MapProto::default() };
    let bytes = Bytes::from(map.encode_to_vec());
    assert_eq!(decode_value(Root::Map, &bytes, &Limits::default()).unwrap_err().id, "value-kind");
    let map = MapProto { key_type: Some(DataType::Float as i32), ..MapProto::default() };
    let bytes = Bytes::from(map.encode_to_vec());
    assert_eq!(decode_value(Root::Map, &bytes, &Limits::default()).unwrap_err().id, "value-kind");
}
