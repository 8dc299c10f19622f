//! Best of several: a reward model chooses among the completions of a prompt.

use crate::cli::score::{is_reward_model, open_reward_model};
use crate::cli::{Code, Context, Failure, Outcome};
use std::path::Path;
use votive_data::TextTokenizer;
use votive_model::RewardModel;
use votive_train::front_end::FrontEnd;

/// A reward model that reads the tokens of a language model.
#[derive(Debug)]
pub(crate) struct Judge {
    network: RewardModel,
}

impl Judge {
    /// Opens a reward model whose tokens are those of `tokenizer`, the language model's.
    ///
    /// # Errors
    /// If the folder is no reward model's, or has other tokens.
    pub(crate) fn open(folder: &Path, tokenizer: &TextTokenizer, ctx: &Context) -> Outcome<Self> {
        let place = folder.display();
        if !is_reward_model(folder, None, ctx)? {
            let message =
                format!("--reward {place}: a language model, which says nothing of how good a text is");
            return Err(
                Failure::usage(message).hint("examples/recipes/text/reward.toml trains a reward model")
            );
        }
        let (front, params) = open_reward_model(folder, None, ctx)?;
        if let Some(difference) = front.tokenizer().difference(tokenizer) {
            let message = format!("--reward {place}: it has other tokens than the model: {difference}");
            return Err(Failure::data(message));
        }
        Ok(Self { network: front.network(&params)? })
    }

    /// The place of the row with the greatest reward, the first of several, and that reward; rows go through the network `batch` at
    /// a time.
    ///
    /// # Errors
    /// If a row is too long for the reward model, or a reward is not a number.
    pub(crate) fn best(&self, rows: &[Vec<u32>], batch: usize) -> Outcome<(usize, f32)> {
        let mut best: Option<(usize, f32)> = None;
        for (start, rows) in (0..).step_by(batch).zip(rows.chunks(batch)) {
            for (row, reward) in (start..).zip(self.network.rewards(rows, None)?.to_vec1::<f32>()?) {
                if !reward.is_finite() {
                    return Err(Failure::new(Code::Numbers, format!("a completion has the reward {reward}")));
                }
                if best.is_none_or(|(_, most)| reward > most) {
                    best = Some((row, reward));
                }
            }
        }
        best.ok_or_else(|| Failure::usage("--best-of: there is no completion to choose from"))
    }
}
