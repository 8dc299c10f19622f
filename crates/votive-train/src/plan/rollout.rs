//! What a recipe says of preferences between what the policy itself draws.

use super::path;
use crate::error::Result;
use crate::front_end::RolloutPairs;
use crate::recipe::{Resolver, Setting};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml_edit::Value;

/// How the policy draws while it is trained, and who says what is good.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutPlan {
    /// What is compared.
    pub pairs: RolloutPairs,
    /// Who says what is good.
    pub reward: RewardKind,
    /// The folder of the CLIP model that says it; none if it is somebody else.
    pub clip: Option<PathBuf>,
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
    /// How far the better side of a pair is moved along its score's gradient.
    pub ascent: f64,
    /// A reward beyond which there is no gradient; none for no such reward.
    pub enough: Option<f64>,
}

/// Who says what is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewardKind {
    /// The exact checker of the playground's pictures.
    Playground,
    /// A CLIP model: how well a picture fits its prompt.
    Clip,
}

/// The table, if the recipe has it: then `data.path` holds prompts.
pub(super) fn rollout(r: &mut Resolver) -> Option<RolloutPlan> {
    if r.names_below("rollout").is_empty() {
        return None;
    }
    let pairs = r.named(
        "rollout.pairs",
        &[(RolloutPairs::Steps, "steps"), (RolloutPairs::Images, "images"), (RolloutPairs::None, "none")],
        RolloutPairs::Steps,
        "What is compared: draws for one step from the same latents (SPO, TailorPO), or two whole pictures (D3PO); or nothing, \
         and the reward's gradient goes through one picture of each prompt (ReFL).",
    );
    let is_compared = pairs != RolloutPairs::None;
    let (reward, clip) = reward(r, is_compared);
    let steps = r.whole("rollout.steps", 1, Some(20), "Calls of the U-Net in a whole chain.").unwrap_or(20);
    let doc = "Noise of a DDIM step, at most 1, and above 0 where steps are compared.";
    let eta = r.float("rollout.eta", 0.0, Some(1.0), doc).unwrap_or(1.0);
    if eta > 1.0 || (is_compared && eta <= 0.0) {
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
        RolloutPairs::None => 1,
    };
    let first_step = "The first step of a chain that is trained, counted from 0 at the noisy end.";
    let first_step = r.whole("rollout.first_step", 0, Some(0), first_step).unwrap_or(0);
    let min_gap = if is_compared {
        let doc =
            "Pairs whose scores are not further apart than this, in the reward's units, give no gradient.";
        r.float("rollout.min_gap", 0.0, Some(0.0), doc).unwrap_or(0.0)
    } else {
        0.0
    };
    let ascent = if pairs == RolloutPairs::Steps {
        let doc = "How far the better draw is moved along the gradient of its reward before it is compared (TailorPO-G), in \
                   deviations of the step; 0 for not (`steps`).";
        let ascent = r.float("rollout.ascent", 0.0, Some(0.0), doc).unwrap_or(0.0);
        if ascent > 0.0 && reward == RewardKind::Playground {
            r.mistake("rollout.ascent", NO_GRADIENT);
        }
        ascent
    } else {
        0.0
    };
    let enough = if is_compared { None } else { enough(r) };
    Some(RolloutPlan {
        pairs,
        reward,
        clip,
        steps: steps as usize,
        eta,
        cfg,
        candidates: candidates as usize,
        first_step: first_step as usize,
        min_gap,
        ascent,
        enough,
    })
}

const NO_GRADIENT: &str = "needs a reward with a gradient by a picture's pixels: rollout.reward = \"clip\"";

fn enough(r: &mut Resolver) -> Option<f64> {
    const NONE: &str = "none";
    let read = |value: &Value| match value.as_str() {
        Some(word) => (word == NONE).then_some(None),
        None => {
            let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64))?;
            number.is_finite().then_some(Some(number))
        }
    };
    let show = |enough: &Option<f64>| enough.map_or_else(|| Value::from(NONE), Value::from);
    let doc = "A reward beyond which a picture gives no gradient, in the reward's units (with `rollout.pairs = \"none\"`).";
    r.shaped("rollout.enough", "\"none\" | a number", None, doc, (read, show))
}

fn reward(r: &mut Resolver, is_compared: bool) -> (RewardKind, Option<PathBuf>) {
    let reward = r.named(
        "rollout.reward",
        &[(RewardKind::Playground, "playground"), (RewardKind::Clip, "clip")],
        RewardKind::Playground,
        "Who says what is good: the exact checker of the playground's captions, or a CLIP model (PickScore and HPSv2 are two), \
         whose logit of picture and prompt is the reward.",
    );
    if reward == RewardKind::Playground && !is_compared {
        r.mistake("rollout.reward", NO_GRADIENT);
    }
    let doc = "Folder of the CLIP model (`clip`). With an `aesthetic.safetensors` in it, the reward is what that head says of 10, \
               whatever the prompt.";
    let clip = (reward == RewardKind::Clip).then(|| path(r, "rollout.clip", doc));
    (reward, clip)
}

/// Every key, of one kind of rollout or another, once each.
pub(super) fn keys() -> Result<Vec<Setting>> {
    let mut keys: Vec<Setting> = Vec::new();
    for kinds in ["x = 0", "pairs = \"none\"\nreward = \"clip\""] {
        let mut r = Resolver::parse(Path::new("reference"), &format!("[rollout]\n{kinds}\n"), &[])?;
        rollout(&mut r);
        keys.extend(r.settings().iter().cloned());
    }
    let mut seen = BTreeSet::new();
    keys.retain(|setting| seen.insert(setting.key.clone()));
    Ok(keys)
}
