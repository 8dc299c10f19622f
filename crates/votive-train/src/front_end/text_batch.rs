//! Rows of text side by side, with the images that they show.

use votive_model::ImageInput;

/// Some rows as padded tokens.
pub struct TextBatch {
    pub(super) tokens: votive_data::TextBatch,
    /// The images that each sequence shows.
    pub(super) images: Vec<Vec<ImageInput>>,
}

impl TextBatch {
    /// The padded tokens and their masks.
    #[must_use]
    pub fn tokens(&self) -> &votive_data::TextBatch {
        &self.tokens
    }

    /// The sequences without padding.
    pub(super) fn sequences(&self) -> Vec<Vec<u32>> {
        let tokens = &self.tokens;
        let row =
            |i: usize| tokens.input_ids[i * tokens.width..i * tokens.width + tokens.lengths[i]].to_vec();
        (0..tokens.n_sequences).map(row).collect()
    }

    /// Number of completion tokens of every sequence.
    pub(super) fn completion_tokens(&self) -> impl Iterator<Item = usize> + '_ {
        let count = |row: &[u8]| row.iter().filter(|wanted| **wanted == 1).count();
        self.tokens.completion_mask.chunks(self.tokens.width.max(1)).map(count)
    }

    /// (sequence, position) of every completion token.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let width = self.tokens.width;
        let mask = self.tokens.completion_mask.iter().enumerate();
        mask.filter(|(_, wanted)| **wanted == 1).map(move |(cell, _)| (cell / width, cell % width))
    }
}
