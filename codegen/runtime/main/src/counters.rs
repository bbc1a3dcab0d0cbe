//! What a run counted.
use crate::json;
use planish_rt::Session;
use planish_rt::plan::Plan;

/// The counters of the last run of a session that are not zero, by name.
pub(crate) fn of(session: &Session, plan: &Plan) -> Vec<(String, f64)> {
    named(plan, session.counters().iter().map(|n| *n as f64))
}

/// Counters of a plan that are not zero, by name.
pub(crate) fn named(plan: &Plan, counts: impl Iterator<Item = f64>) -> Vec<(String, f64)> {
    let mut found: Vec<(String, f64)> =
        plan.counters.iter().cloned().zip(counts).filter(|(_, n)| *n > 0.0).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The key `counters` after a comma, or nothing where nothing was counted.
pub(crate) fn json(counters: &[(String, f64)]) -> String {
    if counters.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> =
        counters.iter().map(|(name, n)| format!("{}:{}", json::string(name), json::number(*n))).collect();
    format!(",\"counters\":{{{}}}", pairs.join(","))
}

/// A line for people, or nothing where nothing was counted.
pub(crate) fn text(counters: &[(String, f64)]) -> String {
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
        let some = [("gate.blocks".to_owned(), 3.0), ("gate.regions".to_owned(), 0.5)];
        assert_eq!(json(&some), ",\"counters\":{\"gate.blocks\":3,\"gate.regions\":0.5}");
        assert_eq!(text(&some), "counted in a run: gate.blocks 3, gate.regions 0.5\n");
        assert_eq!(json(&[]) + &text(&[]), "");
    }
}
