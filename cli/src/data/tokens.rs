//! Text as numbers: words by a vocabulary, or bytes.

use crate::failure::{Failure, Result};
use crate::files::Writer;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// The id of what fills rows up.
pub const PADDING: u32 = 0;
/// The id of words that the vocabulary lacks.
pub const UNKNOWN: u32 = 1;
/// The first id of a word.
const FIRST: u32 = 2;

/// The first line of a vocabulary's file.
const HEAD: &str = "planish-vocabulary 1";
/// The most distinct words.
const MOST_WORDS: usize = 5_000_000;
/// The most bytes of a word; longer ones are unknown.
const MOST_BYTES: usize = 256;
/// The most bytes of a tag.
const MOST_TAG: usize = 1 << 10;

/// What text is divided into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Tokenizer {
    /// Words in lower case: letters, digits and apostrophes between them; HTML tags are left out
    #[default]
    Word,
    /// Bytes of UTF-8; the id is the byte + 1
    Byte,
}

/// How text becomes ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encoder {
    /// By a vocabulary.
    Word(Vocabulary),
    /// Bytes.
    Byte,
}

impl Encoder {
    /// The ids of a text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self {
            Encoder::Word(v) => v.encode(text),
            Encoder::Byte => text.bytes().map(|b| u32::from(b) + 1).collect(),
        }
    }
    /// Ids are less than this.
    pub fn size(&self) -> usize {
        match self {
            Encoder::Word(v) => v.size(),
            Encoder::Byte => 257,
        }
    }
}

/// Calls `each` with the words of a text.
pub fn words(text: &str, each: &mut dyn FnMut(&str)) {
    let mut word = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if c == '<' { tag(rest) } else { None };
        rest = &rest[skipped.unwrap_or(c.len_utf8())..];
        if c.is_alphanumeric() {
            // The lower case of a letter may end with marks, which are no letters by themselves.
            word.extend(c.to_lowercase().filter(|l| l.is_alphanumeric()));
        } else if matches!(c, '\'' | '’') {
            word.push('\'');
        } else {
            end(&mut word, each);
        }
    }
    end(&mut word, each);
}

/// Apostrophes at the ends are quotes.
fn end(word: &mut String, each: &mut dyn FnMut(&str)) {
    let inner = word.trim_matches('\'');
    if !inner.is_empty() {
        each(inner);
    }
    word.clear();
}

/// The length of the HTML tag that a text begins with.
fn tag(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('<')?;
    let name = inside.strip_prefix('/').unwrap_or(inside);
    name.starts_with(|c: char| c.is_ascii_alphabetic()).then_some(())?;
    let end = inside.bytes().take(MOST_TAG).position(|b| matches!(b, b'<' | b'>'))?;
    (inside.as_bytes()[end] == b'>').then_some(end + 2)
}

/// Counts words.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    counts: HashMap<Box<str>, u64>,
}

impl Counter {
    /// Counts those of a text and returns how many there are.
    pub fn add(&mut self, text: &str) -> Result<usize> {
        let mut n = 0;
        words(text, &mut |word| {
            n += 1;
            if let Some(count) = self.counts.get_mut(word) {
                *count += 1;
            } else if word.len() <= MOST_BYTES && self.counts.len() <= MOST_WORDS {
                self.counts.insert(word.into(), 1);
            }
        });
        match self.counts.len() > MOST_WORDS {
            true => {
                let text = format!("more than {MOST_WORDS} distinct words; --tokenizer byte needs none");
                Err(Failure::new("vocabulary-large", text))
            }
            false => Ok(n),
        }
    }
    /// The vocabulary of the most frequent ones, `size` ids with those of padding and of unknown words.
    pub fn vocabulary(self, size: usize) -> Vocabulary {
        let mut all: Vec<(Box<str>, u64)> = self.counts.into_iter().collect();
        all.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        Vocabulary::of(all.into_iter().map(|(word, _)| word.into()).take(size.saturating_sub(FIRST as usize)))
    }
}

/// Words with their ids, from 2 on; 0 is padding and 1 stands for all other words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vocabulary {
    words: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, u32>,
}

