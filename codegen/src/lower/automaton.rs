//! Regular expressions as tables of deterministic automata.

use planish_ir::Diag;
use planish_ir::op::strings::RegexMatch;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, util::syntax};
use std::collections::{BTreeMap, HashMap};

/// The most entries of a table.
const MOST_ENTRIES: usize = 1 << 20;
/// Bytes that making an automaton may take.
const MOST_BYTES: usize = 1 << 22;

/// The automaton that accepts the strings that the pattern matches as a whole: the attributes of
/// [`planish_rt::library::STR_MATCH`]. Patterns whose automaton is too large, or that look at words of Unicode around
/// a place, are unsupported.
pub(super) fn table(op: &RegexMatch) -> Result<Vec<i64>, Diag> {
    let pattern = &op.pattern;
    let no = |why: String| Diag::unsupported(format!("the pattern {pattern:?}: {why}"));
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(MOST_BYTES))
        .determinize_size_limit(Some(MOST_BYTES));
    let dfa = dense::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new())
        .build(&op.anchored())
        .map_err(|e| no(e.to_string()))?;
    let first =
        dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).map_err(|e| no(e.to_string()))?;
    // States in the order in which they are found; none for those from which nothing is accepted.
    let mut number: HashMap<StateID, i64> = HashMap::from([(first, 0)]);
    let mut states = vec![first];
    let mut rows: Vec<[i64; 256]> = Vec::new();
    while let Some(state) = states.get(rows.len()).copied() {
        let mut row = [-1; 256];
        for (byte, to) in (0..=u8::MAX).zip(&mut row) {
            let next = dfa.next_state(state, byte);
            if dfa.is_quit_state(next) {
                return Err(no("it looks at what only a search sees".into()));
            }
            if !dfa.is_dead_state(next) {
                *to = *number.entry(next).or_insert_with(|| {
                    states.push(next);
                    states.len() as i64 - 1
                });
            }
        }
        rows.push(row);
        if rows.len() * 4 > MOST_ENTRIES {
            return Err(no("its automaton is too large".into()));
        }
    }
    // Bytes that no state tells apart share a column.
    let mut class: BTreeMap<Vec<i64>, usize> = BTreeMap::new();
    let mut columns = Vec::new();
    let mut class_of = Vec::with_capacity(256);
    for byte in 0..256 {
        let column: Vec<i64> = rows.iter().map(|r| r[byte]).collect();
        let next = class.len();
        let c = *class.entry(column).or_insert_with(|| {
            columns.push(byte);
            next
        });
        class_of.push(c as i64);
    }
    if rows.len() * columns.len() > MOST_ENTRIES {
        return Err(no("its automaton is too large".into()));
    }
    let mut out = vec![rows.len() as i64, 0, columns.len() as i64];
    out.extend(class_of);
    out.extend(rows.iter().flat_map(|r| columns.iter().map(|c| r[*c])));
    out.extend(states.iter().map(|s| i64::from(dfa.is_match_state(dfa.next_eoi_state(*s)))));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_ir::{Editor, Graph, Op, Tensor, interp};

    fn matches(t: &[i64], s: &str) -> bool {
        let (states, classes) = (t[0] as usize, t[2] as usize);
        let (class_of, next) = (&t[3..259], &t[259..]);
        let mut state = t[1];
        for b in s.bytes() {
            state = next[state as usize * classes + class_of[usize::from(b)] as usize];
            if state < 0 {
                return false;
            }
        }
        next[states * classes + state as usize] != 0
    }

    #[test]
    fn tables_match_whole_strings() -> Result<(), Diag> {
        for (pattern, yes, no) in [
            ("a|ab", &["a", "ab"][..], &["", "b", "abb"][..]),
            (r"www\.[\w.-]+\.\bcom\b", &["www.x.y.com"], &["www.com", "www.x.comx"]),
            (r"(\w+)@(\w+)\.(com|org)", &["me@x.org"], &["é@y.com", "me@x", "me@x.orga"]),
            (r"(\W|^)[\w.\-]{0,25}@x\.com(\W|$)", &["@x.com", "éa@x.com "], &["x.com", "aa@x.comx"]),
            ("", &[""], &["x"]),
            ("(?i)ß.", &["ßx", "ẞy"], &["ß", "ß\n"]),
            (r"^\d{2,3}$", &["12", "123"], &["1", "1234", "12\n", "１２"]),
        ] {
            let op = RegexMatch { pattern: pattern.into() };
            let t = table(&op)?;
            let all: Vec<String> = yes.iter().chain(no).map(|s| s.to_string()).collect();
            let strings = Tensor::from_strings(vec![all.len()], all.clone())?;
            let mut graph = Graph::new("test");
            let mut e = Editor::new(&mut graph);
            let x = e.input("x", strings.ty().into());
            let y = e.node(Op::from(op), &[Some(x)])?[0];
            e.output(y, None);
            let want = interp::run(&graph, vec![strings.into()])?.values[0].tensor()?.to_f64();
            for (s, want) in all.iter().zip(want) {
                let is = yes.contains(&s.as_str());
                assert_eq!(matches(&t, s), is, "{pattern} on {s}");
                assert_eq!(want != 0.0, is, "{pattern} on {s}");
            }
        }
        assert!(table(&RegexMatch { pattern: r"(?:\pL{90}){90}".into() }).is_err());
        Ok(())
    }
}
