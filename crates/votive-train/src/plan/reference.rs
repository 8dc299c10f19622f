//! What a recipe says of the reference.

use super::path;
use crate::error::Result;
use crate::recipe::{Resolver, Setting};
use crate::reference::{ReferencePlan, UpdateKind, UpdateRule};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const REFERENCES: [&str; 9] =
    ["frozen", "adapter_off", "cached", "model", "adapter", "soft", "hard", "bema", "none"];

/// Every kind of reference has keys of its own; those of the others are refused.
pub(super) fn reference(r: &mut Resolver, usual: &'static str) -> ReferencePlan {
    let kind = r.choice(
        "reference.kind",
        &REFERENCES,
        usual,
        "What the policy is compared with: its start (`frozen`, `adapter_off`, `cached`), another `model` or `adapter`, or \
         itself some steps ago (`soft`, `hard`, `bema`).",
    );
    let every = |r: &mut Resolver, default| {
        let doc = "Steps from one update of the reference to the next (`soft`, `hard`, `bema`).";
        r.whole("reference.every", 1, Some(default), doc).unwrap_or(default)
    };
    let updating = |r: &mut Resolver, every, kind| {
        let doc = "How far the reference may go from the start before it stays for good (`soft`, `hard`, `bema`): denoising \
                   errors, or nats a completion, beyond the start's on chosen ones; 0 for no limit.";
        let limit = r.float("reference.max_divergence", 0.0, Some(0.0), doc).filter(|limit| *limit > 0.0);
        ReferencePlan::Updating(UpdateRule { every, kind, max_divergence: limit })
    };
    let folder = "Folder of the reference (`model`, `adapter`).";
    match kind.as_str() {
        "adapter_off" => ReferencePlan::AdapterOff,
        "cached" => ReferencePlan::Cached { file: cache_file(r) },
        "model" => ReferencePlan::Model { path: path(r, "reference.path", folder) },
        "adapter" => ReferencePlan::Adapter { path: path(r, "reference.path", folder) },
        "soft" => {
            let every = every(r, 512);
            let doc = "Share of the policy in an update (`soft`), above 0; the rest is the reference before.";
            let alpha = r.float("reference.alpha", 0.0, Some(0.6), doc).unwrap_or(0.6);
            if !(alpha > 0.0 && alpha <= 1.0) {
                r.mistake("reference.alpha", &format!("{alpha}, expected more than 0 and at most 1"));
            }
            updating(r, every, UpdateKind::Mix { alpha })
        }
        "hard" => {
            let every = every(r, 512);
            updating(r, every, UpdateKind::Mix { alpha: 1.0 })
        }
        "bema" => {
            let every = every(r, 400);
            updating(r, every, UpdateKind::Bema)
        }
        "none" => ReferencePlan::None,
        _ => ReferencePlan::Frozen,
    }
}

/// The model that the first of several rounds started from.
pub(super) fn base(r: &mut Resolver) -> Option<PathBuf> {
    const KEY: &str = "reference.base";
    let doc = "Folder of the model that the first of several rounds started from, for objectives that read one; empty: none.";
    let given = PathBuf::from(r.string(KEY, Some(""), doc).filter(|folder| !folder.is_empty())?);
    let absolute = std::path::absolute(&given).unwrap_or(given);
    r.settle(KEY, &absolute.to_string_lossy());
    Some(absolute)
}

fn cache_file(r: &mut Resolver) -> Option<PathBuf> {
    const KEY: &str = "reference.file";
    let doc = "File that keeps the log-probabilities for other runs (`cached`); empty: memory alone.";
    let given = PathBuf::from(r.string(KEY, Some(""), doc).filter(|file| !file.is_empty())?);
    let absolute = std::path::absolute(&given).unwrap_or(given);
    r.settle(KEY, &absolute.to_string_lossy());
    Some(absolute)
}

/// The keys that belong to one kind of reference or another, once each.
pub(super) fn keys() -> Result<Vec<Setting>> {
    let mut keys: Vec<Setting> = Vec::new();
    for kind in REFERENCES {
        let mut r =
            Resolver::parse(Path::new("reference"), &format!("[reference]\nkind = \"{kind}\"\n"), &[])?;
        reference(&mut r, "frozen");
        keys.extend(r.settings().iter().skip(1).cloned());
    }
    let mut seen = BTreeSet::new();
    keys.retain(|setting| seen.insert(setting.key.clone()));
    Ok(keys)
}
