//! Tokens to a module: directives, declarations and statements. Instructions are decoded in `decode`.

use crate::decode;
use crate::entry::{Entry, Module, Param};
use crate::fault::{ParseError, ParseErrorKind};
use crate::op::{Inst, Op, Reg};
use crate::token::{Tok, Token, tokens};
use std::collections::BTreeMap;

/// First address of shared and of local memory: 0 is no address.
pub(crate) const FIRST_ADDRESS: u64 = 0x400;

/// Most registers, and bytes of local or shared memory, of a thread or block.
const MAX_REGISTERS: u64 = 1 << 20;
const MAX_BYTES: u64 = 1 << 24;

pub(crate) type Result<T> = std::result::Result<T, ParseError>;

/// An operand as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Raw<'a> {
    Word(&'a str),
    /// `-` and a number.
    Negative(&'a str),
    /// `[base + offset]`.
    Address(&'a str, i64),
    List(Vec<Raw<'a>>),
}

/// What names stand for inside an entry.
#[derive(Default)]
pub(crate) struct Names<'a> {
    pub(crate) registers: BTreeMap<String, Reg>,
    /// Addresses of shared and local arrays.
    pub(crate) variables: BTreeMap<&'a str, u64>,
    /// Offsets in the parameter space.
    pub(crate) params: BTreeMap<&'a str, u64>,
    pub(crate) labels: BTreeMap<&'a str, u32>,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Where shared arrays of the whole module are declared: every entry after them has them.
    shared: Vec<usize>,
}

pub(crate) fn module(text: &str) -> Result<Module> {
    let mut p = Parser { text, tokens: tokens(text)?, at: 0, shared: Vec::new() };
    let mut out = Module { version: 0, target: String::new(), entries: Vec::new() };
    while p.at < p.tokens.len() {
        match p.word()? {
            ".version" => {
                let v = p.word()?;
                let parts = v.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                let (major, minor): (u16, u16) =
                    parts.ok_or_else(|| p.error(ParseErrorKind::Syntax, format!("the version {v}")))?;
                out.version = major.saturating_mul(10).saturating_add(minor);
            }
            ".target" => out.target = p.word()?.to_owned(),
            ".address_size" => {
                let bits = p.word()?;
                if bits != "64" {
                    return Err(p.error(ParseErrorKind::UnknownDirective, format!(".address_size {bits}")));
                }
            }
            ".visible" => {}
            ".shared" => {
                p.shared.push(p.at - 1);
                while p.next()? != Tok::Punct(';') {}
            }
            ".entry" => out.entries.push(p.entry()?),
            other => {
                return Err(p.error(ParseErrorKind::UnknownDirective, format!("{other} is not interpreted")));
            }
        }
    }
    if out.version == 0 || out.target.is_empty() {
        return Err(p.error(ParseErrorKind::Syntax, "no .version or no .target".into()));
    }
    Ok(out)
}

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        self.tokens.get(self.at.saturating_sub(1)).map_or(1, |t| t.line)
    }

    fn error(&self, kind: ParseErrorKind, message: String) -> ParseError {
        ParseError { kind, line: self.line(), message }
    }

    fn peek(&self) -> Option<Tok<'a>> {
        self.tokens.get(self.at).map(|t| t.tok)
    }

    fn next(&mut self) -> Result<Tok<'a>> {
        let t =
            self.peek().ok_or_else(|| self.error(ParseErrorKind::Syntax, "the text ends early".into()))?;
        self.at += 1;
        Ok(t)
    }

    fn word(&mut self) -> Result<&'a str> {
        match self.next()? {
            Tok::Word(w) => Ok(w),
            Tok::Punct(c) => Err(self.error(ParseErrorKind::Syntax, format!("`{c}` where a word belongs"))),
        }
    }

    fn number(&mut self) -> Result<u64> {
        let w = self.word()?;
        decode::integer(w).ok_or_else(|| self.error(ParseErrorKind::Syntax, format!("{w} is no number")))
    }

    fn eat(&mut self, c: char) -> bool {
        let hit = self.peek() == Some(Tok::Punct(c));
        self.at += usize::from(hit);
        hit
    }

    fn expect(&mut self, c: char) -> Result<()> {
        match self.next()? {
            Tok::Punct(d) if c == d => Ok(()),
            other => Err(self.error(ParseErrorKind::Syntax, format!("{other:?} where `{c}` belongs"))),
        }
    }

    fn entry(&mut self) -> Result<Entry> {
        let name = self.word()?.to_owned();
        let mut e = Entry {
            name,
            block: [0; 3],
            params: Vec::new(),
            registers: 0,
            shared_bytes: 0,
            local_bytes: 0,
            insts: Vec::new(),
        };
        let mut names = Names::default();
        self.expect('(')?;
        while !self.eat(')') {
            let (param, name) = self.param()?;
            names.params.insert(name, e.params.len() as u64 * 8);
            e.params.push(param);
            self.eat(',');
        }
        while !self.eat('{') {
            match self.word()? {
                ".reqntid" => {
                    e.block = [1; 3];
                    for axis in 0..3 {
                        e.block[axis] = u32::try_from(self.number()?).unwrap_or(u32::MAX);
                        if !self.eat(',') {
                            break;
                        }
                    }
                }
                ".maxntid" => while self.number().map(|_| self.eat(','))? {},
                ".minnctapersm" | ".maxnreg" => drop(self.number()?),
                other => return Err(self.error(ParseErrorKind::UnknownDirective, other.to_owned())),
            }
        }
        let threads = e.block.iter().try_fold(1u32, |n, d| n.checked_mul(*d)).unwrap_or(0);
        if !(1..=1024).contains(&threads) {
            return Err(self.error(ParseErrorKind::Syntax, format!("a block of {:?} threads", e.block)));
        }
        let body = self.at;
        for start in self.shared.clone() {
            self.at = start;
            self.declaration(&mut e, &mut names)?;
        }
        self.at = body;
        self.body(&mut e, names)?;
        Ok(e)
    }

    /// `.param .u64 .ptr .global .align 4 name`.
    fn param(&mut self) -> Result<(Param, &'a str)> {
        let mut pointer = None;
        if self.word()? != ".param" {
            return Err(self.error(ParseErrorKind::Syntax, "a parameter without .param".into()));
        }
        let ty = self.word()?;
        if !matches!(ty, ".u64" | ".b64" | ".s64") {
            return Err(self.error(ParseErrorKind::UnknownDirective, format!("a parameter of type {ty}")));
        }
        loop {
            match self.word()? {
                ".ptr" => pointer = Some(1),
                ".global" => {}
                ".align" => pointer = Some(u32::try_from(self.number()?).unwrap_or(u32::MAX)),
                name if !name.starts_with('.') => {
                    return Ok((Param { name: name.to_owned(), pointer }, name));
                }
                other => return Err(self.error(ParseErrorKind::UnknownDirective, other.to_owned())),
            }
        }
    }

    /// Declarations, labels and instructions up to the closing brace. Labels are collected first: branches go forward too.
    fn body(&mut self, e: &mut Entry, mut names: Names<'a>) -> Result<()> {
        let start = self.at;
        let mut count = 0;
        loop {
            if self.eat('}') {
                break;
            }
            match self.peek() {
                Some(Tok::Word(w)) if w.starts_with('.') => self.declaration(e, &mut names)?,
                Some(Tok::Word(w))
                    if self.tokens.get(self.at + 1).is_some_and(|t| t.tok == Tok::Punct(':')) =>
                {
                    names.labels.insert(w, count);
                    self.at += 2;
                }
                _ => {
                    while self.next()? != Tok::Punct(';') {}
                    count += 1;
                }
            }
        }
        let end = self.at;
        self.at = start;
        while self.at + 1 < end {
            match self.peek() {
                Some(Tok::Word(w)) if w.starts_with('.') => while self.next()? != Tok::Punct(';') {},
                Some(Tok::Word(_))
                    if self.tokens.get(self.at + 1).is_some_and(|t| t.tok == Tok::Punct(':')) =>
                {
                    self.at += 2;
                }
                _ => {
                    let inst = self.instruction(&names)?;
                    e.insts.push(inst);
                }
            }
        }
        self.at = end;
        // Running off the end is a return, and a label may stand there.
        let line = self.line();
        e.insts.push(Inst { guard: None, op: Op::Return, line, text: "}".into() });
        Ok(())
    }

    /// `.reg .b32 %r<8>;`, `.shared .align 64 .b8 name[32];`.
    fn declaration(&mut self, e: &mut Entry, names: &mut Names<'a>) -> Result<()> {
        match self.word()? {
            ".reg" => {
                let ty = self.word()?;
                let bits = match ty {
                    ".pred" => 1,
                    ".b16" => 16,
                    ".b32" | ".f32" => 32,
                    ".b64" | ".f64" => 64,
                    _ => return Err(self.error(ParseErrorKind::UnknownDirective, format!(".reg {ty}"))),
                };
                let name = self.word()?;
                if self.eat('<') {
                    let n = self.number()?;
                    self.expect('>')?;
                    if n.saturating_add(e.registers.into()) > MAX_REGISTERS {
                        return Err(self.error(ParseErrorKind::Syntax, format!("{n} registers")));
                    }
                    for i in 0..n {
                        names.registers.insert(format!("{name}{i}"), Reg { index: e.registers, bits });
                        e.registers += 1;
                    }
                } else {
                    names.registers.insert(name.to_owned(), Reg { index: e.registers, bits });
                    e.registers += 1;
                }
            }
            space @ (".shared" | ".local") => {
                let mut align = 1;
                let name = loop {
                    match self.word()? {
                        ".align" => align = self.number()?.clamp(1, 4096),
                        ".b8" => {}
                        name if !name.starts_with('.') => break name,
                        other => return Err(self.error(ParseErrorKind::UnknownDirective, other.to_owned())),
                    }
                };
                self.expect('[')?;
                let bytes = self.number()?;
                self.expect(']')?;
                let total = if space == ".shared" { &mut e.shared_bytes } else { &mut e.local_bytes };
                let at = (*total as u64).next_multiple_of(align);
                if bytes.saturating_add(at) > MAX_BYTES {
                    return Err(self.error(ParseErrorKind::Syntax, format!("{bytes} bytes of {space}")));
                }
                *total = (at + bytes) as usize;
                names.variables.insert(name, FIRST_ADDRESS + at);
            }
            other => return Err(self.error(ParseErrorKind::UnknownDirective, other.to_owned())),
        }
        self.expect(';')
    }

    fn instruction(&mut self, names: &Names<'a>) -> Result<Inst> {
        let first = self.at;
        let guard = if self.eat('@') {
            let negate = self.eat('!');
            let name = self.word()?;
            let reg = names.registers.get(name).copied().filter(|r| r.bits == 1);
            let reg =
                reg.ok_or_else(|| self.error(ParseErrorKind::UnknownName, format!("predicate {name}")))?;
            Some((reg, negate))
        } else {
            None
        };
        let opcode = self.word()?;
        let line = self.line();
        let mut operands = Vec::new();
        while !self.eat(';') {
            operands.push(self.operand()?);
            self.eat(',');
        }
        let span = self.tokens[first].span.0..self.tokens[self.at - 2].span.1;
        let text = self.text[span].split_whitespace().collect::<Vec<_>>().join(" ");
        let fail = |(kind, why): (ParseErrorKind, String)| ParseError {
            kind,
            line,
            message: format!("{why} in `{text}`"),
        };
        let op = decode::decode(opcode, &operands, names).map_err(fail)?;
        Ok(Inst { guard, op, line, text })
    }

    fn operand(&mut self) -> Result<Raw<'a>> {
        match self.next()? {
            Tok::Word(w) => Ok(Raw::Word(w)),
            Tok::Punct('-') => Ok(Raw::Negative(self.word()?)),
            Tok::Punct('[') => {
                let base = self.word()?;
                let mut offset = 0i64;
                while !self.eat(']') {
                    let negative = match self.next()? {
                        Tok::Punct('+') => self.eat('-'),
                        Tok::Punct('-') => true,
                        other => {
                            return Err(
                                self.error(ParseErrorKind::Syntax, format!("{other:?} in an address"))
                            );
                        }
                    };
                    let n = self.number()?.cast_signed();
                    offset = offset.wrapping_add(if negative { n.wrapping_neg() } else { n });
                }
                Ok(Raw::Address(base, offset))
            }
            Tok::Punct('{') => {
                let mut list = Vec::new();
                while !self.eat('}') {
                    list.push(self.operand()?);
                    self.eat(',');
                }
                Ok(Raw::List(list))
            }
            Tok::Punct(c) => Err(self.error(ParseErrorKind::Syntax, format!("`{c}` in an operand"))),
        }
    }
}
