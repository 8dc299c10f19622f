//! `generation_config.json`: what the makers of a model think a good way to draw from it.
//!
//! Absent fields are what `generate` of transformers 5.23 makes them: nothing is drawn unless `do_sample` says so, and
//! what is drawn comes from the 50 most probable tokens.

use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::sampling::SamplingPolicy;
use serde_json::Value;
use std::path::Path;

const FILE: &str = "generation_config.json";
const TOP_K: usize = 50;

/// Fields that would change the result and are not implemented, with the values that do nothing.
const IDLE: &[(&str, &[f64])] = &[
    ("num_beams", &[1.0]),
    ("num_beam_groups", &[1.0]),
    ("penalty_alpha", &[0.0]),
    ("typical_p", &[1.0]),
    ("top_h", &[]),
    ("epsilon_cutoff", &[0.0]),
    ("eta_cutoff", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("min_length", &[0.0]),
    ("min_new_tokens", &[0.0]),
    ("guidance_scale", &[1.0]),
    ("diversity_penalty", &[0.0]),
    ("bad_words_ids", &[]),
    ("sequence_bias", &[]),
    ("suppress_tokens", &[]),
    ("begin_suppress_tokens", &[]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
    ("exponential_decay_length_penalty", &[]),
    ("watermarking_config", &[]),
];

/// What a model's folder says about drawing from it.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// How tokens are chosen.
    pub policy: SamplingPolicy,
    /// Most new tokens, if the file says.
    pub max_new_tokens: Option<usize>,
    /// Texts that end a completion.
    pub stop_strings: Vec<String>,
}

impl GenerationConfig {
    /// Reads a model folder's file.
    ///
    /// # Errors
    /// If there is none, a field has the wrong type or is out of range, or asks for what is not implemented.
    pub fn read_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(ModelError::NotFound { folder: folder.into(), expected: FILE.to_owned() });
        }
        Self::read(&ConfigFile::read(&path)?)
    }

    fn read(file: &ConfigFile) -> Result<Self> {
        for (field, idle) in IDLE {
            let is_idle = |value: &Value| value.as_f64().is_some_and(|number| idle.contains(&number));
            if file.get(field).is_some_and(|value| !is_idle(value)) {
                return Err(file.unsupported(field, "take it out of the file"));
            }
        }
        let is_drawn = file.bool_or("do_sample", false)?;
        let temperature = file.maybe_f64("temperature")?.unwrap_or(1.0);
        let top_k = file.maybe_usize("top_k")?.unwrap_or(TOP_K);
        let policy = SamplingPolicy {
            temperature: if is_drawn { temperature } else { 0.0 },
            top_k: Some(top_k).filter(|k| is_drawn && *k > 0),
            top_p: file.maybe_f64("top_p")?.filter(|_| is_drawn),
            min_p: file.maybe_f64("min_p")?.filter(|_| is_drawn),
            repetition_penalty: file.maybe_f64("repetition_penalty")?.unwrap_or(1.0),
        };
        if let Some((field, expected)) = policy.problem() {
            return Err(file.unsupported(field, expected));
        }
        let stop_strings = match file.get("stop_strings") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(_) => file.strings("stop_strings")?,
        };
        Ok(Self { policy, max_new_tokens: file.maybe_usize("max_new_tokens")?, stop_strings })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: &Value) -> Result<GenerationConfig> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), json.to_string()).unwrap();
        GenerationConfig::read_folder(folder.path())
    }

    #[test]
    fn fields_mean_what_they_mean_to_transformers() {
        assert_eq!(read(&json!({"temperature": 0.7, "top_k": 5})).unwrap().policy, SamplingPolicy::greedy());
        let file = json!({"do_sample": true, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05,
            "max_new_tokens": 9, "stop_strings": "x", "num_beams": 1, "typical_p": 1.0, "bad_words_ids": null});
        let found = read(&file).unwrap();
        let expected = SamplingPolicy {
            top_k: Some(50),
            top_p: Some(0.8),
            repetition_penalty: 1.05,
            ..SamplingPolicy::at(0.7)
        };
        assert_eq!((found.policy, found.max_new_tokens), (expected, Some(9)));
        assert_eq!(found.stop_strings, ["x"]);
        assert_eq!(read(&json!({"do_sample": true, "top_k": 0})).unwrap().policy, SamplingPolicy::at(1.0));
    }

    #[test]
    fn what_is_not_implemented_or_out_of_range_is_refused_by_name() {
        for (field, value) in
            [("num_beams", json!(4)), ("suppress_tokens", json!([1])), ("top_p", json!(1.5))]
        {
            let message = read(&json!({"do_sample": true, field: value})).unwrap_err().to_string();
            assert!(message.contains(FILE) && message.contains(field), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(GenerationConfig::read_folder(folder.path()).unwrap_err().to_string().contains(FILE));
    }
}
