//! The prompts of all rows as the text encoders see them, equal ones once.

use super::PromptEncoder;
use super::encoded::{Encoded, Entry, Key, identity};
use crate::error::{Result, TrainError};
use candle_core::Device;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::Path;
use votive_diffusion::Conditioning;
use votive_model::stable_diffusion::{Component, StableDiffusionFolder};

const KIND: &str = "prompts";
/// What is kept of a prompt: what is attended to, and with two text encoders the whole in one vector.
const PARTS: [&[&str]; 2] = [&["prompt_embeds"], &["prompt_embeds", "pooled"]];

/// What decides an encoded prompt besides its ids: the text encoders' configurations and weights.
fn encoders_identity(folder: &StableDiffusionFolder, device: &Device) -> Result<Key> {
    let mut hasher = Sha256::new();
    let components = [Component::TextEncoder, Component::TextEncoder2];
    for (component, config) in components.into_iter().zip(folder.text_encoder_configs()) {
        hasher.update(identity(config, &folder.params(component, device)?)?);
    }
    Ok(hasher.finalize().into())
}

/// Encoded prompts by row.
pub(super) struct PromptTable {
    keys: Vec<Key>,
    encoded: Encoded,
}

impl PromptTable {
    /// Encodes the prompts that do not lie in the folder `cache` yet; gives how many were encoded and how many found.
    ///
    /// # Errors
    /// If a prompt cannot be encoded, or an entry of the cache is not what the encoders give.
    pub(super) fn new<'a>(
        (folder, encoder): (&StableDiffusionFolder, &PromptEncoder),
        all: impl Iterator<Item = &'a str>,
        cache: Option<&Path>,
        device: &Device,
    ) -> Result<(Self, [usize; 2])> {
        let identity = encoders_identity(folder, device)?;
        let parts = PARTS[usize::from(encoder.has_pooled())];
        let mut encoded = Encoded::open(cache, KIND, parts, device)?;
        let (mut keys, mut missing, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for prompt in all {
            let ids: Vec<u8> = encoder.ids(prompt)?.into_iter().flat_map(u32::to_le_bytes).collect();
            let key = Sha256::new().chain_update(identity).chain_update(ids).finalize().into();
            if seen.insert(key) {
                let list = if encoded.contains(&key) { &mut found } else { &mut missing };
                list.push((key, prompt));
            }
            keys.push(key);
        }
        let entry = |prompt: &str| -> Result<Entry> {
            let conditioning = encoder.encode(&[prompt])?.conditioning;
            let parts = std::iter::once(conditioning.prompt_embeds()).chain(conditioning.pooled());
            Ok(parts.cloned().collect())
        };
        encoded.verify(&found, |prompt| entry(prompt))?;
        for (key, prompt) in &missing {
            encoded.insert(*key, entry(prompt)?)?;
        }
        encoded.write()?;
        Ok((Self { keys, encoded }, [missing.len(), found.len()]))
    }

    /// The prompt of a row, in one row.
    ///
    /// # Errors
    /// If its entry cannot be read.
    pub(super) fn get(&self, row: usize) -> Result<Conditioning> {
        let mut parts = self.encoded.get(&self.keys[row])?.into_iter();
        let missing = || TrainError::Plan(format!("row {row}'s prompt was encoded to nothing"));
        let conditioning = Conditioning::new(parts.next().ok_or_else(missing)?)?;
        Ok(match parts.next() {
            Some(pooled) => conditioning.with_pooled(pooled)?,
            None => conditioning,
        })
    }

    /// Numbers of the entries in memory.
    pub(super) fn numbers_in_memory(&self) -> usize {
        self.encoded.numbers_in_memory()
    }
}
