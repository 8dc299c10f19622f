//! What was measured of a judge, on one page: shares with their intervals, a reliability diagram, and counts.

use std::path::{Path, PathBuf};

use crate::chart::{interval, reliability};
use crate::html::{Html, number};
use crate::{GalleryError, page};

/// What was measured of somebody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audit {
    /// The page's title: who was measured.
    pub title: String,
    /// On what, and against whom.
    pub about: String,
    /// Parts of the page, in order.
    pub parts: Vec<Measures>,
}

/// Measures that belong together; what is empty is not shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// The heading.
    pub heading: String,
    /// What is measured, in a sentence or two.
    pub text: String,
    /// Shares.
    pub shares: Vec<Measured>,
    /// Numbers that are no shares.
    pub numbers: Vec<Number>,
    /// The bins of a reliability diagram.
    pub bins: Vec<Calibrated>,
    /// What was counted.
    pub counts: Vec<Count>,
}

/// A share with its 95 % interval, in points of 100.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// What it is a share of.
    pub name: String,
    /// The share.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many were counted; of 0 there is no share.
    pub n: usize,
    /// What it would be of one without a fault, where that is known.
    pub expected: Option<f64>,
}

/// A number, with its 95 % interval if it has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Number {
    /// What it is.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Both ends of the interval.
    pub interval: Option<[f64; 2]>,
}

/// Pairs of like confidence; all shares from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibrated {
    /// Mean probability of the verdict.
    pub confidence: f64,
    /// Share of right verdicts.
    pub accuracy: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Pairs.
    pub n: usize,
}

/// How often something was the case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// What.
    pub name: String,
    /// How often, or how much, in words.
    pub value: String,
}

/// Writes `index.html` into `dir`, which is made if it is not there, and returns its path. The page has no script and reads no
/// other file.
///
/// # Errors
/// A number is not finite, or the file cannot be written.
pub fn write_audit(audit: &Audit, dir: &Path) -> Result<PathBuf, GalleryError> {
    audit.parts.iter().try_for_each(Measures::check)?;
    page::write_still(dir, &audit.title, &body(audit))
}

impl Measures {
    fn check(&self) -> Result<(), GalleryError> {
        let shares = self.shares.iter().flat_map(|one| {
            [one.value, one.low, one.high, one.expected.unwrap_or(0.0)].map(|value| (one.name.clone(), value))
        });
        let numbers = self.numbers.iter().flat_map(|one| {
            let [low, high] = one.interval.unwrap_or_default();
            [one.value, low, high].map(|value| (one.name.clone(), value))
        });
        let bins = self.bins.iter().flat_map(|one| {
            [one.confidence, one.accuracy, one.low, one.high].map(|value| ("a bin".to_owned(), value))
        });
        match shares.chain(numbers).chain(bins).find(|(_, value)| !value.is_finite()) {
            Some((name, found)) => {
                Err(GalleryError::NotFinite { field: format!("{}: {name}", self.heading), found })
            }
            None => Ok(()),
        }
    }
}

fn body(audit: &Audit) -> Html {
    let mut html = Html::default();
    html.put("<header><h1>{}</h1><p>{}</p></header>\n", &[&audit.title, &audit.about]);
    for part in &audit.parts {
        html.put(
            "<section class=\"audit\"><h2>{}</h2><p class=\"quiet\">{}</p>\n",
            &[&part.heading, &part.text],
        );
        if !part.shares.is_empty() {
            html.append(&shares(&part.shares));
        }
        if !part.numbers.is_empty() {
            html.append(&numbers(&part.numbers));
        }
        if !part.bins.is_empty() {
            html.append(&bins(&part.bins));
        }
        if !part.counts.is_empty() {
            html.append(&counts(&part.counts));
        }
        html.put("</section>\n", &[]);
    }
    html
}

fn shares(shares: &[Measured]) -> Html {
    let mut html = Html::default();
    html.put(
        "<table class=\"shares\"><thead><tr><th scope=\"col\">Share</th><th scope=\"col\">0 to 100 %</th>",
        &[],
    );
    html.put("<th scope=\"col\">%</th><th scope=\"col\">95 % interval</th><th scope=\"col\">of</th>", &[]);
    html.put("<th scope=\"col\">ideal</th></tr></thead><tbody>", &[]);
    for share in shares {
        html.put("<tr><th scope=\"row\">{}</th><td>", &[&share.name]).append(&interval(share));
        if share.n == 0 {
            html.put("</td><td>—</td><td class=\"interval\">—</td><td>0</td>", &[]);
        } else {
            html.put("</td><td>{}</td>", &[&number(share.value, 1)]);
            html.put(
                "<td class=\"interval\">{} to {}</td>",
                &[&number(share.low, 1), &number(share.high, 1)],
            );
            html.put("<td>{}</td>", &[&share.n]);
        }
        match share.expected {
            Some(expected) => html.put("<td>{}</td></tr>\n", &[&number(expected, 0)]),
            None => html.put("<td></td></tr>\n", &[]),
        };
    }
    html.put("</tbody></table>\n", &[]);
    html
}

