//! UltraFeedback: an instruction, and completions with ratings of several aspects.
//!
//! Source: Cui et al., arXiv:2310.01377; the data set openbmb/UltraFeedback on the hub.
//!
//! A completion's score is the mean of its aspects' ratings. `overall_score` is taken only where some completion of the
//! row has no aspects: it is a number on another scale, and several hundred of the published ones are wrong.

use serde_json::Value;

use super::{Format, Meaning, ranked};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::question;
use crate::read::ranking::Ranking;
use crate::read::row::{Row, Text};

const COLUMNS: &str =
    "a row has the columns `instruction` and `completions`, a list of objects with `response`";

pub(super) const FORMAT: Format = Format {
    name: "ultrafeedback",
    origin: "openbmb/UltraFeedback",
    columns: "`instruction`: a string; `completions`: objects with `response` and `annotations.<aspect>.Rating` or `overall_score`",
    yields: "pairs of conversations, as `data.pairs` says; the margin is the difference of the mean ratings",
    recognizes: |row| row.has("instruction") && ranked::holds_objects(row, "completions", "response"),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let prompt = Text::Chat(question(None, &row.string("instruction", COLUMNS)?));
    let list = row.list("completions", COLUMNS)?;
    let mut aspects = Vec::with_capacity(list.len());
    let mut overall = Vec::with_capacity(list.len());
    let mut texts = Vec::with_capacity(list.len());
    for (idx, entry) in list.iter().enumerate() {
        let field = |name: &str| format!("completions[{idx}].{name}");
        let text = entry.get("response").unwrap_or(&Value::Null);
        let Value::String(text) = text else { return Err(row.wrong(&field("response"), "a string", text)) };
        texts.push(ranked::answer(text));
        aspects.push(mean_rating(row, &field("annotations"), entry.get("annotations"))?);
        overall.push(ranked::score(row, &field("overall_score"), entry.get("overall_score"))?);
    }
    let scores = if aspects.iter().all(Option::is_some) { aspects } else { overall };
    let completions = texts.into_iter().zip(scores).collect();
    Ok(Meaning::Ranked(Ranking { prompt, options: row.chat_options()?, completions }))
}

/// Mean of the ratings that are numbers.
fn mean_rating(row: &Row, field: &str, annotations: Option<&Value>) -> Result<Option<f64>> {
    let mut ratings = Vec::new();
    for (aspect, annotation) in annotations.and_then(Value::as_object).into_iter().flatten() {
        let field = format!("{field}.{aspect}.Rating");
        ratings.extend(ranked::score(row, &field, annotation.get("Rating"))?);
    }
    let mean = ratings.iter().sum::<f64>() / ratings.len().max(1) as f64;
    Ok((!ratings.is_empty()).then_some(mean))
}
