//! An item with everything that was said of it: findings, raw words, orders shown, costs.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::Value;
use votive_critic::{Evidence, Outline, StoredJudgment};
use votive_gallery::html::{Html, number};

use super::{Page, framed, in_words, shown};
use crate::desk::Desk;
use crate::problem::Problem;

pub(super) async fn show(State(desk): State<Arc<Desk>>, Path(id): Path<i64>) -> Result<Page, Problem> {
    let (outline, judgments) = desk
        .work(move |store, _| {
            let outline = store.outline(id)?;
            let outline = outline.ok_or_else(|| Problem::missing(format!("There is no item {id}.")))?;
            let mut judgments = Vec::new();
            for judgment in store.judgments(Some(id), None)? {
                let mut names = Vec::new();
                for evidence in &judgment.judgment.evidence {
                    let template = evidence.template.as_deref();
                    names.push(template.map_or(Ok(None), |hash| store.template_name(hash))?);
                }
                judgments.push((judgment, names));
            }
            Ok((outline, judgments))
        })
        .await?;
    let mut body = Html::default();
    body.put("<h1>Item {}</h1>\n<p class=\"prompt\" dir=\"auto\">{}</p>\n", &[&outline.id, &outline.prompt]);
    candidates(&mut body, &outline);
    body.put("<section><h2>Judgments</h2>\n", &[]);
    if judgments.is_empty() {
        body.put("<p>Nobody has judged it yet.</p>\n", &[]);
    }
    for (judgment, names) in &judgments {
        said(&mut body, judgment, names);
    }
    body.put("</section>\n", &[]);
    if outline.origin != Value::Null {
        let origin = serde_json::to_string_pretty(&outline.origin).unwrap_or_default();
        body.put(
            "<section><h2>Where it comes from</h2>\n<blockquote>{}</blockquote></section>\n",
            &[&origin],
        );
    }
    Ok(framed("Item", None, &body))
}

fn candidates(body: &mut Html, outline: &Outline) {
    body.put("<div class=\"pair\">\n", &[]);
    for (place, candidate) in (1..).zip(&outline.candidates) {
        body.put("<figure class=\"side\"><figcaption>{}</figcaption>", &[&place]);
        shown(body, candidate, &format!("Candidate {place}"));
        body.put("</figure>\n", &[]);
    }
    body.put("</div>\n", &[]);
    if let Some(reference) = &outline.reference {
        body.put("<h3>An answer that is known to be right</h3>\n", &[]);
        shown(body, reference, "An answer that is known to be right");
    }
}

/// A judgment and its evidence; `names` are those of the templates.
fn said(body: &mut Html, judgment: &StoredJudgment, names: &[Option<String>]) {
    body.put(
        "<article class=\"judgment\"><h3><span class=\"name\">{}</span>: {}</h3>\n<p class=\"quiet\">{}, draw {}</p>\n",
        &[&judgment.judge, &in_words(&judgment.judgment.finding), &judgment.at, &judgment.draw],
    );
    for (evidence, name) in judgment.judgment.evidence.iter().zip(names) {
        asked(body, evidence, name.as_deref());
    }
    body.put("</article>\n", &[]);
}

fn asked(body: &mut Html, evidence: &Evidence, template: Option<&str>) {
    let Evidence { judge, words, finding, cost, removed_marks, .. } = evidence;
    let order = if evidence.is_reversed { "in reverse order" } else { "in this order" };
    body.put("<div class=\"evidence\">", &[]);
    if !words.is_empty() {
        body.put("<blockquote dir=\"auto\">{}</blockquote>", &[words]);
    }
    body.put(
        "<p class=\"quiet\"><span class=\"name\">{}</span>, shown {}, read as it was shown: {}; {} s, {} tokens read, {} written",
        &[judge, &order, &in_words(finding), &number(cost.seconds, 2), &cost.input_tokens, &cost.output_tokens],
    );
    if *removed_marks > 0 {
        body.put("; {} reserved marks taken out", &[removed_marks]);
    }
    if let Some(hash) = &evidence.template {
        body.put(
            "; template <span class=\"name\">{}</span> <code>{}</code>",
            &[&template.unwrap_or(""), hash],
        );
    }
    body.put("</p></div>\n", &[]);
}
