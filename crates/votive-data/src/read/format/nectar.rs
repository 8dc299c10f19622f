//! Nectar: a prompt with seven answers and their ranks.
//!
//! Source: the data set berkeley-nest/Nectar on the hub. Rank 1 is the best.

use serde_json::Value;

use super::{Format, Meaning, hh_rlhf, ranked};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::ranking::Ranking;
use crate::read::row::Row;

const COLUMNS: &str =
    "a row has the columns `prompt` and `answers`, a list of objects with `answer` and `rank`";

pub(super) const FORMAT: Format = Format {
    name: "nectar",
    origin: "berkeley-nest/Nectar",
    columns: "`prompt`: a string, or a dialogue as in HH-RLHF; `answers`: objects with `answer` and `rank`",
    yields: "pairs of conversations, as `data.pairs` says; the margin is the difference of the ranks",
    recognizes: |row| row.has("prompt") && row.peek("answers").is_some_and(Value::is_array),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let prompt = hh_rlhf::prompt_of(&row.string("prompt", COLUMNS)?);
    let answers = row.list("answers", COLUMNS)?;
    let mut completions = Vec::with_capacity(answers.len());
    for (idx, answer) in answers.iter().enumerate() {
        let field = |name: &str| format!("answers[{idx}].{name}");
        let text = answer.get("answer").unwrap_or(&Value::Null);
        let Value::String(text) = text else { return Err(row.wrong(&field("answer"), "a string", text)) };
        let rank = ranked::score(row, &field("rank"), answer.get("rank"))?;
        completions.push((ranked::answer(text), rank.map(|rank| -rank)));
    }
    Ok(Meaning::Ranked(Ranking { prompt, options: row.chat_options()?, completions }))
}
