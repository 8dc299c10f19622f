//! NeMo's ranked conversations: a context, and completions with their ranks.
//!
//! Source: NeMo-RL, `docs/guides/dpo.md` (`PreferenceDataset`). Rank 0 is the best.

use serde_json::Value;

use super::{Format, Meaning, ranked};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::ranking::Ranking;
use crate::read::row::{Row, Text};

const COLUMNS: &str = "a row has the columns `context` (messages) and `completions`, a list of objects with `rank` and `completion`";

pub(super) const FORMAT: Format = Format {
    name: "nemo",
    origin: "NeMo-RL: preference data",
    columns: "`context`: messages; `completions`: objects with `rank` and `completion` (messages or a string)",
    yields: "pairs of conversations, as `data.pairs` says; the margin is the difference of the ranks",
    recognizes: |row| row.has("context") && ranked::holds_objects(row, "completions", "completion"),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let prompt = Text::Chat(match row.text("context", COLUMNS)? {
        Text::Plain(text) => vec![crate::record::Message::new("user", &text)],
        Text::Chat(turns) => turns,
    });
    let list = row.list("completions", COLUMNS)?;
    let mut completions = Vec::with_capacity(list.len());
    for (idx, mut entry) in list.into_iter().enumerate() {
        let field = |name: &str| format!("completions[{idx}].{name}");
        let rank = ranked::score(row, &field("rank"), entry.get("rank"))?;
        let text = entry.get_mut("completion").map(Value::take).unwrap_or_default();
        let completion = match row.as_text(&field("completion"), text)? {
            Text::Plain(text) => ranked::answer(&text),
            turns => turns,
        };
        completions.push((completion, rank.map(|rank| -rank)));
    }
    Ok(Meaning::Ranked(Ranking { prompt, options: row.chat_options()?, completions }))
}
