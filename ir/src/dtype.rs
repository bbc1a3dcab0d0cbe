//! Element types.

use std::fmt;

macro_rules! dtypes {
    ($($variant:ident = $code:literal, $name:literal, $bits:literal;)*) => {
        /// The element type of a tensor. The discriminant is the number of ONNX `TensorProto.DataType`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DType { $(#[doc = $name] $variant = $code,)* }
        impl DType {
            /// Every element type.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];
            /// The name in the text format.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }
            /// Bits of one element in a packed file; 0 for strings.
            pub fn bits(self) -> u32 {
                match self { $(DType::$variant => $bits,)* }
            }
            /// The type with this `TensorProto.DataType` number.
            pub fn from_onnx(code: i32) -> Option<DType> {
                match code { $($code => Some(DType::$variant),)* _ => None }
            }
            /// The type with this name in the text format.
            pub fn parse(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    F32 = 1, "f32", 32;
    U8 = 2, "u8", 8;
    I8 = 3, "i8", 8;
    U16 = 4, "u16", 16;
    I16 = 5, "i16", 16;
    I32 = 6, "i32", 32;
    I64 = 7, "i64", 64;
    Str = 8, "str", 0;
    Bool = 9, "bool", 8;
    F16 = 10, "f16", 16;
    F64 = 11, "f64", 64;
    U32 = 12, "u32", 32;
    U64 = 13, "u64", 64;
    BF16 = 16, "bf16", 16;
    F8E4M3FN = 17, "f8e4m3fn", 8;
    F8E4M3FNUZ = 18, "f8e4m3fnuz", 8;
    F8E5M2 = 19, "f8e5m2", 8;
    F8E5M2FNUZ = 20, "f8e5m2fnuz", 8;
    U4 = 21, "u4", 4;
    I4 = 22, "i4", 4;
    F4E2M1 = 23, "f4e2m1", 4;
    F8E8M0 = 24, "f8e8m0", 8;
    U2 = 25, "u2", 2;
    I2 = 26, "i2", 2;
}

impl DType {
    /// Bytes of one element in memory, where elements narrower than a byte take a whole one; 0 for strings.
    pub fn size(self) -> usize {
        self.bits().div_ceil(8) as usize
    }
    /// The number of ONNX `TensorProto.DataType`.
    pub fn onnx(self) -> i32 {
        self as i32
    }
    /// Whether this is one of the floating-point types.
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(self, F64 | F32 | F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1)
    }
    /// Whether this is an integer type; bool is none.
    pub fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, DType::Bool | DType::Str)
    }
    /// Whether this is a signed integer type.
    pub fn is_signed_int(self) -> bool {
        use DType::*;
        matches!(self, I2 | I4 | I8 | I16 | I32 | I64)
    }
    /// Whether this is an unsigned integer type.
    pub fn is_unsigned_int(self) -> bool {
        self.is_int() && !self.is_signed_int()
    }
    /// The smallest and largest value of an integer type or bool.
    pub fn int_range(self) -> Option<(i128, i128)> {
        match self {
            DType::Bool => Some((0, 1)),
            d if d.is_signed_int() => Some((-(1i128 << (d.bits() - 1)), (1i128 << (d.bits() - 1)) - 1)),
            d if d.is_unsigned_int() => Some((0, (1i128 << d.bits()) - 1)),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
