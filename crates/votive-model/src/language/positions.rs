//! Where tokens stand in their texts.
//!
//! A text's tokens stand one behind the other, and where a model sees cells of images, each cell stands in its row and column:
//! three numbers a token, which are equal but for cells (M-RoPE). An image takes as many positions as the larger of its numbers
//! of rows and columns.
//!
//! Source: Wang et al., "Qwen2-VL", arXiv:2409.12191, Sec. 2.1; transformers' `get_rope_index`.

use crate::image_tokens::{Cell, SeenImages};
use crate::prefix_tree::PrefixTree;

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// In time, downwards and across; the same thrice but for cells of images.
    pub(crate) at: [usize; 3],
    /// How long its text is as a whole, in tokens.
    pub(crate) length: usize,
}

/// Where the tokens of a batch stand in their texts.
#[derive(Clone, Debug)]
pub(crate) struct Positions {
    pub(crate) rows: usize,
    /// `(rows · T,)`.
    pub(crate) tokens: Vec<Position>,
}

/// What ids from `vocabulary` on are: cells of images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells<'a> {
    vocabulary: u32,
    cells: &'a [Cell],
}

impl<'a> Cells<'a> {
    /// Those of some images, if a model that reads them has positions for cells.
    pub(crate) fn of(images: Option<&'a SeenImages>, vocabulary: usize) -> Option<Self> {
        let cells = images?.cells.as_deref()?;
        Some(Self { vocabulary: vocabulary as u32, cells })
    }

    /// Where a token stands in a text whose next word would stand at `next`, which is moved on.
    fn step(&self, next: &mut usize, id: u32) -> [usize; 3] {
        let number = id.checked_sub(self.vocabulary);
        let Some(cell) = number.and_then(|number| self.cells.get(number as usize)) else {
            return word(next);
        };
        // The first cell takes the positions of all.
        if (cell.row, cell.column) == (0, 0) {
            *next += cell.extent;
        }
        let start = next.saturating_sub(cell.extent);
        [start, start + cell.row, start + cell.column]
    }
}

fn word(next: &mut usize) -> [usize; 3] {
    *next += 1;
    [*next - 1; 3]
}

impl Positions {
    /// Rows of `width` words that all start at position 0 and are whole texts.
    pub(crate) fn texts(rows: usize, width: usize) -> Self {
        let row = || (0..width).map(|at| Position { at: [at; 3], length: width });
        Self { rows, tokens: (0..rows).flat_map(|_| row()).collect() }
    }

    /// The cells of an image of so many rows and columns, in this order of places.
    pub(crate) fn grid(places: impl Iterator<Item = (usize, usize)>) -> Self {
        let tokens: Vec<_> =
            places.map(|(row, column)| Position { at: [0, row, column], length: 0 }).collect();
        Self { rows: 1, tokens }
    }

    /// The one row of a tree.
    pub(crate) fn of(tree: &PrefixTree, cells: Option<Cells>) -> Self {
        let mut tokens = vec![Position { at: [0; 3], length: 0 }; tree.ids.len()];
        // Where the word behind each token would stand; what a segment follows comes before it.
        let mut next_words = vec![0; tree.ids.len()];
        for segment in &*tree.segments {
            let before = segment.context.last().and_then(|range| range.clone().last());
            let mut next = before.map_or(0, |token| next_words[token]);
            for token in segment.tokens.clone() {
                let at = match cells {
                    None => word(&mut next),
                    Some(cells) => cells.step(&mut next, tree.ids[token]),
                };
                tokens[token] = Position { at, length: tree.lengths[token] };
                next_words[token] = next;
            }
        }
        Self { rows: 1, tokens }
    }

