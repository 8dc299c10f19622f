//! The report's first half: headline, what did not improve, and for each modality the numbers behind it.

use serde_json::Value;

use crate::chart::{Curve, gain_bars, line_plot};
use crate::html::{Html, number, signed};
use crate::report::{
    CategoryScore, Direction, Metric, ModalityReport, REPORT_FILE, Report, Round, Settings, TrainingPoint,
};

/// A modality's name as a heading.
pub(crate) fn heading(name: &str) -> &'static str {
    if name == "image" { "Images" } else { "Text" }
}

/// Heading, headline and details of `report`.
pub(crate) fn summary(report: &Report) -> Html {
    let mut html = Html::default();
    html.append(&masthead(report));
    html.append(&headline(report));
    html.append(&not_improved(report));
    for (name, modality) in report.modalities() {
        html.append(&details(name, modality));
    }
    html
}

fn masthead(report: &Report) -> Html {
    let mut html = Html::default();
    html.put("<header class=\"masthead\"><h1>{}</h1>\n<dl class=\"facts\">", &[&report.title]);
    html.put("<div><dt>seed</dt><dd>{}</dd></div>", &[&report.seed]);
    for (name, value) in [("made", &report.created), ("objective", &report.objective)] {
        if !value.is_empty() {
            html.put("<div><dt>{}</dt><dd>{}</dd></div>", &[&name, value]);
        }
    }
    html.append(&settings(&report.settings));
    html.put("</dl>\n", &[]);
    if !report.command.is_empty() {
        html.put("<p class=\"command\"><code>{}</code></p>\n", &[&report.command]);
    }
    html.append(&contents(report)).put("</header>\n", &[]);
    html
}

/// Links to what lies further down the page.
fn contents(report: &Report) -> Html {
    let mut html = Html::default();
    html.put("<nav aria-label=\"Contents\">", &[]);
    for (name, modality) in report.modalities() {
        html.put("<a href=\"#{}-details\">{}: numbers</a> ", &[&name, &heading(name)]);
        if !modality.entries.is_empty() {
            html.put("<a href=\"#{}-cards\">{}: before and after</a> ", &[&name, &heading(name)]);
        }
    }
    html.put("</nav>\n", &[]);
    html
}

fn settings(settings: &Settings) -> Html {
    let mut html = Html::default();
    for (name, value) in settings {
        match value {
            // A string's JSON form has quotes that nobody wants to read.
            Value::String(text) => html.put("<div><dt>{}</dt><dd>{}</dd></div>", &[name, text]),
            other => html.put("<div><dt>{}</dt><dd>{}</dd></div>", &[name, other]),
        };
    }
    html
}

fn headline(report: &Report) -> Html {
    let mut html = Html::default();
    html.put("<section id=\"result\"><h2>Result</h2>\n", &[]);
    html.put(
        "<table class=\"stack headline\"><caption>Points of 100 by the exact checker, on held-out prompts. ",
        &[],
    );
    html.put("Gain with its 95\u{a0}% interval over prompts. All numbers: ", &[]);
    html.put("<a href=\"{}\">{}</a>.</caption>\n", &[&REPORT_FILE, &REPORT_FILE]);
    html.put(
        "<thead><tr><th scope=\"col\">Model</th><th scope=\"col\">Prompts</th><th scope=\"col\">Base</th>",
        &[],
    );
    html.put("<th scope=\"col\">Aligned</th><th scope=\"col\">Gain</th>", &[]);
    html.put("<th scope=\"col\">Reading</th></tr></thead>\n<tbody>", &[]);
    for (name, modality) in report.modalities() {
        html.put("<tr><th scope=\"row\">{}</th>", &[&heading(name)]);
        html.put("<td data-label=\"Prompts\">{}</td>", &[&modality.n_prompts]);
        html.put("<td data-label=\"Base\">{}</td>", &[&number(modality.base, 1)]);
        html.put("<td data-label=\"Aligned\">{}</td>", &[&number(modality.aligned, 1)]);
        html.put("<td data-label=\"Gain\"><strong>{}</strong> ", &[&signed(modality.gain, 1)]);
        html.put("<span class=\"interval\">[{}, ", &[&signed(modality.gain_low, 1)]);
        html.put("{}]</span></td>", &[&signed(modality.gain_high, 1)]);
        html.put("<td data-label=\"Reading\">{}</td></tr>\n", &[&reading(modality)]);
    }
    html.put("</tbody></table></section>\n", &[]);
    html
}

