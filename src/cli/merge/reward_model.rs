//! An adapter added into a reward model's weights: below a head of its own, or with the head that the adapter brings.

use super::verify::{Comparison, Networks, compare};
use super::{Args, report, rounded, within_bound, write_card};
use crate::cli::score::open_reward_model;
use crate::cli::{Context, Outcome};
use candle_core::DType;
use std::path::Path;
use votive_model::{Params, files, hub_folder};
use votive_train::front_end::{FrontEnd, RewardFrontEnd};

impl Args {
    /// Writes a folder that transformers loads as sequence classification, whichever kind of model is below the adapter.
    pub(super) fn merge_reward_model(&self, model: &Path, adapter: &Path, ctx: &Context) -> Outcome {
        let (front, adapted) = open_reward_model(model, Some(adapter), ctx)?;
        let float = self.float(model)?;
        let mut comparison = None;
        hub_folder::write_folder(&self.out, |folder| -> Outcome {
            hub_folder::copy_tokenizer(model, folder)?;
            let config = front.reward_config().to_json(hub_folder::torch_dtype(float)?);
            files::write_json(&folder.join("config.json"), &config)?;
            let merged = adapted.merged()?;
            hub_folder::write_reward_model_weights(folder, &merged, float, self.shard_mib << 20)?;
            write_card(folder, adapter, model)?;
            if self.verify {
                comparison = Some(self.verified_rewards(&front, &adapted, (folder, float), ctx)?);
            }
            Ok(())
        })?;
        report(self, float, comparison.as_ref(), ctx)
    }

    fn verified_rewards(
        &self,
        front: &RewardFrontEnd,
        adapted: &Params,
        (folder, float): (&Path, DType),
        ctx: &Context,
    ) -> Outcome<Comparison> {
        let (stored, params) = open_reward_model(folder, None, ctx)?;
        let rows = self.rows(stored.tokenizer(), stored.max_positions())?;
        let merged = adapted.merged()?;
        let networks = Networks {
            adapted: front.network(adapted)?,
            rounded: front.network(&rounded(&merged, float)?)?,
            merged: front.network(&merged)?,
            stored: stored.network(&params)?,
        };
        within_bound(compare(&networks, &rows)?)
    }
}