impl Vocabulary {
    /// The most frequent words of texts, those of one frequency in the order of their bytes: `size` ids with those of padding and of
    /// unknown words.
    pub fn build<'a>(texts: impl IntoIterator<Item = &'a str>, size: usize) -> Result<Vocabulary> {
        let mut counter = Counter::default();
        for text in texts {
            counter.add(text)?;
        }
        Ok(counter.vocabulary(size))
    }
    fn of(words: impl Iterator<Item = Arc<str>>) -> Vocabulary {
        let words: Vec<Arc<str>> = words.collect();
        let ids = (FIRST..).zip(&words).map(|(id, word)| (word.clone(), id)).collect();
        Vocabulary { words, ids }
    }
    /// How many ids there are, with those of padding and of unknown words.
    pub fn size(&self) -> usize {
        self.words.len() + FIRST as usize
    }
    /// The words, the first of which has the id 2.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|w| &**w)
    }
    /// The id of a word.
    pub fn id(&self, word: &str) -> u32 {
        self.ids.get(word).copied().unwrap_or(UNKNOWN)
    }
    /// The ids of a text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        words(text, &mut |word| out.push(self.id(word)));
        out
    }
    /// The first words, `size` ids in all.
    #[must_use]
    pub fn first(&self, size: usize) -> Vocabulary {
        Vocabulary::of(self.words.iter().take(size.saturating_sub(FIRST as usize)).cloned())
    }
    /// Writes a file: a line with name and version of the format, then a word a line in the order of ids, from 2 on.
    pub fn write(&self, path: &Path, writer: &Writer) -> Result<()> {
        writer.write_with(path, 0o666, |file| {
            let mut out = std::io::BufWriter::new(file);
            writeln!(out, "{HEAD}")?;
            self.words().try_for_each(|word| writeln!(out, "{word}"))?;
            out.flush()
        })
    }
    /// Reads a file that [`Vocabulary::write`] wrote.
    pub fn read(path: &Path) -> Result<Vocabulary> {
        let file = File::open(path).map_err(|e| Failure::file(path, e))?;
        Vocabulary::parse(BufReader::new(file)).map_err(|f| f.about(path.display()))
    }
    fn parse(mut from: impl BufRead) -> Result<Vocabulary> {
        let bad =
            |line: usize, why: &str| Failure::new("vocabulary-malformed", format!("line {line}: {why}"));
        let mut next = |number: usize| -> Result<Option<String>> {
            let mut bytes = Vec::new();
            let read = (&mut from).take(MOST_BYTES as u64 + 1).read_until(b'\n', &mut bytes);
            read.map_err(|e| Failure::new("file-io", format!("line {number}: {e}")))?;
            let Some(last) = bytes.pop() else { return Ok(None) };
            if last != b'\n' {
                return Err(bad(number, "a word is too long, or the file is cut short"));
            }
            String::from_utf8(bytes).map(Some).map_err(|_| bad(number, "not UTF-8"))
        };
        match next(1)? {
            Some(head) if head == HEAD => {}
            head => {
                let head = head.unwrap_or_default();
                return Err(bad(1, &format!("{HEAD:?} was expected, {head:?} is there")));
            }
        }
        let mut all = Vocabulary::default();
        for number in 2.. {
            let Some(word) = next(number)? else { break };
            let mut seen = Vec::new();
            words(&word, &mut |w| seen.push(w.to_owned()));
            if seen != [word.as_str()] {
                return Err(bad(number, &format!("{word:?} is no word in lower case")));
            }
            if all.words.len() == MOST_WORDS {
                return Err(bad(number, &format!("more than {MOST_WORDS} words")));
            }
            let word: Arc<str> = word.into();
            if all.ids.insert(word.clone(), all.words.len() as u32 + FIRST).is_some() {
                return Err(bad(number, &format!("{word:?} stands here for the second time")));
            }
            all.words.push(word);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        words(text, &mut |w| out.push(w.to_owned()));
        out
    }

    #[test]
    fn words_are_letters_digits_and_inner_apostrophes() {
        for (text, want) in [
            ("Don't PANIC, it's 42!", &["don't", "panic", "it's", "42"][..]),
            ("it’s 'quoted' ''", &["it's", "quoted"]),
            ("one<br /><BR/>two</p>three", &["one", "two", "three"]),
            ("a < b and c > d <3 x<y", &["a", "b", "and", "c", "d", "3", "x", "y"]),
            ("<a <b>c", &["a", "c"]),
            ("ÄRGER naïve Größe-10", &["ärger", "naïve", "größe", "10"]),
            ("İstanbul", &["istanbul"]),
            ("", &[]),
        ] {
            assert_eq!(split(text), want, "{text:?}");
        }
        // A tag without an end is text, and so is one that is too long.
        assert_eq!(split(&format!("<b {}>", "x ".repeat(MOST_TAG))).len(), MOST_TAG + 1);
    }

    #[test]
    fn words_of_words_are_themselves() {
        // What is written into a file is read as one word, whatever the letters are.
        for c in ('\0'..=char::MAX).filter(|c| c.is_alphanumeric()) {
            for word in split(&format!("a{c}'{c}")) {
                assert_eq!(split(&word), [word.as_str()], "{c:?}");
            }
        }
    }

    #[test]
    fn ids_are_by_frequency_and_then_by_text() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let texts = ["b a c b", "c b d", "a e"];
        let v = Vocabulary::build(texts, 100).map_err(|f| f.message())?;
        assert_eq!(v.words().collect::<Vec<_>>(), ["b", "a", "c", "d", "e"]);
        assert_eq!((v.size(), v.encode("A, b? z!")), (7, vec![3, 2, UNKNOWN]));
        let reversed: Vec<&str> = texts.into_iter().rev().collect();
        assert_eq!(Vocabulary::build(reversed, 100).map_err(|f| f.message())?, v);
        let small = Vocabulary::build(texts, 4).map_err(|f| f.message())?;
        assert_eq!((small.size(), small.encode("a b c")), (4, vec![3, 2, UNKNOWN]));
        assert_eq!(v.first(4), small);
        assert_eq!(Vocabulary::build(texts, 1).map_err(|f| f.message())?.encode("a"), [UNKNOWN]);
        // Words beyond all measure are unknown and take no memory.
        let long = "x".repeat(MOST_BYTES + 1);
        assert_eq!(Vocabulary::build([long.as_str()], 9).map_err(|f| f.message())?.size(), 2);
        assert_eq!(Encoder::Byte.encode("a\0é"), [98, 1, 0xc3 + 1, 0xa9 + 1]);
        assert_eq!((Encoder::Byte.size(), Encoder::Word(v).size()), (257, 7));
        Ok(())
    }

    #[test]
    fn vocabularies_are_read_as_they_were_written() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("v.txt");
        let long = "y".repeat(MOST_BYTES);
        let v = Vocabulary::build(["don't été 7 İ", &long], 100).map_err(|f| f.message())?;
        v.write(&path, &Writer::new(false)).map_err(|f| f.message())?;
        assert_eq!(Vocabulary::read(&path).map_err(|f| f.message())?, v);
        let text = std::fs::read_to_string(&path)?;
        assert_eq!(text, format!("planish-vocabulary 1\n7\ndon't\ni\n{long}\nété\n"));
        // What others wrote is not overwritten.
        let mine = dir.path().join("mine.txt");
        std::fs::write(&mine, "notes")?;
        let failed = v.write(&mine, &Writer::new(false)).err().map(|f| f.diags[0].id);
        assert_eq!(failed, Some("output-exists"));
        Ok(())
    }

    #[test]
    fn malformed_vocabularies_are_refused() {
        for (text, want) in [
            (&b""[..], "line 1: \"planish-vocabulary 1\" was expected"),
            (b"the\na\n", "line 1: \"planish-vocabulary 1\" was expected, \"the\" is there"),
            (b"planish-vocabulary 2\na\n", "line 1"),
            (b"planish-vocabulary 1", "line 1: a word is too long, or the file is cut short"),
            (b"planish-vocabulary 1\na\nb", "line 3: a word is too long, or the file is cut short"),
            (b"planish-vocabulary 1\na\n\n", "line 3: \"\" is no word"),
            (b"planish-vocabulary 1\r\na\r\n", "line 1"),
            (b"planish-vocabulary 1\nThe\n", "line 2: \"The\" is no word"),
            (b"planish-vocabulary 1\na b\n", "line 2: \"a b\" is no word"),
            (b"planish-vocabulary 1\na\nb\na\n", "line 4: \"a\" stands here for the second time"),
            (b"planish-vocabulary 1\n\xff\n", "line 2: not UTF-8"),
        ] {
            let failed = Vocabulary::parse(text).err();
            assert_eq!(failed.as_ref().map(|f| f.diags[0].id), Some("vocabulary-malformed"));
            let said = failed.map(|f| f.message()).unwrap_or_default();
            assert!(said.contains(want), "{:?}: {said}", String::from_utf8_lossy(text));
        }
        let long = format!("{HEAD}\n{}\n", "x".repeat(MOST_BYTES + 1));
        assert_eq!(
            Vocabulary::parse(long.as_bytes()).err().map(|f| f.diags[0].id),
            Some("vocabulary-malformed")
        );
        assert_eq!(Vocabulary::parse(format!("{HEAD}\n").as_bytes()).map(|v| v.size()).ok(), Some(2));
    }

    #[test]
    fn there_is_a_most_of_distinct_words() {
        let counts = (0..MOST_WORDS).map(|k| (format!("w{k}").into(), 1)).collect();
        let mut counter = Counter { counts };
        assert_eq!(counter.add("w1 w2").ok(), Some(2));
        assert_eq!(counter.add("w1 new").err().map(|f| f.diags[0].id), Some("vocabulary-large"));
    }
}
