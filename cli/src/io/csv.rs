//! CSV files as RFC 4180 has them, plain or compressed with gzip: a row of names, then rows of as many fields. Empty lines are none.

use super::spill;
use crate::failure::{Failure, Result};
use csv_core::{ReadRecordResult, Reader};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most bytes of the fields of a row.
const MOST_ROW: usize = 64 << 20;
/// The most columns.
const MOST_COLUMNS: usize = 1 << 16;
/// What UTF-8 files of some programs begin with.
const BOM: [u8; 3] = *b"\xef\xbb\xbf";

fn bad(why: impl Into<String>) -> Failure {
    Failure::new("csv-malformed", why)
}

/// Whether a file is named as CSV files are: `.csv`, or `.csv.gz`.
pub fn is_named(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    name.strip_suffix(".gz").unwrap_or(&name).ends_with(".csv")
}

/// A file whose rows are read when they are asked for.
#[derive(Debug)]
pub struct Csv {
    file: Arc<File>,
    names: Vec<String>,
    /// Where rows begin, and on which line.
    first: (u64, u64),
    /// Making a parser takes longer than reading a short row, and its `clone` lacks most of its tables.
    spare: Mutex<Option<Reader>>,
}

/// A row.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Where it begins, in bytes. For [`Csv::row`].
    pub at: u64,
    /// The line that it begins on; the first line of a file is 1.
    pub line: u64,
    text: String,
    ends: Vec<usize>,
}

impl Row {
    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    /// A field; empty where there is none.
    pub fn field(&self, k: usize) -> &str {
        let from = k.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        from.zip(self.ends.get(k)).and_then(|(from, to)| self.text.get(from..*to)).unwrap_or("")
    }
}

impl Csv {
    /// Opens a file and reads the names of its columns. A compressed one is expanded into a temporary file.
    pub fn open(path: &Path) -> Result<Csv> {
        let mut file = Arc::new(File::open(path).map_err(|e| Failure::file(path, e))?);
        let mut magic = [0; 2];
        if file.read_exact_at(&mut magic, 0).is_ok() && magic == [0x1f, 0x8b] {
            let mut stream = MultiGzDecoder::new(BufReader::new(&*file));
            file = spill::all(&mut stream, spill::MOST, "csv-malformed")?;
        }
        let mut mark = [0; BOM.len()];
        let marked = file.read_exact_at(&mut mark, 0).is_ok() && mark == BOM;
        let at = if marked { BOM.len() as u64 } else { 0 };
        let mut csv = Csv { file, names: Vec::new(), first: (at, 1), spare: Mutex::new(None) };
        let (mut rows, mut names) = (csv.rows(), Row::default());
        if !rows.next(&mut names)? {
            return Err(Failure::new("csv-empty", "the file is empty: a row of names was expected"));
        }
        let first = (rows.at, rows.line);
        csv.first = first;
        csv.names = (0..names.len()).map(|k| names.field(k).to_owned()).collect();
        for (k, name) in csv.names.iter().enumerate() {
            if !name.is_empty() && csv.names[..k].contains(name) {
                return Err(bad(format!("line {}: two columns are called {name:?}", names.line)));
            }
        }
        Ok(csv)
    }
    /// The names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }
    /// The position of a column.
    pub fn column(&self, name: &str) -> Result<usize> {
        let at = self.names.iter().position(|n| n == name);
        at.ok_or_else(|| {
            let all: Vec<String> = self.names.iter().map(|n| format!("{n:?}")).collect();
            Failure::new("csv-column", format!("there is no column {name:?}; there are {}", all.join(", ")))
        })
    }
    /// A place in the file, for messages.
    pub fn place(&self, line: u64, column: usize) -> String {
        place(&self.names, line, column)
    }
    /// All rows, in order.
    pub fn rows(&self) -> Rows<'_> {
        self.from(self.first.0, self.first.1, parser(), 64 << 10)
    }
    /// The row that begins at a byte, which is on a line.
    pub fn row(&self, at: u64, line: u64) -> Result<Row> {
        let made = self.spare().take().unwrap_or_else(parser);
        let mut rows = self.from(at, line, made, 4 << 10);
        let mut row = Row::default();
        let found = rows.next(&mut row)?;
        *self.spare() = Some(rows.parser);
        match found {
            true => Ok(row),
            false => Err(bad(format!("line {line}: the file changed while it was read"))),
        }
    }
    fn spare(&self) -> MutexGuard<'_, Option<Reader>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn from(&self, at: u64, line: u64, parser: Reader, buffer: usize) -> Rows<'_> {
        let bytes = BufReader::with_capacity(buffer, At { file: &self.file, at });
        let columns = (!self.names.is_empty()).then_some(&self.names[..]);
        Rows { bytes, parser, columns, at, line, out: Vec::new(), ends: Vec::new() }
    }
}

