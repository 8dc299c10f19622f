//! What a recipe says of a moving average of the weights.

use crate::ema::{EmaPlan, EmaWarmup};
use crate::error::Result;
use crate::recipe::{Resolver, Setting};
use std::collections::BTreeSet;
use std::path::Path;

/// The table, if the recipe has it.
pub(super) fn ema(r: &mut Resolver) -> Option<EmaPlan> {
    if r.names_below("ema").is_empty() {
        return None;
    }
    let doc = "Largest decay of the moving average of the weights, below 1.";
    let decay = r.float("ema.decay", 0.0, Some(0.9999), doc).unwrap_or(0.9999);
    let doc = "Smallest decay once the average has begun.";
    let min_decay = r.float("ema.min_decay", 0.0, Some(0.0), doc).unwrap_or(0.0);
    if decay >= 1.0 {
        r.mistake("ema.decay", "must be below 1, or the average never moves");
    }
    if min_decay > decay {
        r.mistake("ema.min_decay", &format!("must be at most ema.decay, {decay}"));
    }
    let after =
        r.whole("ema.after", 0, Some(0), "Steps before the average begins; until then it is the weights.");
    let doc = "How the decay grows over the steps s since: (1 + s)/(10 + s) (`ratio`), or 1 − (1 + s/inv_gamma)^(−power) (`power`).";
    let warmup = r.choice("ema.warmup", &["ratio", "power"], "ratio", doc);
    let warmup = if warmup == "power" {
        let inv_gamma =
            r.float("ema.inv_gamma", 0.0, Some(1.0), "Steps that count as one (`power`), above 0.");
        if inv_gamma == Some(0.0) {
            r.mistake("ema.inv_gamma", "must be above 0");
        }
        let power = r.float("ema.power", 0.0, Some(2.0 / 3.0), "The exponent (`power`).");
        EmaWarmup::Power { inv_gamma: inv_gamma.unwrap_or(1.0), power: power.unwrap_or(2.0 / 3.0) }
    } else {
        EmaWarmup::Ratio
    };
    let doc = "Whether the finished model and the run's samples are the average's; checkpoints hold both either way.";
    let is_final = r.flag("ema.final", true, doc);
    Some(EmaPlan { decay, min_decay, after: after.unwrap_or(0), warmup, is_final })
}

/// Every key, of one way to grow or the other, once each.
pub(super) fn keys() -> Result<Vec<Setting>> {
    let mut keys: Vec<Setting> = Vec::new();
    for table in ["x = 0", "warmup = \"power\""] {
        let mut r = Resolver::parse(Path::new("reference"), &format!("[ema]\n{table}\n"), &[])?;
        ema(&mut r);
        keys.extend(r.settings().iter().cloned());
    }
    let mut seen = BTreeSet::new();
    keys.retain(|setting| seen.insert(setting.key.clone()));
    Ok(keys)
}
