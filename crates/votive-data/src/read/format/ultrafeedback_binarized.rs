//! UltraFeedback as pairs: the prompt as a string beside conversations that repeat it, with the scores of both sides.
//!
//! Source: the data sets HuggingFaceH4/ultrafeedback_binarized, trl-lib/ultrafeedback_binarized and
//! argilla/ultrafeedback-binarized-preferences-cleaned on the hub.

use super::{Format, trl};
use crate::read::row::Row;

pub(super) const FORMAT: Format = Format {
    name: "ultrafeedback-binarized",
    origin: "HuggingFaceH4/ultrafeedback_binarized and its descendants",
    columns: "[`prompt`: a string], `chosen`, `rejected`: lists of messages that repeat it; [`score_chosen`, `score_rejected` or `chosen-rating`, `rejected-rating`]",
    yields: "a pair of conversations; the margin is the difference of the scores",
    recognizes,
    read: trl::read,
};

fn recognizes(row: &Row) -> bool {
    let is_chat = |column| row.peek(column).is_some_and(serde_json::Value::is_array);
    let has_string_prompt = row.peek("prompt").is_some_and(serde_json::Value::is_string);
    let has_scores = row.has("score_chosen") && row.has("score_rejected");
    is_chat("chosen") && is_chat("rejected") && (has_string_prompt || has_scores)
}
