//! The gallery itself: one card for each prompt, before and after side by side, with the filters that narrow it.

use std::collections::BTreeSet;

use crate::html::{Html, RelativeUrl, number};
use crate::report::{Entry, ModalityReport, Report, Side, Verdict};
use crate::summary::heading;

const VERDICTS: [Verdict; 3] = [Verdict::Better, Verdict::Same, Verdict::Worse];

/// A verdict's word, and the sign that tells it apart without colour.
fn word_and_sign(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Better => ("better", "▲"),
        Verdict::Same => ("same", "="),
        Verdict::Worse => ("worse", "▼"),
    }
}

/// Filters and all cards of `report`; nothing if no prompt was compared.
pub(crate) fn gallery(report: &Report) -> Html {
    let mut html = Html::default();
    if report.modalities().all(|(_, modality)| modality.entries.is_empty()) {
        return html;
    }
    html.put("<section id=\"gallery\"><h2>Gallery</h2>\n", &[]);
    html.append(&filters(report));
    for (name, modality) in report.modalities() {
        if !modality.entries.is_empty() {
            html.append(&cards(name, modality));
        }
    }
    html.put("</section>\n", &[]);
    html
}

/// The filter bar. It is hidden until the script shows it, since it does nothing without.
fn filters(report: &Report) -> Html {
    let mut html = Html::default();
    html.put("<form id=\"filters\" hidden>", &[]);
    html.put("<fieldset><legend class=\"unseen\">Verdict</legend>", &[]);
    for verdict in VERDICTS {
        let (word, sign) = word_and_sign(verdict);
        let n: usize = report.modalities().map(|(_, modality)| modality.count(verdict)).sum();
        html.put(
            "<label class=\"choice {}\"><input type=\"checkbox\" name=\"verdict\" value=\"{}\" checked> {} {} ({})</label>",
            &[&word, &word, &sign, &word, &n],
        );
    }
    html.put("</fieldset><label>Category <select name=\"category\"><option value=\"\">all</option>", &[]);
    for (name, modality) in report.modalities() {
        html.append(&category_options(name, modality));
    }
    html.put("</select></label><output id=\"shown\"></output>", &[]);
    html.put("<button type=\"button\" id=\"keys\">Keys <kbd>?</kbd></button></form>\n", &[]);
    html
}

fn category_options(name: &'static str, modality: &ModalityReport) -> Html {
    let names: BTreeSet<&str> = modality.entries.iter().map(|entry| entry.category.as_str()).collect();
    let mut html = Html::default();
    html.put("<optgroup label=\"{}\">", &[&heading(name)]);
    for category in names.into_iter().filter(|category| !category.is_empty()) {
        html.put("<option value=\"{}/{}\">{}</option>", &[&name, &category, &category]);
    }
    html.put("</optgroup>", &[]);
    html
}

fn cards(name: &'static str, modality: &ModalityReport) -> Html {
    let count = |verdict| modality.count(verdict);
    let mut html = Html::default();
    html.put("<h3 id=\"{}-cards\">{}</h3>", &[&name, &heading(name)]);
    html.put(
        "<p class=\"quiet\">{} prompts shown, from the same seeds before and after: ",
        &[&modality.entries.len()],
    );
    html.put(
        "{} better, {} same, {} worse.</p>\n",
        &[&count(Verdict::Better), &count(Verdict::Same), &count(Verdict::Worse)],
    );
    html.put("<div class=\"cards {}\">\n", &[&name]);
    for (idx, entry) in modality.entries.iter().enumerate() {
        html.append(&card(name, idx, entry));
    }
    html.put("</div>\n", &[]);
    html
}

fn card(name: &'static str, idx: usize, entry: &Entry) -> Html {
    let (word, sign) = word_and_sign(entry.verdict);
    let mut html = Html::default();
    html.put(
        "<article class=\"card item {}\" id=\"{}-{}\" data-verdict=\"{}\" data-category=\"{}/{}\">",
        &[&word, &name, &idx, &word, &name, &entry.category],
    );
    html.put("<p class=\"prompt\" dir=\"auto\">{}</p>", &[&entry.prompt]);
    html.put("<p class=\"about\"><span class=\"badge {}\">{} {}</span>", &[&word, &sign, &word]);
    if !entry.category.is_empty() {
        html.put(" <span>{}</span>", &[&entry.category]);
    }
    html.put(" <span>seed {}</span></p>\n<div class=\"pair\">", &[&entry.seed]);
    html.append(&side("Before", &entry.prompt, &entry.before));
    html.append(&side("After", &entry.prompt, &entry.after));
    html.put("</div></article>\n", &[]);
    html
}

fn side(title: &'static str, prompt: &str, side: &Side) -> Html {
    let mut html = Html::default();
    html.put("<figure class=\"side\"><figcaption><b>{}</b> ", &[&title]);
    let exactness = if side.exact { "✓ exact" } else { "✗ not exact" };
    html.put("<span class=\"{}\">{}</span></figcaption>", &[&met_class(side.exact), &exactness]);
    html.append(&output(title, prompt, side.image.as_deref(), side.text.as_deref()));
    if !side.parts.is_empty() {
        html.put("<ul class=\"parts\">", &[]);
        for part in &side.parts {
            let mark = if part.met { "✓" } else { "✗" };
            html.put("<li class=\"{}\">{} {}</li>", &[&met_class(part.met), &mark, &part.name]);
        }
        html.put("</ul>", &[]);
    }
    html.put("<p class=\"score\">score {}</p></figure>\n", &[&number(side.score, 2)]);
    html
}

fn met_class(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// An image as a link to itself, a completion as a quotation, or both.
pub(crate) fn output(title: &str, prompt: &str, image: Option<&str>, text: Option<&str>) -> Html {
    let mut html = Html::default();
    if let Some(path) = image {
        let url = RelativeUrl(path);
        html.put("<a class=\"picture\" href=\"{}\"><img src=\"{}\" ", &[&url, &url]);
        html.put("alt=\"{}: {}\" decoding=\"async\"></a>", &[&title, &prompt]);
    }
    match text {
        Some("") => html.put("<p class=\"quiet\">(empty)</p>", &[]),
        Some(text) => html.put("<blockquote dir=\"auto\">{}</blockquote>", &[&text]),
        None if image.is_none() => html.put("<p class=\"quiet\">(no output)</p>", &[]),
        None => &mut html,
    };
    html
}
