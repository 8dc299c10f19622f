//! Options of methods and wrappers: what they mean, and where their values may lie.

use crate::spec::OptionDoc;

/// Where the values of a number may lie.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionRange {
    /// The paper's symbol.
    pub symbol: String,
    /// The smallest value, and whether it is allowed itself; none if any is.
    pub low: Option<(f64, bool)>,
    /// The largest value, likewise.
    pub high: Option<(f64, bool)>,
}

impl OptionDoc {
    /// The range that the sentence begins with, `β > 0`, `0 ≤ ε < 0.5` or `α, any number`; none if the option is no number.
    #[must_use]
    pub fn range(&self) -> Option<OptionRange> {
        let head = self.doc.split([',', ':']).next().unwrap_or(self.doc);
        let words: Vec<&str> = head.split_whitespace().collect();
        let bound = |sign: &str, number: &str| match sign {
            "<" | ">" => number.parse().ok().map(|number| (number, false)),
            "≤" | "≥" => number.parse().ok().map(|number| (number, true)),
            _ => None,
        };
        match words[..] {
            [symbol] if self.doc[head.len()..].starts_with(", any number") => {
                Some(OptionRange { symbol: symbol.to_owned(), low: None, high: None })
            }
            [symbol, sign @ (">" | "≥"), number] => {
                let low = Some(bound(sign, number)?);
                Some(OptionRange { symbol: symbol.to_owned(), low, high: None })
            }
            // The upper bound may be another option.
            [low, first @ ("<" | "≤"), symbol, second @ ("<" | "≤"), high] => {
                let (low, high) = (Some(bound(first, low)?), bound(second, high));
                Some(OptionRange { symbol: symbol.to_owned(), low, high })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An end of a range, and whether it belongs to it.
    type End = Option<(f64, bool)>;

    #[track_caller]
    fn check(doc: &'static str, expected: Option<(&str, End, End)>) {
        let expected =
            expected.map(|(symbol, low, high)| OptionRange { symbol: symbol.to_owned(), low, high });
        assert_eq!(OptionDoc { name: "x", doc }.range(), expected);
    }

    #[test]
    fn the_range_is_what_the_sentence_begins_with() {
        check("β > 0, per nat: strength", Some(("β", Some((0.0, false)), None)));
        check("0 ≤ ε < 0.5: share", Some(("ε", Some((0.0, true)), Some((0.5, false)))));
        check("0 ≤ τ ≤ η, per nat: strength", Some(("τ", Some((0.0, true)), None)));
        check("α, any number: order", Some(("α", None, None)));
        check("whether it is so", None);
    }
}
