//! HelpSteer3: a conversation, two responses, and a signed preference between them.
//!
//! Source: Wang et al., arXiv:2505.11475; the data set nvidia/HelpSteer3 on the hub. −3 says that the first response is
//! much better, 3 that the second is.

use super::{Format, Meaning};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::{answers, question};
use crate::read::row::{Row, Text};
use crate::report::RowProblem;

const COLUMNS: &str = "a row has the columns `context`, `response1`, `response2` and `overall_preference`";

pub(super) const FORMAT: Format = Format {
    name: "helpsteer3",
    origin: "nvidia/HelpSteer3",
    columns: "`context`: messages or a string; `response1`, `response2`: strings; `overall_preference`: a signed number",
    yields: "a pair of conversations: below 0 the first response is chosen, above 0 the second; the margin is the size; 0 is a tie",
    recognizes: |row| row.has("response1") && row.has("response2") && row.has("overall_preference"),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let context = match row.text("context", COLUMNS)? {
        Text::Plain(text) => question(None, &text),
        Text::Chat(turns) => turns,
    };
    let (first, second) = (row.string("response1", COLUMNS)?, row.string("response2", COLUMNS)?);
    let preference = row.optional_number("overall_preference")?;
    let options = row.chat_options()?;
    Ok(match preference {
        None => Meaning::Nothing(RowProblem::Unscored, ""),
        Some(0.0) => Meaning::Nothing(RowProblem::Tie, ""),
        Some(preference) => {
            let (chosen, rejected) = if preference < 0.0 { (&first, &second) } else { (&second, &first) };
            Meaning::Pair(answers(context, chosen, rejected, options), Some(preference.abs()))
        }
    })
}
