//! Log-probabilities and rewards token by token, and their picture.
//!
//! With a reference, a token's reward is `β·log(π/π_ref)`: Rafailov et al., "From r to Q*" (arXiv:2404.12358), Eq. 12, read
//! a model trained by DPO as `Q* − V*` of the token's Markov decision process. The rewards of a completion add up to its implicit
//! reward.

use super::scorer::{ScoredCompletion, ScoredRow};
use crate::cli::Outcome;
use serde_json::{Map, Value, json};
use votive_data::{TextStream, TextTokenizer};
use votive_gallery::{HeatCompletion, HeatMap, HeatRow, HeatToken};

/// A scored row with what the reference says of it.
pub(super) struct TokenRow<'a> {
    pub(super) row: &'a ScoredRow,
    pub(super) reference: Option<&'a ScoredRow>,
    pub(super) beta: f64,
}

impl TokenRow<'_> {
    /// The names of the row's completions, as prefixes of keys.
    fn sides(&self) -> &'static [&'static str] {
        if self.row.label.is_some() { &["completion"] } else { &["chosen", "rejected"] }
    }

    fn completions(
        &self,
    ) -> impl Iterator<Item = (&'static str, &ScoredCompletion, Option<&ScoredCompletion>)> {
        let reference = |at: usize| self.reference.and_then(|row| row.completions.get(at));
        let sides = self.sides().iter().zip(&self.row.completions).enumerate();
        sides.map(move |(at, (side, completion))| (*side, completion, reference(at)))
    }

    /// Rewards of a completion's tokens, in nats times β.
    fn rewards(&self, completion: &ScoredCompletion, reference: &ScoredCompletion) -> Vec<f64> {
        let pairs = completion.token_logps.iter().zip(&reference.token_logps);
        pairs.map(|(policy, reference)| self.beta * (f64::from(*policy) - f64::from(*reference))).collect()
    }

    /// Adds `<side>_token_ids`, `<side>_token_logps` and, with a reference, `<side>_token_rewards`.
    pub(super) fn add_to(&self, object: &mut Map<String, Value>) {
        for (side, completion, reference) in self.completions() {
            let mut add = |key: &str, value: Value| object.insert(format!("{side}_{key}"), value);
            add("token_ids", json!(completion.ids));
            add("token_logps", json!(completion.token_logps));
            if let Some(reference) = reference {
                add("token_rewards", json!(self.rewards(completion, reference)));
            }
        }
    }

    fn heat(&self, tokenizer: &TextTokenizer) -> Outcome<HeatRow> {
        let mut completions = Vec::new();
        for (side, completion, reference) in self.completions() {
            let values = match reference {
                Some(reference) => self.rewards(completion, reference),
                None => completion.token_logps.iter().map(|logp| f64::from(*logp)).collect(),
            };
            let texts = texts(tokenizer, &completion.ids)?;
            let tokens =
                texts.into_iter().zip(values).map(|(text, value)| HeatToken { text, value }).collect();
            completions.push(HeatCompletion { side: side.to_owned(), tokens });
        }
        let prompt = tokenizer.decode(&self.row.prompt_ids, true)?;
        Ok(HeatRow { row: self.row.row, prompt, completions })
    }
}

/// The text of every token; a name in brackets for one that has none by itself.
fn texts(tokenizer: &TextTokenizer, ids: &[u32]) -> Outcome<Vec<String>> {
    let mut stream = TextStream::new(tokenizer, &[]);
    let mut texts = Vec::with_capacity(ids.len());
    for id in ids {
        let text = stream.push(*id)?.to_owned();
        texts.push(if text.is_empty() { tokenizer.token(*id).unwrap_or_default() } else { text });
    }
    Ok(texts)
}

/// The picture of some rows.
pub(super) fn heat_map(rows: &[TokenRow], tokenizer: &TextTokenizer, title: String) -> Outcome<HeatMap> {
    let with_reference = rows.iter().any(|row| row.reference.is_some());
    let what = match with_reference {
        true => "Reward of each token, β·log(π/π_ref): what the model's training gave and took",
        false => "Log-probability of each token, in nats",
    };
    let rows = rows.iter().map(|row| row.heat(tokenizer)).collect::<Outcome<Vec<_>>>()?;
    Ok(HeatMap { title, what: what.to_owned(), is_signed: with_reference, rows })
}
