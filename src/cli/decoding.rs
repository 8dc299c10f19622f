//! How text is drawn: the options that the commands share which write text.

use crate::cli::{Failure, Outcome};
use std::num::NonZeroUsize;
use std::path::Path;
use votive_data::TextTokenizer;
use votive_model::{GenerateOptions, GenerationConfig, SamplingPolicy};

const MAX_NEW_TOKENS: usize = 128;

/// Options are applied in this order: repetition penalty, temperature, top-k, top-p, min-p.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Drawing")]
pub(crate) struct DecodingArgs {
    /// Tokens of a completion at most [default: 128].
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Divides the logits; 0 takes the most probable token each time [default: 1].
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw from the K most probable tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<NonZeroUsize>,
    /// Draw from the fewest tokens whose probabilities reach P.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Draw from tokens with at least P times the probability of the most probable one.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Divide positive logits of tokens that occurred in prompt or completion by R, multiply negative ones.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f64>,
    /// A text that ends a completion and is cut off; repeat the option for several.
    #[arg(long = "stop", value_name = "TEXT")]
    stops: Vec<String>,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take what is not given here from the model's generation_config.json; without this, the file is not read for
    /// anything but the tokens that end a text.
    #[arg(long)]
    generation_config: bool,
}

/// What the options come to for one model.
#[derive(Clone, Debug)]
pub(crate) struct Decoding {
    /// For the network.
    pub(crate) options: GenerateOptions,
    /// Texts that end a completion.
    pub(crate) stops: Vec<String>,
}

impl DecodingArgs {
    /// Refuses numbers out of range and options that would have no effect, before a model is loaded.
    ///
    /// # Errors
    /// Naming the option.
    pub(crate) fn check(&self) -> Outcome {
        let given = self.over(SamplingPolicy::at(1.0));
        if let Some((option, expected)) = given.problem() {
            let value = match option {
                "temperature" => self.temperature,
                "top_p" => self.top_p,
                "min_p" => self.min_p,
                _ => self.repetition_penalty,
            };
            let (option, value) = (option.replace('_', "-"), value.unwrap_or_default());
            return Err(Failure::usage(format!("--{option} {value}: expected {expected}")));
        }
        if self.stops.iter().any(String::is_empty) {
            return Err(Failure::usage("--stop: expected a text, found an empty one"));
        }
        Ok(())
    }

    /// The options for a model.
    ///
    /// # Errors
    /// If a filter was given where nothing is drawn, or the model's own file is asked for and is missing or wrong.
    pub(crate) fn resolve(&self, folder: &Path, tokenizer: &TextTokenizer) -> Outcome<Decoding> {
        let own = self.generation_config.then(|| GenerationConfig::read_folder(folder)).transpose()?;
        let policy = self.over(own.as_ref().map_or(SamplingPolicy::at(1.0), |own| own.policy.clone()));
        let filters = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
        ];
        let idle = filters.iter().find(|(_, given)| *given && policy.is_greedy());
        if let Some((option, _)) = idle {
            let idle =
                Failure::usage(format!("{option} has no effect at temperature 0, which draws nothing"));
            return Err(idle.hint("leave it out, or use a --temperature above 0"));
        }
        let max_new_tokens = self.max_new_tokens.or(own.as_ref().and_then(|own| own.max_new_tokens));
        let stops = own.map(|own| own.stop_strings).unwrap_or_default();
        Ok(Decoding {
            options: GenerateOptions {
                policy,
                seed: self.seed,
                ..GenerateOptions::greedy(
                    max_new_tokens.unwrap_or(MAX_NEW_TOKENS),
                    tokenizer.stop_ids().to_vec(),
                )
            },
            stops: self.stops.iter().cloned().chain(stops).collect(),
        })
    }

    /// What is given here, and `base` for the rest.
    fn over(&self, base: SamplingPolicy) -> SamplingPolicy {
        SamplingPolicy {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.map(NonZeroUsize::get).or(base.top_k),
            top_p: self.top_p.or(base.top_p),
            min_p: self.min_p.or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
        }
    }
}
