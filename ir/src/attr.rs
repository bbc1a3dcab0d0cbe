//! Typed fields of operations: how each kind of field is written in the text format and read back.

use crate::dtype::DType;
use std::fmt::Write;

/// A kind of field.
pub trait AttrValue: Sized {
    /// Writes the value.
    fn write(&self, out: &mut String);
    /// Reads the value; `None` if the text is none.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! by_display {
    ($($t:ty),*) => { $(
        impl AttrValue for $t {
            fn write(&self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )* };
}
by_display!(i64, u32, usize, bool);

impl AttrValue for f64 {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{self:?}");
    }
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl AttrValue for DType {
    fn write(&self, out: &mut String) {
        out.push_str(self.name());
    }
    fn read(text: &str) -> Option<Self> {
        DType::parse(text)
    }
}

impl AttrValue for crate::types::Type {
    /// Only types without symbols are fields, so that no symbol table is needed.
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{}", self.display(&crate::dim::Symbols::default()));
    }
    fn read(text: &str) -> Option<Self> {
        crate::text::parse_closed_type(text)
    }
}

impl AttrValue for String {
    fn write(&self, out: &mut String) {
        crate::text::write_quoted(self, out);
    }
    fn read(text: &str) -> Option<Self> {
        crate::text::read_quoted(text)
    }
}

impl<T: AttrValue> AttrValue for Vec<T> {
    fn write(&self, out: &mut String) {
        out.push('[');
        for (i, v) in self.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            v.write(out);
        }
        out.push(']');
    }
    fn read(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        split_top(inner, ',').into_iter().map(|t| T::read(t.trim())).collect()
    }
}

impl<T: AttrValue> AttrValue for Option<T> {
    fn write(&self, out: &mut String) {
        match self {
            None => out.push_str("none"),
            Some(v) => v.write(out),
        }
    }
    fn read(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { T::read(text).map(Some) }
    }
}

/// Splits at a separator that is outside brackets and quotes; an empty text has no parts.
pub fn split_top(text: &str, sep: char) -> Vec<&str> {
    let (mut parts, mut depth, mut start, mut quoted, mut escaped) = (Vec::new(), 0i32, 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '(' | '{' | '<' => depth += 1,
            ']' | ')' | '}' | '>' => depth -= 1,
            c if c == sep && depth == 0 => {
                parts.push(&text[start..i]);
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() || !parts.is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

/// The fields of an operation.
pub trait Attrs: Sized {
    /// The lines of the operation's documentation.
    const DOC: &'static [&'static str];
    /// Appends `name=value` of each field, separated by `, `; nothing when there are no fields.
    fn write_attrs(&self, out: &mut String);
    /// Reads all fields from `name=value` pairs; the error names the field that is missing, unknown or malformed.
    fn read_attrs(pairs: &mut Vec<(String, String)>) -> Result<Self, String>;
}

/// Takes one field out of the pairs.
pub fn take<T: AttrValue>(pairs: &mut Vec<(String, String)>, name: &str) -> Result<T, String> {
    let at = pairs.iter().position(|(n, _)| n == name).ok_or_else(|| format!("field `{name}` is missing"))?;
    let (_, text) = pairs.remove(at);
    T::read(&text).ok_or_else(|| format!("field `{name}` cannot be `{text}`"))
}

/// Declares the struct of an operation with its typed fields, printable and readable.
///
/// ```text
/// op_struct! {
///     /// Concatenation along an axis.
///     Concat { axis: usize }
/// }
/// ```
#[macro_export]
macro_rules! op_struct {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        impl $crate::attr::Attrs for $name {
            const DOC: &'static [&'static str] = &[$($doc),*];
            #[allow(unused_variables, unused_mut, unused_assignments)]
            fn write_attrs(&self, out: &mut String) {
                let mut first = true;
                $(
                    if !first { out.push_str(", "); }
                    first = false;
                    out.push_str(concat!(stringify!($field), "="));
                    $crate::attr::AttrValue::write(&self.$field, out);
                )*
            }
            #[allow(unused_variables)]
            fn read_attrs(pairs: &mut Vec<(String, String)>) -> Result<Self, String> {
                Ok(Self { $($field: $crate::attr::take(pairs, stringify!($field))?,)* })
            }
        }
    };
}

/// Declares an enum without fields whose variants have names in the text format.
#[macro_export]
macro_rules! attr_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The name in the text format.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
        impl $crate::attr::AttrValue for $name {
            fn write(&self, out: &mut String) {
                out.push_str(self.name());
            }
            fn read(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)* _ => None }
            }
        }
    };
}