fn numbers(numbers: &[Number]) -> Html {
    let mut html = Html::default();
    html.put("<dl class=\"facts\">", &[]);
    for Number { name, value, interval } in numbers {
        html.put("<div><dt>{}</dt><dd>{}", &[name, &number(*value, 3)]);
        if let Some([low, high]) = interval {
            html.put(" <span class=\"interval\">{} to {}</span>", &[&number(*low, 3), &number(*high, 3)]);
        }
        html.put("</dd></div>", &[]);
    }
    html.put("</dl>\n", &[]);
    html
}

fn bins(bins: &[Calibrated]) -> Html {
    let mut html = Html::default();
    html.put("<div class=\"columns\">", &[]).append(&reliability(bins));
    html.put("<table><thead><tr><th scope=\"col\">said</th><th scope=\"col\">right</th>", &[]);
    html.put("<th scope=\"col\">95 % interval</th><th scope=\"col\">of</th></tr></thead><tbody>", &[]);
    for bin in bins {
        html.put("<tr><td>{}</td><td>{}</td>", &[&number(bin.confidence, 3), &number(bin.accuracy, 3)]);
        html.put("<td class=\"interval\">{} to {}</td>", &[&number(bin.low, 3), &number(bin.high, 3)]);
        html.put("<td>{}</td></tr>", &[&bin.n]);
    }
    html.put("</tbody></table></div>\n", &[]);
    html
}

fn counts(counts: &[Count]) -> Html {
    let mut html = Html::default();
    html.put("<table><tbody>", &[]);
    for Count { name, value } in counts {
        html.put("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", &[name, value]);
    }
    html.put("</tbody></table>\n", &[]);
    html
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn audit(name: &str) -> Audit {
        let share = Measured {
            name: name.to_owned(),
            value: 62.5,
            low: 30.6,
            high: 86.3,
            n: 8,
            expected: Some(50.0),
        };
        let none = Measured { name: "of nothing".to_owned(), high: 100.0, ..Measured::default() };
        let bin = Calibrated { confidence: 0.9, accuracy: 0.75, low: 0.3, high: 0.95, n: 4 };
        let part = Measures {
            heading: "Agreement".to_owned(),
            text: "With the truth.".to_owned(),
            shares: vec![share, none],
            numbers: vec![Number { name: "kappa".to_owned(), value: -0.25, interval: Some([-0.5, 0.125]) }],
            bins: vec![bin],
            counts: vec![Count { name: "abstained".to_owned(), value: "3".to_owned() }],
        };
        Audit { title: name.to_owned(), about: "8 pairs".to_owned(), parts: vec![part] }
    }

    #[test]
    fn every_number_is_on_the_page_and_nothing_runs_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = write_audit(&audit("a judge"), dir.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(path, dir.path().join(page::PAGE_FILE));
        for part in [
            "<td>62.5</td>",
            "30.6 to 86.3",
            "<td>8</td>",
            "<td>50</td>",
            "−0.250",
            "−0.500 to 0.125",
            "0.300 to 0.950",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(
            text.contains("<td>—</td>") && !text.contains("<script") && text.contains("script-src 'none'")
        );
        assert_eq!(
            text,
            std::fs::read_to_string(write_audit(&audit("a judge"), dir.path()).unwrap()).unwrap()
        );
    }

    #[test]
    fn names_stay_text_and_numbers_must_be_finite() {
        let dir = tempfile::tempdir().unwrap();
        let mut hostile = audit("<img src=x onerror=alert(1)>");
        let text = std::fs::read_to_string(write_audit(&hostile, dir.path()).unwrap()).unwrap();
        assert!(!text.contains("<img") && text.matches("&lt;img src=x").count() == 3, "{text}");
        hostile.parts[0].shares[0].low = f64::NAN;
        assert!(write_audit(&hostile, dir.path()).unwrap_err().to_string().contains("Agreement"));
    }
}
