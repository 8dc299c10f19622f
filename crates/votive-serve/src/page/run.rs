//! A run: its report, alarms, curves and samples, as its gallery shows them, and the images that they link to.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use votive_gallery::REPORT_FILE;
use votive_gallery::html::Html;

use super::runs::{Look, word};
use super::{Page, framed_again};
use crate::desk::Desk;
use crate::problem::Problem;

/// The address ends in a slash: links of a gallery are relative to the run directory.
pub(super) async fn show(State(desk): State<Arc<Desk>>, Path(id): Path<String>) -> Result<Page, Problem> {
    let look = desk.watch(move |runs| Ok(Look::at(runs.find(&id)?))).await?;
    let mut body = Html::default();
    body.put("<header class=\"line\">", &[]);
    // Without a title of its own, the name is the heading.
    if !look.record.as_ref().is_ok_and(|record| record.title().is_none()) {
        body.put("<span class=\"name\">{}</span> ", &[&look.run.name]);
    }
    body.put("<span>{}</span> ", &[&word(look.state)]);
    look.progress(&mut body);
    body.put("</header>\n", &[]);
    match &look.record {
        Ok(record) => body.append(&record.sections(&look.run.name)),
        Err(problem) => body.put("<h1>It cannot be read</h1>\n<p>{}</p>\n", &[&problem.message()]),
    };
    Ok(framed_again(&look.run.name, look.again(), &body))
}

/// A file that a run's page links to.
pub(super) async fn file(
    State(desk): State<Arc<Desk>>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response, Problem> {
    desk.watch(move |runs| {
        let run = runs.find(&id)?;
        if file == REPORT_FILE {
            return Ok(([(header::CONTENT_TYPE, "application/json")], run.report()?).into_response());
        }
        let picture = run.image(&file)?;
        let kind = [(header::CONTENT_TYPE, picture.media_type().as_str())];
        Ok((kind, picture.bytes().to_vec()).into_response())
    })
    .await
}
