//! All results in a table and a picture.

use super::BASE;
use super::measure::Measured;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A mean over seeds with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Estimate {
    mean: f64,
    low: f64,
    high: f64,
}

/// What was trained in rows.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    /// What rows are compared with, besides the base: its name, and what it is called in the heading.
    #[serde(skip)]
    standard: (&'static str, &'static str),
    /// What rows are.
    #[serde(skip)]
    heading: &'static str,
    seeds: usize,
    captions: usize,
    categories: Vec<String>,
    rows: Vec<Row>,
}

/// What one method does, over all seeds that it and the base have.
#[derive(Debug, Serialize)]
struct Row {
    method: String,
    seeds: usize,
    exact: f64,
    /// Points of 100 above the base, of the same seeds and captions.
    gain: Estimate,
    /// The same above the standard; none of it itself.
    over_standard: Option<Estimate>,
    /// Exact pictures by category, points of 100.
    categories: BTreeMap<String, f64>,
    ugliness: f64,
    diversity: f64,
    /// Share of right labels, points of 100, where the rows are trained on labels of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels_right: Option<f64>,
    /// Wall time of a seed.
    seconds: f64,
}

impl Table {
    pub(super) fn of(
        results: &[Measured],
        standard: (&'static str, &'static str),
        heading: &'static str,
    ) -> Self {
        let methods: BTreeSet<&str> = results.iter().map(|one| one.method.as_str()).collect();
        let seeds: BTreeSet<u64> = results.iter().map(|one| one.seed).collect();
        let names: BTreeSet<&String> = results.iter().flat_map(|one| &one.scores.categories).collect();
        let mut rows: Vec<Row> = methods.into_iter().map(|method| row(method, standard.0, results)).collect();
        rows.sort_by(|one, other| other.gain.mean.total_cmp(&one.gain.mean));
        Self {
            standard,
            heading,
            seeds: seeds.len(),
            captions: results.first().map_or(0, |one| one.scores.exact.len()),
            categories: names.into_iter().cloned().collect(),
            rows,
        }
    }

    pub(crate) fn to_markdown(&self) -> String {
        let has_labels = self.rows.iter().any(|row| row.labels_right.is_some());
        let (heading, standard) = (self.heading, self.standard.1);
        let mut text = format!("| {heading} | exact % | gain over base | gain over {standard} |");
        text += &self.categories.iter().map(|name| format!(" {name} % |")).collect::<String>();
        text += if has_labels { " labels right % |" } else { "" };
        text += " ugliness | diversity | s a seed |\n| --- | --- | --- | --- |";
        text += &" --- |".repeat(self.categories.len() + 3 + usize::from(has_labels));
        text.push('\n');
        for row in &self.rows {
            let _ = write!(text, "| {} | {:.1} | ", row.method, row.exact);
            let gain = if row.method == BASE { None } else { Some(row.gain) };
            for estimate in [gain, row.over_standard] {
                match estimate {
                    None => text += "– | ",
                    Some(Estimate { mean, low, high }) => {
                        let _ = write!(text, "{mean:+.1} [{low:+.1}, {high:+.1}] | ");
                    }
                }
            }
            for name in &self.categories {
                let _ = write!(text, "{:.1} | ", row.categories.get(name).copied().unwrap_or(f64::NAN));
            }
            if has_labels {
                text += &row.labels_right.map_or("– | ".to_owned(), |right| format!("{right:.1} | "));
            }
            let _ = writeln!(text, "{:.3} | {:.3} | {:.0} |", row.ugliness, row.diversity, row.seconds);
        }
        let _ = write!(
            text,
            "\nMeans over {} seeds of {} held-out captions each; intervals are those of Student's t over seeds, 95 %.\n",
            self.seeds, self.captions
        );
        text
    }

    /// Gains over the base with their intervals.
    pub(crate) fn to_svg(&self) -> String {
        const ROW: f64 = 24.0;
        const LEFT: f64 = 170.0;
        const WIDTH: f64 = 640.0;
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.method != BASE).collect();
        let ends = || rows.iter().flat_map(|row| [row.gain.low, row.gain.high, 0.0]);
        let (low, high) = (ends().fold(0.0, f64::min), ends().fold(1.0, f64::max));
        let x = |value: f64| LEFT + (value - low) / (high - low) * (WIDTH - LEFT - 20.0);
        let (bottom, height) = (ROW * rows.len() as f64 + 8.0, ROW * rows.len() as f64 + 48.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for tick in ticks(low, high) {
            let colour = if tick == 0.0 { "#888" } else { "#ddd" };
            let _ = writeln!(
                svg,
                "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"4\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>\
                 <text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"middle\" fill=\"#666\">{tick:.0}</text>",
                x(tick),
                bottom + 14.0
            );
        }
        for (i, row) in rows.iter().enumerate() {
            let y = ROW * (i as f64 + 0.5) + 4.0;
            let Estimate { mean, low, high } = row.gain;
            let _ = writeln!(
                svg,
                "<text x=\"4\" y=\"{0:.1}\">{1}</text><text x=\"{2:.1}\" y=\"{0:.1}\" text-anchor=\"end\">{mean:+.1}</text>\
                 <line x1=\"{3:.1}\" x2=\"{4:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#336\" stroke-width=\"2\"/>\
                 <circle cx=\"{5:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#336\"/>",
                y + 4.0,
                row.method,
                LEFT - 10.0,
                x(low),
                x(high),
                x(mean)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{:.1}\">points of exact pictures above the base; {} seeds, 95 % intervals</text>\n</svg>",
            height - 8.0,
            self.seeds
        );
        svg
    }
}

/// Round numbers between two, at most nine.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| (high - low) / step <= 8.0).unwrap_or(20.0);
    let (first, last) = ((low / step).ceil() as i32, (high / step).floor() as i32);
    (first..=last).map(|tick| f64::from(tick) * step).collect()
}

