//! The first page: who is there?

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use votive_gallery::html::{Html, RelativeUrl};

use super::{Page, framed};
use crate::answer::PERSON;
use crate::desk::Desk;
use crate::problem::Problem;

pub(super) async fn show(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    if desk.only_watches() {
        return Ok(Redirect::to("/runs").into_response());
    }
    ask(desk).await.map(IntoResponse::into_response)
}

async fn ask(desk: Arc<Desk>) -> Result<Page, Problem> {
    let (raters, pairs) = desk
        .work(|store, queue| {
            let pairs = store.pair_numbers()?;
            let mut raters = Vec::new();
            for judge in store.judges()? {
                if let Some(rater) = judge.strip_prefix(PERSON) {
                    let progress = queue.progress(rater, &pairs, &store.judgments(None, Some(&judge))?);
                    raters.push((rater.to_owned(), progress));
                }
            }
            Ok((raters, pairs.len()))
        })
        .await?;
    let mut body = Html::default();
    body.put("<h1>Which is better?</h1>\n<p>{} pairs are there to be compared, blind: you do not see where they come from, and their \
              sides are drawn.</p>\n", &[&pairs]);
    body.put(
        "<form class=\"line\" action=\"/compare\"><label>Your name \
         <input name=\"rater\" required maxlength=\"40\" autocomplete=\"username\" autofocus></label> \
         <button>Begin, or go on</button></form>\n\
         <p class=\"quiet\">Letters, digits, dashes and dots. Answers are kept under this name.</p>\n",
        &[],
    );
    if !raters.is_empty() {
        body.put("<section><h2>So far</h2>\n<ul>", &[]);
        for (rater, progress) in &raters {
            body.put(
                "<li><a href=\"/compare?rater={}\">{}</a> <span class=\"quiet\">{} of {}</span></li>",
                &[&RelativeUrl(rater), rater, &progress.done, &progress.total],
            );
        }
        body.put("</ul></section>\n", &[]);
    }
    Ok(framed("Compare", None, &body))
}