/// What the interval allows one to say.
fn reading(modality: &ModalityReport) -> &'static str {
    match (modality.gain_low > 0.0, modality.gain_high < 0.0) {
        _ if modality.n_prompts == 0 => "No prompt was compared.",
        (true, _) => "Better: the interval lies above zero.",
        (_, true) => "Worse: the interval lies below zero.",
        _ => "Not shown to differ: the interval includes zero.",
    }
}

fn not_improved(report: &Report) -> Html {
    let mut html = Html::default();
    html.put("<section id=\"not-improved\"><h2>What did not improve</h2>\n", &[]);
    let mut items = Html::default();
    for (name, modality) in report.modalities() {
        for sentence in &modality.not_improved {
            items.put("<li><b>{}:</b> {}</li>\n", &[&heading(name), sentence]);
        }
    }
    if items.as_str().is_empty() {
        html.put("<p class=\"quiet\">The report lists nothing here.</p>", &[]);
    } else {
        html.put("<ul>", &[]).append(&items).put("</ul>", &[]);
    }
    html.put("</section>\n", &[]);
    html
}

fn details(name: &'static str, modality: &ModalityReport) -> Html {
    let mut html = Html::default();
    html.put("<section id=\"{}-details\"><h2>{}: the numbers behind it</h2>\n", &[&name, &heading(name)]);
    html.put("<div class=\"columns\">", &[]);
    if !modality.categories.is_empty() {
        html.append(&categories(name, &modality.categories));
    }
    html.put("<div>", &[]);
    if !modality.metrics.is_empty() {
        html.append(&metrics(&modality.metrics));
    }
    if let Some(labels) = &modality.labels {
        html.put("<h3>Preference labels</h3><p>{} pairs, labelled by {}; ", &[&labels.pairs, &labels.source]);
        html.put("{}\u{a0}% of the labels flipped on purpose.</p>\n", &[&number(labels.flipped * 100.0, 1)]);
    }
    if !modality.rounds.is_empty() {
        html.append(&rounds(&modality.rounds));
    }
    if !modality.settings.is_empty() {
        html.put("<h3>How outputs were drawn</h3><dl class=\"facts\">", &[]);
        html.append(&settings(&modality.settings)).put("</dl>\n", &[]);
    }
    html.put("</div></div>\n", &[]);
    if !modality.training.is_empty() {
        html.put("<h3>Training</h3>\n", &[]).append(&training(&modality.training));
    }
    html.put("</section>\n", &[]);
    html
}

fn categories(name: &'static str, rows: &[CategoryScore]) -> Html {
    let mut html = Html::default();
    let label = format!("{}: gain by category in points, with 95 % intervals", heading(name));
    html.put("<div><h3>Gain by category</h3>\n", &[]);
    html.append(&gain_bars(rows, &label));
    html.put(
        "<p class=\"quiet\">Points, with 95\u{a0}% intervals; a pale bar's interval includes zero.</p>",
        &[],
    );
    html.put("<details><summary>As a table</summary><table><thead><tr><th scope=\"col\">Category</th>", &[]);
    html.put("<th scope=\"col\">n</th><th scope=\"col\">Base</th><th scope=\"col\">Aligned</th>", &[]);
    html.put("<th scope=\"col\">Gain</th></tr></thead><tbody>", &[]);
    for row in rows {
        html.put("<tr><th scope=\"row\">{}</th><td>{}</td>", &[&row.name, &row.n]);
        html.put("<td>{}</td><td>{}</td>", &[&number(row.base, 1), &number(row.aligned, 1)]);
        html.put(
            "<td>{} [{}, {}]</td></tr>",
            &[&signed(row.gain, 1), &signed(row.gain_low, 1), &signed(row.gain_high, 1)],
        );
    }
    html.put("</tbody></table></details></div>\n", &[]);
    html
}

