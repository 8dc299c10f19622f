//! What is in the store, a page at a time.

use std::sync::Arc;

use axum::extract::{Query, State};
use serde::Deserialize;
use votive_critic::{Outline, Shown};
use votive_gallery::html::{Html, RelativeUrl};

use super::{Page, framed};
use crate::desk::Desk;
use crate::problem::Problem;

/// Items of a page.
const PAGE: u64 = 30;

/// Characters of a text in the list.
const EXCERPT: usize = 160;

#[derive(Deserialize)]
pub(super) struct Asked {
    /// Words of the prompt.
    #[serde(default)]
    q: String,
    /// Counted from 0.
    #[serde(default)]
    page: u64,
}

pub(super) async fn show(State(desk): State<Arc<Desk>>, Query(asked): Query<Asked>) -> Result<Page, Problem> {
    let Asked { q, page } = asked;
    let words = q.clone();
    let (found, total) = desk
        .work(move |store, _| {
            let (numbers, total) = store.search(&words, page.saturating_mul(PAGE), PAGE)?;
            let mut found = Vec::with_capacity(numbers.len());
            for number in numbers {
                if let Some(outline) = store.outline(number)? {
                    found.push((outline, store.judgments(Some(number), None)?.len()));
                }
            }
            Ok((found, total))
        })
        .await?;
    let mut body = Html::default();
    body.put(
        "<h1>Items</h1>\n<form class=\"line\" action=\"/items\"><label>Words of the prompt <input name=\"q\" value=\"{}\"></label> \
         <button>Find</button> <span class=\"quiet\">{} found</span></form>\n<div class=\"cards\">\n",
        &[&q, &total],
    );
    for (outline, judgments) in &found {
        card(&mut body, outline, *judgments);
    }
    body.put("</div>\n<p class=\"line\">", &[]);
    if page > 0 {
        body.put(
            "<a rel=\"prev\" href=\"/items?q={}&amp;page={}\">← before</a> ",
            &[&RelativeUrl(&q), &(page - 1)],
        );
    }
    if total > page.saturating_add(1).saturating_mul(PAGE) {
        body.put(
            "<a rel=\"next\" href=\"/items?q={}&amp;page={}\">after →</a>",
            &[&RelativeUrl(&q), &(page + 1)],
        );
    }
    body.put("</p>\n", &[]);
    Ok(framed("Items", None, &body))
}

fn card(body: &mut Html, outline: &Outline, judgments: usize) {
    body.put(
        "<article class=\"card\"><a class=\"prompt\" dir=\"auto\" href=\"/items/{}\">{}</a>\n<div class=\"pair\">",
        &[&outline.id, &excerpt(&outline.prompt)],
    );
    for candidate in &outline.candidates {
        match candidate {
            Shown::Text(text) => body.put("<blockquote dir=\"auto\">{}</blockquote>", &[&excerpt(text)]),
            Shown::Image(hash) => body.put("<img loading=\"lazy\" src=\"/image/{}\" alt=\"\">", &[hash]),
        };
    }
    body.put("</div><p class=\"quiet\">{} judgments</p></article>\n", &[&judgments]);
}

/// The beginning of a text, or `…` for none, so that there is something to click on.
fn excerpt(text: &str) -> String {
    let mut characters = text.chars();
    let mut excerpt: String = characters.by_ref().take(EXCERPT).collect();
    if characters.next().is_some() || excerpt.trim().is_empty() {
        excerpt.push('…');
    }
    excerpt
}
