//! What a data set of image pairs holds, in numbers: sizes, captions, models, duplicates.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clip::ClipTokenizer;
use crate::error::Result;
use crate::framing::ImageSize;
use crate::screening::ScreenedPair;
use crate::stats::{Distribution, Duplicates, Seen, hash};

/// The numbers of image pairs whose images can be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ImageStats {
    /// Images by size, `WIDTHxHEIGHT`.
    pub sizes: BTreeMap<String, usize>,
    /// Width over height of the images.
    pub aspect: Distribution,
    /// Margins.
    pub margin: Distribution,
    /// Weights.
    pub weight: Distribution,
    /// Lengths of the captions, in tokens of CLIP with its start and end, or in characters without a tokenizer.
    pub captions: Distribution,
    /// Captions of which a part does not fit into the text encoder.
    pub captions_cut: usize,
    /// Captions that are empty.
    pub captions_empty: usize,
    /// Share of the pairs whose first image is chosen; none where rows call their images chosen and rejected.
    pub first_chosen: Option<f64>,
    /// How often the images of a model were chosen and rejected, by name.
    pub models: BTreeMap<String, Wins>,
    /// Pairs that say the same as an earlier one.
    pub duplicates: Duplicates,
}

/// How often the images of a model were chosen and rejected in pairs with another model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wins {
    /// Pairs in which an image of it was chosen.
    pub won: usize,
    /// Pairs in which one was rejected.
    pub lost: usize,
    /// Pairs in which both images were of it; they count as neither.
    pub alone: usize,
}

impl Wins {
    /// Share of the pairs with another model's image that it won.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let all = self.won + self.lost;
        (all > 0).then(|| self.won as f64 / all as f64)
    }
}

impl ImageStats {
    /// Counts pairs. Ties that were kept count where there is no preference to count.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn of(pairs: &[ScreenedPair], tokenizer: Option<&ClipTokenizer>) -> Result<Self> {
        let mut stats = Self { duplicates: duplicates(pairs), ..Self::default() };
        let images = || pairs.iter().flat_map(|pair| pair.images);
        for ImageSize { width, height } in images().map(|image| image.size) {
            *stats.sizes.entry(format!("{width}x{height}")).or_default() += 1;
        }
        stats.aspect =
            Distribution::of_numbers(&images().map(|image| image.size.aspect()).collect::<Vec<_>>());
        let numbers = |pick: fn(&ScreenedPair) -> Option<f64>| {
            Distribution::of_numbers(&pairs.iter().filter_map(pick).collect::<Vec<_>>())
        };
        stats.margin = numbers(|pair| pair.pair.numbers.margin);
        stats.weight = numbers(|pair| pair.pair.numbers.weight);
        stats.count_captions(pairs, tokenizer)?;
        stats.count_preferences(pairs);
        Ok(stats)
    }

    fn count_captions(&mut self, pairs: &[ScreenedPair], tokenizer: Option<&ClipTokenizer>) -> Result<()> {
        let mut lengths = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let prompt = &pair.pair.prompt;
            self.captions_empty += usize::from(prompt.trim().is_empty());
            lengths.push(match tokenizer {
                None => prompt.chars().count(),
                Some(tokenizer) => {
                    let encoded = tokenizer.encode(prompt)?;
                    self.captions_cut += usize::from(encoded.truncated_tokens > 0);
                    encoded.tokens + encoded.truncated_tokens
                }
            });
        }
        self.captions = Distribution::of_lengths(&lengths);
        Ok(())
    }

    fn count_preferences(&mut self, pairs: &[ScreenedPair]) {
        let decided = || pairs.iter().map(|pair| &pair.pair.origin).filter(|origin| !origin.is_tie);
        let places: Vec<_> = decided().filter_map(|origin| origin.places).collect();
        let first = places.iter().filter(|[chosen, rejected]| chosen < rejected).count();
        self.first_chosen = (!places.is_empty()).then(|| first as f64 / places.len() as f64);
        for origin in decided() {
            let [Some(chosen), Some(rejected)] = &origin.models else { continue };
            if chosen == rejected {
                self.models.entry(chosen.to_string()).or_default().alone += 1;
            } else {
                self.models.entry(chosen.to_string()).or_default().won += 1;
                self.models.entry(rejected.to_string()).or_default().lost += 1;
            }
        }
    }
}

/// Pairs with the caption and the images of an earlier one.
fn duplicates(pairs: &[ScreenedPair]) -> Duplicates {
    let mut seen = Seen::default();
    for ScreenedPair { pair, images } in pairs {
        let [chosen, rejected] = images.map(|image| image.digest);
        let record = |first: [u8; 32], second: [u8; 32]| hash((&pair.prompt, first, second));
        seen.note(pair.row, hash(&pair.prompt), record(chosen, rejected), record(rejected, chosen));
    }
    seen.found
}
