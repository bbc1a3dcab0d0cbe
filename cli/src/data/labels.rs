//! Classes in a column of tables.

use crate::failure::{Failure, Result};
use std::collections::HashMap;

/// The most classes that have names.
const MOST: usize = 1 << 16;

/// Collects the classes of rows, which are whole numbers in all tables, or names.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// What the classes of earlier tables are called, if there are any.
    known: Option<Naming>,
    /// Every text that was seen, and its place in the order of appearance.
    places: HashMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
    /// Whether all of them are whole numbers.
    whole: bool,
    /// For each table the text of each row, if it has the column.
    rows: Vec<Option<Vec<u32>>>,
}

/// What classes are called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Naming {
    /// Whole numbers.
    Numbers,
    /// Names, in order.
    Names(Vec<String>),
}

/// What they are.
pub(super) struct Classes {
    /// For each table the class of each row, if it has the column.
    pub(super) classes: Vec<Option<Vec<i64>>>,
    /// What they are called; none where no table has the column.
    pub(super) naming: Option<Naming>,
}

impl Labels {
    pub(super) fn new(known: Option<Naming>) -> Labels {
        Labels { known, whole: true, ..Labels::default() }
    }
    /// The rows that follow are of another table, which has the column or not.
    pub(super) fn begin(&mut self, has: bool) {
        self.rows.push(has.then(Vec::new));
    }
    /// The class of the next row.
    pub(super) fn add(&mut self, text: &str) -> Result<()> {
        let wrong = |why: String| Err(Failure::new("csv-value", why));
        let text = text.trim();
        if text.is_empty() {
            return wrong("a row without a class".into());
        }
        let place = match self.places.get(text) {
            Some(place) => *place,
            None => {
                let whole = text.parse::<i64>().is_ok();
                match &self.known {
                    Some(Naming::Names(names))
                        if names.binary_search_by(|n| n.as_str().cmp(text)).is_err() =>
                    {
                        return wrong(format!("{text:?} is no class of --data"));
                    }
                    Some(Naming::Numbers) if !whole => {
                        return wrong(format!("{text:?} is no whole number, as the classes of --data are"));
                    }
                    _ => {}
                }
                self.whole &= whole;
                if !self.whole && self.texts.len() >= MOST {
                    return wrong(format!("more than {MOST} classes with names"));
                }
                let place = u32::try_from(self.texts.len());
                let Ok(place) = place else { return wrong(format!("more than {} classes", u32::MAX)) };
                self.places.insert(text.into(), place);
                self.texts.push(text.into());
                place
            }
        };
        if let Some(Some(rows)) = self.rows.last_mut() {
            rows.push(place);
        }
        Ok(())
    }
    /// The classes: numbers where all are, else the places in the order of names.
    pub(super) fn resolve(&mut self) -> Result<Classes> {
        let texts = std::mem::take(&mut self.texts);
        let rows = std::mem::take(&mut self.rows);
        let naming = self.known.take().unwrap_or_else(|| match self.whole {
            true => Naming::Numbers,
            false => {
                let mut names: Vec<String> = texts.iter().map(|t| t.to_string()).collect();
                names.sort_unstable();
                Naming::Names(names)
            }
        });
        let class = |text: &str| match &naming {
            Naming::Names(names) => Some(names.binary_search_by(|n| n.as_str().cmp(text)).ok()? as i64),
            Naming::Numbers => text.parse().ok(),
        };
        let lost = |text: &str| Failure::new("csv-value", format!("{text:?} is no class"));
        let by_place = texts.iter().map(|t| class(t).ok_or_else(|| lost(t))).collect::<Result<Vec<i64>>>()?;
        let of = |rows: Vec<u32>| rows.into_iter().map(|place| by_place[place as usize]).collect();
        let naming = rows.iter().any(Option::is_some).then_some(naming);
        Ok(Classes { classes: rows.into_iter().map(|rows| rows.map(of)).collect(), naming })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The classes of one table, and what they are called.
    fn classes(known: Option<Naming>, texts: &[&str]) -> std::result::Result<Classes, String> {
        let mut labels = Labels::new(known);
        labels.begin(true);
        texts.iter().try_for_each(|t| labels.add(t)).map_err(|f| f.message())?;
        labels.resolve().map_err(|f| f.message())
    }

    #[test]
    fn classes_are_numbers_or_places_of_names() -> std::result::Result<(), String> {
        let names = |names: &[&str]| Naming::Names(names.iter().map(|n| (*n).to_owned()).collect());
        let numbers = classes(None, &["7", " -1", "7"])?;
        assert_eq!((&numbers.classes[0], &numbers.naming), (&Some(vec![7, -1, 7]), &Some(Naming::Numbers)));
        let named = classes(None, &["pos", "neg", "pos", "10"])?;
        assert_eq!(named.classes[0], Some(vec![2, 1, 2, 0]));
        assert_eq!(named.naming, Some(names(&["10", "neg", "pos"])));
        // Those of other rows are the same ones.
        assert_eq!(classes(named.naming.clone(), &["pos"])?.classes[0], Some(vec![2]));
        let other = classes(named.naming, &["positive"]).err().unwrap_or_default();
        assert!(
            other.contains("csv-value") && other.contains("\"positive\" is no class of --data"),
            "{other}"
        );
        let other = classes(Some(Naming::Numbers), &["1", "pos"]).err().unwrap_or_default();
        assert!(other.contains("\"pos\" is no whole number"), "{other}");
        assert!(classes(None, &["1", ""]).err().is_some_and(|e| e.contains("a row without a class")));
        Ok(())
    }

    #[test]
    fn tables_without_classes_say_nothing_about_them() -> std::result::Result<(), String> {
        let mut labels = Labels::new(None);
        labels.begin(false);
        let none = labels.resolve().map_err(|f| f.message())?;
        assert_eq!((none.classes, none.naming), (vec![None], None));
        Ok(())
    }

    #[test]
    fn there_is_a_most_of_names() {
        let numbers: Vec<String> = (0..MOST + 1).map(|k| k.to_string()).collect();
        let mut all: Vec<&str> = numbers.iter().map(String::as_str).collect();
        assert!(classes(None, &all).is_ok());
        all.push("x");
        assert!(classes(None, &all).err().is_some_and(|e| e.contains("more than 65536 classes with names")));
    }
}