/// Not `default`, which has no tables.
fn parser() -> Reader {
    Reader::new()
}

fn place(names: &[String], line: u64, column: usize) -> String {
    match names.get(column) {
        Some(name) if !name.is_empty() => format!("line {line}, column {name:?}"),
        _ => format!("line {line}, column {}", column + 1),
    }
}

/// Reads a file from a place; others may read it at the same time.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Rows one after the other.
pub struct Rows<'a> {
    bytes: BufReader<At<'a>>,
    parser: Reader,
    /// The names, which say how many fields a row has; none for the row of names itself.
    columns: Option<&'a [String]>,
    at: u64,
    line: u64,
    out: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows<'_> {
    /// Reads the next row into `row`; false where there are no more.
    pub fn next(&mut self, row: &mut Row) -> Result<bool> {
        let columns = self.columns.unwrap_or_default();
        if !self.skip_ends_of_lines()? {
            return Ok(false);
        }
        (row.at, row.line) = (self.at, self.line);
        self.parser.reset();
        // A parser that has read nothing takes a byte order mark away, and what it then finds empty for the end of the file.
        self.parser.read_record(b"\n", &mut [0], &mut [0]);
        self.parser.set_line(self.line);
        let (mut len, mut count) = (0, 0);
        loop {
            let buffer = fill(&mut self.bytes, row.line)?;
            // The parser takes the end of the file for the end of a quote, but an end of a line for a part of it.
            let last = buffer.is_empty();
            let input = if last { b"\n" } else { buffer };
            let (result, used, wrote, ended) =
                self.parser.read_record(input, &mut self.out[len..], &mut self.ends[count..]);
            if last && result == ReadRecordResult::InputEmpty {
                if len == 0 && wrote == 0 && count == 0 {
                    return Ok(false);
                }
                let at = place(columns, row.line, count);
                return Err(bad(format!("{at}: a quote is opened in this row and never closed")));
            }
            if !last {
                self.bytes.consume(used);
                self.at += used as u64;
            }
            (len, count) = (len + wrote, count + ended);
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.out.len() < MOST_ROW => {
                    self.out.resize((2 * self.out.len()).max(1 << 10), 0);
                }
                ReadRecordResult::OutputFull => {
                    let at = place(columns, row.line, count);
                    let text = format!("{at}: a row of more than {MOST_ROW} bytes; is a quote never closed?");
                    return Err(bad(text));
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() < MOST_COLUMNS => {
                    self.ends.resize((2 * self.ends.len()).max(16), 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    return Err(bad(format!("line {}: more than {MOST_COLUMNS} columns", row.line)));
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
        self.line = self.parser.line();
        if self.columns.is_some() && count != columns.len() {
            let at = place(columns, row.line, count.min(columns.len()));
            return Err(bad(format!("{at}: {count} fields where there are {} columns", columns.len())));
        }
        row.text.clear();
        row.ends.clear();
        let mut from = 0;
        for (k, end) in self.ends[..count].iter().enumerate() {
            let field = std::str::from_utf8(&self.out[from..*end]);
            let field = field.map_err(|_| bad(format!("{}: not UTF-8", place(columns, row.line, k))))?;
            row.text.push_str(field);
            row.ends.push(*end);
            from = *end;
        }
        Ok(true)
    }
    /// Whether there is anything after them.
    fn skip_ends_of_lines(&mut self) -> Result<bool> {
        loop {
            let buffer = fill(&mut self.bytes, self.line)?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let ends = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
            let (n, lines) = ends.fold((0, 0), |(n, lines), b| (n + 1, lines + u64::from(*b == b'\n')));
            let more = n < buffer.len();
            self.bytes.consume(n);
            self.at += n as u64;
            self.line += lines;
            if more {
                return Ok(true);
            }
        }
    }
}

fn fill<'a>(bytes: &'a mut BufReader<At<'_>>, line: u64) -> Result<&'a [u8]> {
    bytes.fill_buf().map_err(|e| Failure::new("file-io", format!("line {line}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

    fn gz(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes)?;
        e.finish()
    }

    /// Line and fields of every row, or the failure.
    fn rows(bytes: &[u8]) -> std::result::Result<Vec<(u64, Vec<String>)>, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = dir.path().join("x.csv");
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        let csv = Csv::open(&path).map_err(|f| f.message())?;
        let fields = |row: &Row| (0..row.len()).map(|k| row.field(k).to_owned()).collect::<Vec<_>>();
        let mut out = vec![(1, csv.names().to_vec())];
        let (mut all, mut row) = (csv.rows(), Row::default());
        while all.next(&mut row).map_err(|f| f.message())? {
            let again = csv.row(row.at, row.line).map_err(|f| f.message())?;
            assert_eq!((again.line, fields(&again)), (row.line, fields(&row)), "read again by its place");
            out.push((row.line, fields(&row)));
        }
        Ok(out)
    }

    fn row(line: u64, fields: &[&str]) -> (u64, Vec<String>) {
        (line, fields.iter().map(|f| (*f).to_owned()).collect())
    }

    #[test]
    fn fields_are_quoted_as_the_rfc_says() -> Outcome {
        let plain = "a,b\n1,\"x, \"\"y\"\"\"\n\"two\nlines\",é\n\n,\"\"\n3,4";
        let want = [
            row(1, &["a", "b"]),
            row(2, &["1", "x, \"y\""]),
            row(3, &["two\nlines", "é"]),
            row(6, &["", ""]),
            row(7, &["3", "4"]),
        ];
        assert_eq!(rows(plain.as_bytes())?, want);
        assert_eq!(rows(format!("\u{feff}{plain}\n\n").as_bytes())?, want);
        assert_eq!(rows(&gz(plain.as_bytes())?)?, want);
        // Two members, as `cat` of two compressed files.
        assert_eq!(rows(&[gz(&plain.as_bytes()[..9])?, gz(&plain.as_bytes()[9..])?].concat())?, want);
        let crlf = rows(b"a,b\r\n1,2\r\n\r\n\"3\r\n\",\"4\"\r\n")?;
        assert_eq!(crlf, [row(1, &["a", "b"]), row(2, &["1", "2"]), row(4, &["3\r\n", "4"])]);
        // A quote that is closed by the last byte; one that is no quote; rows longer than any buffer.
        assert_eq!(rows(b"a\n\"x\"")?[1], row(2, &["x"]));
        assert_eq!(rows(b"a\n5\" pipe\n")?[1], row(2, &["5\" pipe"]));
        let long = "x".repeat(100_000);
        assert_eq!(rows(format!("a,b\n{long},1\n\"{long}\",2").as_bytes())?[2], row(3, &[&long, "2"]));
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let many = (0..70_000).map(|k| k.to_string()).collect::<Vec<_>>().join(",");
        for (bytes, want) in [
            (&b""[..], "csv-empty"),
            (b"\n\r\n", "csv-empty"),
            (b"\xef\xbb\xbf", "csv-empty"),
            (b"a,b,a\n", "line 1: two columns are called \"a\""),
            (b"a,b\n1,2\n3\n", "line 3, column \"b\": 1 fields where there are 2 columns"),
            (b"a,b\n1,2,3\n", "line 2, column 3: 3 fields"),
            (b"a,b\n1,\"2\n3,4\n", "line 2, column \"b\": a quote is opened in this row and never closed"),
            (b"a,b\n1,2\n\"", "line 3, column \"a\": a quote is opened"),
            (b"a,\"b\n", "line 1, column 2: a quote is opened"),
            (b"a,b\n1,\xff\n", "line 2, column \"b\": not UTF-8"),
            // Well-formed only together.
            (b"a,b\n\xc3,\xa9\n", "line 2, column \"a\": not UTF-8"),
            (b"\xff,b\n", "line 1, column 1: not UTF-8"),
            (many.as_bytes(), "line 1: more than 65536 columns"),
        ] {
            let said = rows(bytes).err().unwrap_or_default();
            assert!(said.contains(want), "{:?}: {said}", String::from_utf8_lossy(bytes));
        }
        let cut = gz(b"a,b\n1,2\n").map(|b| rows(&b[..b.len() - 6]).err().unwrap_or_default());
        assert!(cut.is_ok_and(|said| said.contains("csv-malformed")));
    }

    #[test]
    fn a_byte_order_mark_is_one_at_the_beginning_only() -> Outcome {
        // Rows that begin with one, at every place of the buffers.
        for before in (64 << 10) - 8..=64 << 10 {
            let filler = "x".repeat(before - 3);
            let all = rows(format!("a\n{filler}\n\u{feff}\n\u{feff}b\nc").as_bytes())?;
            assert_eq!(all[2..], [row(3, &["\u{feff}"]), row(4, &["\u{feff}b"]), row(5, &["c"])]);
        }
        Ok(())
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_before_memory_does() {
        let mut bytes = b"a,b\n1,\"".to_vec();
        bytes.resize(MOST_ROW + (1 << 20), b'x');
        let said = rows(&bytes).err().unwrap_or_default();
        assert!(said.contains("line 2, column \"b\": a row of more than"), "{said}");
    }

    #[test]
    fn names_end_with_csv() {
        assert!(is_named(Path::new("a/B.CSV")) && is_named(Path::new("x.csv.gz")));
        assert!(
            !is_named(Path::new("a.gz")) && !is_named(Path::new("csv")) && !is_named(Path::new("a.csv.npz"))
        );
    }
}
