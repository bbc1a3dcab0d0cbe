//! Words of the text format with their positions.

/// A word and where it starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

/// Splits into words. A quoted text is a word; so is each of `{ } ( ) , : = _`, unless inside a word that holds
/// brackets: `name[...]`, `[...]` and `op{...}` keep their brackets. Comments run from `;` to the end of the line.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        let start = i;
        match bytes[i] {
            b' ' | b'\t' | b'\r' | b'\n' => {
                i += 1;
                continue;
            }
            b';' => {
                while i < bytes.len() && bytes[i] != b'\n' {
                    i += 1;
                }
                continue;
            }
            b'"' => i = quoted_end(bytes, i),
            b'{' | b'}' | b'(' | b')' | b',' | b':' | b'=' | b'@' => i += 1,
            _ => i = word_end(bytes, i),
        }
        out.push(Word { text: &text[start..i], at: start });
    }
    out
}

fn quoted_end(b: &[u8], mut i: usize) -> usize {
    i += 1;
    while i < b.len() && b[i] != b'"' {
        i += if b[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(b.len())
}

/// The end of a word that may hold `[...]`, `<...>`, `!q(...)`, and, right after a letter, `{...}`.
fn word_end(b: &[u8], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0usize);
    while i < b.len() {
        match b[i] {
            b'"' if depth > 0 => {
                i = quoted_end(b, i);
                continue;
            }
            b'[' | b'<' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b'>' if i > start && b[i - 1] != b'-' => depth = depth.saturating_sub(1),
            b'(' if depth > 0 || b[start..i].ends_with(b"!q") => depth += 1,
            b'{' if depth > 0 || (i > start && b[i - 1].is_ascii_lowercase()) => depth += 1,
            b')' | b'}' if depth > 0 => depth -= 1,
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'=' | b'"' | b'(' | b')' | b'{' | b'}' | b';'
            | b'@'
                if depth == 0 =>
            {
                break;
            }
            _ => {}
        }
        i += 1;
    }
    i.max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn brackets_stay_in_their_word() {
        let got: Vec<&str> = words("v1 \"a b\" = op{k=[1, 2], t=\"}\"} v0, _ : f32[N,max(a,2)] @\"x\" ; end")
            .iter()
            .map(|w| w.text)
            .collect();
        assert_eq!(
            got,
            [
                "v1",
                "\"a b\"",
                "=",
                "op{k=[1, 2], t=\"}\"}",
                "v0",
                ",",
                "_",
                ":",
                "f32[N,max(a,2)]",
                "@",
                "\"x\""
            ]
        );
        assert_eq!(words("0 -> 1").len(), 3);
    }
}