fn metrics(metrics: &[Metric]) -> Html {
    let mut html = Html::default();
    html.put("<h3>Other measures</h3><table><thead><tr><th scope=\"col\">Measure</th>", &[]);
    html.put("<th scope=\"col\">Base</th><th scope=\"col\">Aligned</th><th scope=\"col\"></th></tr></thead><tbody>", &[]);
    for metric in metrics {
        html.put(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            &[&metric.name, &number(metric.base, 2), &number(metric.aligned, 2), &change(metric)],
        );
    }
    html.put("</tbody></table>\n", &[]);
    html
}

/// What the labeller says beside what is true.
fn rounds(rounds: &[Round]) -> Html {
    let mut html = Html::default();
    html.put("<h3>The labeller beside the truth</h3><table><caption>Wins over the base model in points of 100, ties ", &[]);
    html.put(
        "counted half; a gap above zero that grows from round to round means that the labeller is gamed.",
        &[],
    );
    html.put("</caption><thead><tr><th scope=\"col\">Round</th><th scope=\"col\">Pairs</th>", &[]);
    html.put("<th scope=\"col\">Labels right</th><th scope=\"col\">Exact</th>", &[]);
    html.put("<th scope=\"col\">Wins by the labeller</th><th scope=\"col\">True wins</th>", &[]);
    html.put("<th scope=\"col\">Gap</th></tr></thead><tbody>", &[]);
    for (number_of, round) in (1..).zip(rounds) {
        html.put("<tr><th scope=\"row\">{}</th><td>{}</td>", &[&number_of, &round.pairs]);
        for value in [round.labels_right, round.exact, round.labeller_wins, round.true_wins] {
            html.put("<td>{}</td>", &[&number(value, 1)]);
        }
        html.put(
            "<td>{} [{}, {}]</td></tr>",
            &[&signed(round.gap, 1), &signed(round.gap_low, 1), &signed(round.gap_high, 1)],
        );
    }
    html.put("</tbody></table>\n", &[]);
    html
}

fn change(metric: &Metric) -> &'static str {
    let up = metric.aligned > metric.base;
    match metric.better {
        None => "",
        Some(_) if metric.aligned == metric.base => "= same",
        Some(Direction::Higher) if up => "▲ better",
        Some(Direction::Lower) if !up => "▲ better",
        Some(_) => "▼ worse",
    }
}

/// The curves of a training run.
pub(crate) fn training(points: &[TrainingPoint]) -> Html {
    let curve = |name, span, value: fn(&TrainingPoint) -> Option<f64>| Curve {
        name,
        span,
        points: points.iter().filter_map(|point| Some((point.step, value(point)?))).collect(),
    };
    let mut html = Html::default();
    html.put("<div class=\"plots\">", &[]);
    for curve in [
        curve("Loss", &[], |point| Some(point.loss)),
        curve("Accuracy", &[0.0, 1.0], |point| point.accuracy),
        curve("Margin", &[0.0], |point| point.margin),
    ] {
        html.append(&line_plot(&curve));
    }
    html.put("</div>\n", &[]);
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_reading(low: f64, high: f64, expected: &str) {
        let modality =
            ModalityReport { gain_low: low, gain_high: high, n_prompts: 9, ..ModalityReport::default() };
        assert!(reading(&modality).starts_with(expected), "{}", reading(&modality));
    }

    #[test]
    fn an_interval_is_read_honestly() {
        check_reading(0.1, 9.0, "Better");
        check_reading(-9.0, -0.1, "Worse");
        check_reading(-1.0, 12.0, "Not shown to differ");
        check_reading(0.0, 12.0, "Not shown to differ");
    }

    #[test]
    fn a_metric_without_a_good_direction_is_not_judged() {
        let metric = |base, aligned, better| Metric { name: "x".into(), base, aligned, better };
        assert_eq!(change(&metric(1.0, 2.0, None)), "");
        assert_eq!(change(&metric(1.0, 2.0, Some(Direction::Lower))), "▼ worse");
        assert_eq!(change(&metric(2.0, 1.0, Some(Direction::Lower))), "▲ better");
        assert_eq!(change(&metric(1.0, 2.0, Some(Direction::Higher))), "▲ better");
        assert_eq!(change(&metric(2.0, 2.0, Some(Direction::Higher))), "= same");
    }
}
