//! The text format. Unstable by declaration: its version stands in the first line, and no other version is read.
//!
//! ```text
//! planish-ir 1
//! graph @"main"(v0 "x": f32[N,2]) {
//!   v1 = const f32[2,2] [0.1, -3.0, 2.0, 0.2]
//!   v2 = binary{kind=add} v0, v1 : f32[N,2] @"/fc/Add"
//!   return v2 "y"
//! }
//! ```

mod lex;
mod parse;
mod payload;
mod print;
#[cfg(test)]
mod tests;

pub use parse::{parse, parse_closed_type};
pub use print::{PrintOptions, print, print_with};

/// The version of the format.
pub const VERSION: u32 = 1;

/// A symbol's name as the text format writes it: bare if it is a plain identifier, else quoted.
pub(crate) fn symbol_name(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        && !matches!(name, "floordiv" | "mod" | "max" | "min");
    if plain {
        return name.to_owned();
    }
    let mut out = String::new();
    write_quoted(name, &mut out);
    out
}

/// Appends the text in quotes with everything but printable ASCII, quotes and backslashes escaped.
pub(crate) fn write_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c => out.push_str(&format!("\\u{{{:x}}}", c as u32)),
        }
    }
    out.push('"');
}

/// Reverses [`write_quoted`] on a whole text.
pub(crate) fn read_quoted(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut it = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    while let Some(c) = it.next() {
        match c {
            '\\' => match it.next()? {
                'u' => {
                    let code: String = it.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                c @ ('"' | '\\') => out.push(c),
                _ => return None,
            },
            '"' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}