fn row(method: &str, standard: &str, results: &[Measured]) -> Row {
    let own: Vec<&Measured> = results.iter().filter(|one| one.method == method).collect();
    let mean =
        |of: &dyn Fn(&Measured) -> f64| own.iter().map(|one| of(one)).sum::<f64>() / own.len().max(1) as f64;
    let against = |other: &str| {
        let gains: Vec<f64> = own
            .iter()
            .filter_map(|one| {
                let other = results.iter().find(|it| it.method == other && it.seed == one.seed)?;
                Some(share(&one.scores.exact) - share(&other.scores.exact))
            })
            .collect();
        estimate(&gains)
    };
    let mut categories: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (name, exact) in own.iter().flat_map(|one| one.scores.categories.iter().zip(&one.scores.exact)) {
        categories.entry(name.clone()).or_default().push(*exact);
    }
    Row {
        method: method.to_owned(),
        seeds: own.len(),
        exact: mean(&|one| share(&one.scores.exact)),
        gain: against(BASE).unwrap_or_default(),
        over_standard: if [BASE, standard].contains(&method) { None } else { against(standard) },
        categories: categories.into_iter().map(|(name, exact)| (name, share(&exact))).collect(),
        ugliness: mean(&|one| one.scores.ugliness),
        diversity: mean(&|one| one.scores.diversity),
        labels_right: own
            .iter()
            .map(|one| one.labels_right)
            .sum::<Option<f64>>()
            .map(|sum| sum / own.len() as f64),
        seconds: mean(&|one| one.seconds),
    }
}

/// Points of 100.
fn share(hits: &[bool]) -> f64 {
    100.0 * hits.iter().filter(|hit| **hit).count() as f64 / hits.len().max(1) as f64
}

/// Two-sided 95 % points of Student's t with 1, 2, … degrees of freedom.
const STUDENT: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// Mean and interval of numbers that belong to seeds; of one seed there is no interval, and of none no mean.
fn estimate(values: &[f64]) -> Option<Estimate> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let freedom = values.len().checked_sub(1)?;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (freedom.max(1) as f64);
    let quantile = match freedom {
        0 => 0.0,
        // Beyond the table it falls slowly from 2.23 to 1.96.
        _ => STUDENT.get(freedom - 1).copied().unwrap_or(2.228),
    };
    let half = quantile * (variance / n).sqrt();
    Some(Estimate { mean, low: mean - half, high: mean + half })
}

#[cfg(test)]
mod tests {
    use super::super::measure::Scores;
    use super::*;

    fn measured(method: &str, seed: u64, exact: &[bool]) -> Measured {
        let scores = Scores {
            categories: exact.iter().enumerate().map(|(i, _)| ["a", "b"][i % 2].to_owned()).collect(),
            exact: exact.to_vec(),
            ugliness: 0.25,
            diversity: 0.5,
        };
        Measured { method: method.to_owned(), seed, seconds: 3.0, labels_right: None, scores }
    }

    #[test]
    fn gains_are_of_the_same_seeds_and_intervals_are_students() {
        let found = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        // s = 1.5811, t(4) = 2.776: half width 1.963.
        assert!(
            found.is_some_and(|e| (e.mean - 3.0).abs() < 1e-12 && (e.low - 1.037).abs() < 1e-3),
            "{found:?}"
        );
        assert_eq!(estimate(&[]), None);
        let results = [
            measured(BASE, 0, &[true, false, false, false]),
            measured(BASE, 1, &[true, true, false, false]),
            measured("dpo", 0, &[true, true, false, false]),
            measured("dpo", 1, &[true, true, true, true]),
            measured("mapo", 1, &[true, true, true, false]),
        ];
        let table = Table::of(&results, ("dpo", "Diffusion-DPO"), "method");
        let row = |name: &str| table.rows.iter().find(|row| row.method == name);
        assert_eq!(row("dpo").map(|row| (row.gain.mean, row.exact)), Some((37.5, 75.0)));
        assert_eq!(row("mapo").and_then(|row| row.over_standard).map(|e| e.mean), Some(-25.0));
        assert_eq!(row("dpo").map(|row| row.categories["b"]), Some(75.0));
        let text = table.to_markdown();
        assert!(text.contains("| mapo | 75.0 | +25.0 [+25.0, +25.0] | -25.0 [-25.0, -25.0] |"), "{text}");
        assert!(table.to_svg().starts_with("<svg") && table.to_svg().contains(">mapo<"));
        assert_eq!(ticks(-3.2, 23.0), [0.0, 5.0, 10.0, 15.0, 20.0]);
    }
}
