//! Text to tokens.

use crate::fault::{ParseError, ParseErrorKind};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tok<'a> {
    /// Letters, digits, `_`, `$`, `%` and `.`: names, numbers, operations, directives.
    Word(&'a str),
    Punct(char),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) tok: Tok<'a>,
    pub(crate) line: u32,
    /// Bytes of the text.
    pub(crate) span: (usize, usize),
}

/// All tokens; comments are dropped.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let bytes = text.as_bytes();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1u32);
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.');
    while let Some(&c) = bytes.get(at) {
        let start = at;
        match c {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b' ' | b'\t' | b'\r' => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while bytes.get(at).is_some_and(|c| *c != b'\n') {
                    at += 1;
                }
            }
            c if word(c) => {
                while bytes.get(at).is_some_and(|c| word(*c)) {
                    at += 1;
                }
                out.push(Token { tok: Tok::Word(&text[start..at]), line, span: (start, at) });
            }
            b',' | b';' | b':' | b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b'+' | b'-'
            | b'@' | b'!' => {
                at += 1;
                out.push(Token { tok: Tok::Punct(c as char), line, span: (start, at) });
            }
            _ => {
                let shown = text[at..].chars().next().unwrap_or('?');
                let message = format!("the character {shown:?}");
                return Err(ParseError { kind: ParseErrorKind::Syntax, line, message });
            }
        }
    }
    Ok(out)
}