    /// `width` tokens behind `seen` places, in rows that start with that much padding and whose next words stand at `next`; also
    /// where the words behind them stand. Cells of images come with the tokens' ids.
    pub(crate) fn behind(
        left_padding: &[usize],
        mut next: Vec<usize>,
        (seen, width): (usize, usize),
        images: Option<(&[u32], Cells)>,
    ) -> (Self, Vec<usize>) {
        let end = seen + width;
        let mut tokens = Vec::with_capacity(left_padding.len() * width);
        for (row, (padding, next)) in left_padding.iter().zip(&mut next).enumerate() {
            let length = end.saturating_sub(*padding);
            tokens.extend((0..width).map(|column| {
                let at = match images {
                    _ if seen + column < *padding => [0; 3],
                    None => word(next),
                    Some((ids, cells)) => cells.step(next, ids[row * width + column]),
                };
                Position { at, length }
            }));
        }
        (Self { rows: left_padding.len(), tokens }, next)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::files;
    use crate::image_tokens::{ImageInput, ImageTokens, ImageVectors};
    use crate::prefix_tree::Text;
    use candle_core::{DType, Device};
    use std::path::Path;

    /// Prompts with two images, one, none: the positions that transformers finds (tests/fixtures/qwen3_vl).
    #[test]
    fn prompts_stand_where_transformers_puts_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/qwen3_vl/new/expected");
        let tensors = files::read(&folder.join("rows.safetensors"), &Device::Cpu).unwrap().tensors;
        let about: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("rows.json")).unwrap()).unwrap();
        let tokens = ImageTokens { placeholder: 258, vectors: ImageVectors::Cells { side: 1 } };
        for (row, about) in about.as_array().unwrap().iter().enumerate() {
            let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
            let images = about["cells"].as_array().unwrap().iter().map(|cells| {
                let (height, width) = (number(&cells[0]), number(&cells[1]));
                ImageInput::new(vec![0.0; 3 * width * height], (width, height)).unwrap()
            });
            let images: Vec<Vec<ImageInput>> = vec![images.collect()];
            let ids = tensors[&format!("ids.{row}")].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
            let (placed, distinct) = tokens.place(&[ids], &images, 264).unwrap();
            let cells = tokens.cells(&distinct).unwrap();
            let cells = Cells { vocabulary: 264, cells: &cells };
            let whole = Text { tokens: placed[0].clone(), length: placed[0].len() };
            let found = Positions::of(&PrefixTree::new(&[whole], None), Some(cells));
            let expected: Vec<Vec<i64>> = tensors[&format!("positions.{row}")].to_vec2().unwrap();
            for (token, found) in found.tokens.iter().enumerate() {
                let at = found.at.map(|at| at as i64);
                assert_eq!(at, [0, 1, 2].map(|axis| expected[axis][token]), "row {row}, token {token}");
            }
        }
    }

    /// An image of one row and two columns, then one of two rows and three columns.
    fn cells() -> Vec<Cell> {
        let of = |rows: usize, columns: usize| {
            let extent = rows.max(columns);
            (0..rows * columns).map(move |at| Cell { row: at / columns, column: at % columns, extent })
        };
        of(1, 2).chain(of(2, 3)).collect()
    }

    /// A word, the second image, two words, the first image, a word; and two words alone.
    const LONG: [u32; 12] = [1, 12, 13, 14, 15, 16, 17, 2, 3, 10, 11, 4];

    fn expected() -> Vec<[usize; 3]> {
        let image = [[1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 1], [1, 2, 2], [1, 2, 3]];
        let rest = [[4; 3], [5; 3], [6, 6, 6], [6, 6, 7], [8; 3]];
        [&[[0; 3]][..], &image, &rest].concat()
    }

    #[test]
    fn an_image_takes_its_longer_side_of_positions() {
        let cells = cells();
        let cells = Cells { vocabulary: 10, cells: &cells };
        let (found, next) = Positions::behind(&[0], vec![0], (0, 12), Some((&LONG, cells)));
        assert_eq!(found.tokens.iter().map(|token| token.at).collect::<Vec<_>>(), expected());
        assert_eq!(next, [9]);
    }

    /// Cut anywhere, even inside of an image, and beside a shorter row.
    #[test]
    fn a_cache_goes_on_where_it_was() {
        let cells = cells();
        let cells = Cells { vocabulary: 10, cells: &cells };
        for cut in 0..=12 {
            let padding = [0, 10];
            let rows: [Vec<u32>; 2] = [LONG.to_vec(), [vec![0; 10], vec![1, 2]].concat()];
            let part = |range: std::ops::Range<usize>| -> Vec<u32> {
                rows.iter().flat_map(|row| row[range.clone()].to_vec()).collect()
            };
            let (first, next) =
                Positions::behind(&padding, vec![0, 0], (0, cut), Some((&part(0..cut), cells)));
            let (second, next) =
                Positions::behind(&padding, next, (cut, 12 - cut), Some((&part(cut..12), cells)));
            let row = |positions: &Positions, row: usize, width: usize| {
                positions.tokens[row * width..][..width].iter().map(|token| token.at).collect::<Vec<_>>()
            };
            assert_eq!([row(&first, 0, cut), row(&second, 0, 12 - cut)].concat(), expected(), "{cut}");
            let short = [row(&first, 1, cut), row(&second, 1, 12 - cut)].concat();
            assert_eq!(short[10..], [[0; 3], [1; 3]]);
            assert_eq!(next, [9, 2]);
        }
    }

    #[test]
    fn rows_of_a_tree_stand_as_they_would_alone() {
        let cells = cells();
        let cells = Cells { vocabulary: 10, cells: &cells };
        let rows: [&[u32]; 4] = [&LONG, &LONG[..4], &[1, 12, 13, 14, 15, 16, 17, 9], &[1, 10, 11, 4]];
        let texts: Vec<Text> =
            rows.iter().map(|row| Text { tokens: row.to_vec(), length: row.len() }).collect();
        let tree = PrefixTree::new(&texts, None);
        let together = Positions::of(&tree, Some(cells));
        for (index, row) in rows.iter().enumerate() {
            let (alone, _) = Positions::behind(&[0], vec![0], (0, row.len()), Some((row, cells)));
            for (position, token) in alone.tokens.iter().enumerate() {
                let place = tree.place(index, position);
                assert_eq!(place.map(|place| together.tokens[place].at), Some(token.at), "row {index}");
            }
        }
        let plain = Positions::of(&tree, None);
        let depths: Vec<usize> = plain.tokens.iter().map(|token| token.at[2]).collect();
        assert_eq!(depths, tree.positions);
    }
}
