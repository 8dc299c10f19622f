//! What a recipe says of preferences between what the policy itself draws.

use crate::error::Result;
use crate::front_end::RolloutPairs;
use crate::recipe::{Resolver, Setting};
use std::path::Path;

/// How the policy draws while it is trained, and who says what is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutPlan {
    /// What is compared.
    pub pairs: RolloutPairs,
    /// Who says what is good.
    pub reward: RewardKind,
    /// Calls of the U-Net in a whole chain.
    pub steps: usize,
    /// Noise of a step.
    pub eta: f64,
    /// Scale of classifier-free guidance.
    pub cfg: f64,
    /// Draws from one `x_t`.
    pub candidates: usize,
    /// The first step of a chain that is trained.
    pub first_step: usize,
    /// Gap of scores that a pair must exceed.
    pub min_gap: f64,
}

/// Who says what is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewardKind {
    /// The exact checker of the playground's pictures.
    Playground,
}

/// The table, if the recipe has it: then `data.path` holds prompts.
pub(super) fn rollout(r: &mut Resolver) -> Option<RolloutPlan> {
    if r.names_below("rollout").is_empty() {
        return None;
    }
    let pairs = r.named(
        "rollout.pairs",
        &[(RolloutPairs::Steps, "steps"), (RolloutPairs::Images, "images")],
        RolloutPairs::Steps,
        "What is compared: draws for one step from the same latents (SPO, TailorPO), or two whole pictures (D3PO).",
    );
    let reward = r.named(
        "rollout.reward",
        &[(RewardKind::Playground, "playground")],
        RewardKind::Playground,
        "Who says what is good: the exact checker of the playground's captions.",
    );
    let steps = r.whole("rollout.steps", 1, Some(20), "Calls of the U-Net in a whole chain.").unwrap_or(20);
    let eta =
        r.float("rollout.eta", 0.0, Some(1.0), "Noise of a DDIM step, above 0, at most 1.").unwrap_or(1.0);
    if !(eta > 0.0 && eta <= 1.0) {
        r.mistake("rollout.eta", "must be above 0 and at most 1: a step without noise has no probability");
    }
    let cfg = r
        .float("rollout.cfg", 0.0, Some(5.0), "Scale of guidance while drawing and training.")
        .unwrap_or(5.0);
    let candidates = match pairs {
        RolloutPairs::Steps => {
            let doc = "Draws from the same latents, of which the best and the worst are compared (`steps`).";
            r.whole("rollout.candidates", 2, Some(4), doc).unwrap_or(4)
        }
        RolloutPairs::Images => 2,
    };
    let first_step = "The first step of a chain that is trained, counted from 0 at the noisy end.";
    let first_step = r.whole("rollout.first_step", 0, Some(0), first_step).unwrap_or(0);
    let min_gap =
        "Pairs whose scores are not further apart than this, in the reward's units, give no gradient.";
    let min_gap = r.float("rollout.min_gap", 0.0, Some(0.0), min_gap).unwrap_or(0.0);
    Some(RolloutPlan {
        pairs,
        reward,
        steps: steps as usize,
        eta,
        cfg,
        candidates: candidates as usize,
        first_step: first_step as usize,
        min_gap,
    })
}

/// Every key.
pub(super) fn keys() -> Result<Vec<Setting>> {
    let mut r = Resolver::parse(Path::new("reference"), "[rollout]\nx = 0\n", &[])?;
    rollout(&mut r);
    Ok(r.settings().to_vec())
}
