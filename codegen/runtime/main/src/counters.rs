//! What a run counted.
use crate::json;
use planish_rt::Session;
use planish_rt::plan::Plan;

/// The counters of the last run of a session that are not zero, by name.
pub(crate) fn of(session: &Session, plan: &Plan) -> Vec<(String, u64)> {
    let all = plan.counters.iter().cloned().zip(session.counters().iter().copied());
    let mut found: Vec<(String, u64)> = all.filter(|(_, n)| *n > 0).collect();
    found.sort();
    found
}

/// The key `counters` after a comma, or nothing where nothing was counted.
pub(crate) fn json(counters: &[(String, u64)]) -> String {
    if counters.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = counters.iter().map(|(name, n)| format!("{}:{n}", json::string(name))).collect();
    format!(",\"counters\":{{{}}}", pairs.join(","))
}

/// A line for people, or nothing where nothing was counted.
pub(crate) fn text(counters: &[(String, u64)]) -> String {
    if counters.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = counters.iter().map(|(name, n)| format!("{name} {n}")).collect();
    format!("counted in a run: {}\n", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_shown_where_there_are_some() {
        let some = [("gate.blocks".to_owned(), 3), ("gate.regions".to_owned(), 1)];
        assert_eq!(json(&some), ",\"counters\":{\"gate.blocks\":3,\"gate.regions\":1}");
        assert_eq!(text(&some), "counted in a run: gate.blocks 3, gate.regions 1\n");
        assert_eq!(json(&[]) + &text(&[]), "");
    }
}
