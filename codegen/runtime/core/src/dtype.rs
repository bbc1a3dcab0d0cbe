//! Element types, numbered as in ONNX `TensorProto.DataType`.
use core::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $size:literal;)*) => {
        /// The element type of a tensor. The discriminants are those of ONNX `TensorProto.DataType`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DType { $($(#[$doc])* $variant = $code),* }

        impl DType {
            /// Every element type, in the order of the codes.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            /// The type with this ONNX code.
            pub const fn from_code(code: u32) -> Option<DType> {
                match code { $($code => Some(DType::$variant),)* _ => None }
            }

            /// The name used in the text formats, such as `f32`.
            pub const fn name(self) -> &'static str {
                match self { $(DType::$variant => $name),* }
            }

            /// Bytes one element takes in memory. Types below 8 bits take one byte an element; strings are not
            /// stored in tensors of bytes and have size 0.
            pub const fn size(self) -> usize {
                match self { $(DType::$variant => $size),* }
            }
        }
    };
}

dtypes! {
    F32 = 1, "f32", 4;
    U8 = 2, "u8", 1;
    I8 = 3, "i8", 1;
    U16 = 4, "u16", 2;
    I16 = 5, "i16", 2;
    I32 = 6, "i32", 4;
    I64 = 7, "i64", 8;
    String = 8, "string", 0;
    Bool = 9, "bool", 1;
    F16 = 10, "f16", 2;
    F64 = 11, "f64", 8;
    U32 = 12, "u32", 4;
    U64 = 13, "u64", 8;
    Complex64 = 14, "c64", 8;
    Complex128 = 15, "c128", 16;
    BF16 = 16, "bf16", 2;
    F8E4M3FN = 17, "f8e4m3fn", 1;
    F8E4M3FNUZ = 18, "f8e4m3fnuz", 1;
    F8E5M2 = 19, "f8e5m2", 1;
    F8E5M2FNUZ = 20, "f8e5m2fnuz", 1;
    U4 = 21, "u4", 1;
    I4 = 22, "i4", 1;
    F4E2M1 = 23, "f4e2m1", 1;
    F8E8M0 = 24, "f8e8m0", 1;
    U2 = 25, "u2", 1;
    I2 = 26, "i2", 1;
}

impl DType {
    /// The ONNX code.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The name ONNX uses inside `tensor(...)`, such as `float`.
    pub const fn onnx_name(self) -> &'static str {
        match self {
            DType::F32 => "float",
            DType::U8 => "uint8",
            DType::I8 => "int8",
            DType::U16 => "uint16",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::String => "string",
            DType::Bool => "bool",
            DType::F16 => "float16",
            DType::F64 => "double",
            DType::U32 => "uint32",
            DType::U64 => "uint64",
            DType::Complex64 => "complex64",
            DType::Complex128 => "complex128",
            DType::BF16 => "bfloat16",
            DType::F8E4M3FN => "float8e4m3fn",
            DType::F8E4M3FNUZ => "float8e4m3fnuz",
            DType::F8E5M2 => "float8e5m2",
            DType::F8E5M2FNUZ => "float8e5m2fnuz",
            DType::U4 => "uint4",
            DType::I4 => "int4",
            DType::F4E2M1 => "float4e2m1",
            DType::F8E8M0 => "float8e8m0",
            DType::U2 => "uint2",
            DType::I2 => "int2",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for &d in DType::ALL {
            assert_eq!(DType::from_code(d.code()), Some(d));
        }
        assert_eq!(DType::from_code(0), None);
        assert_eq!(DType::from_code(27), None);
    }
}
