//! Attention of narrow heads, whose products are too thin for a matrix library.
//!
//! Scores are never written but for a block that stays in the nearest cache (Dao et al., arXiv:2205.14135).

mod backward;
mod forward;

use super::head::{Head, Rows};
use crate::kernel::Real;
use crate::vector::LANES;
use std::ops::Range;

pub(super) use backward::Backward;
pub(super) use forward::Forward;

/// The widest head that is computed here; wider ones are left to the matrix library.
const WIDEST: usize = 32;

/// Whether heads of this width are computed here.
pub(super) fn is_narrow(head: usize) -> bool {
    head <= WIDEST
}

impl<R: Real> Head<'_, R> {
    /// Numbers of a row that is a whole number of vectors.
    fn width(&self) -> usize {
        self.sizes.head.next_multiple_of(LANES)
    }

    /// Rows of a stream's queries times `factor`, dense, and zeros behind them, up to `count` rows of `width` numbers.
    fn queries(&self, from: &[R], factor: R, (count, width): (usize, usize)) -> Vec<R> {
        let mut rows = vec![R::zero(); count * width];
        let from = from.chunks(self.sizes.width).take(self.stream.queries.len());
        for (row, from) in rows.chunks_mut(width).zip(from) {
            row.iter_mut().zip(&from[..self.sizes.head]).for_each(|(row, from)| *row = *from * factor);
        }
        rows
    }

    /// The queries times the scale.
    fn scaled_queries(&self, shape: (usize, usize)) -> Vec<R> {
        self.queries(self.q, R::of(self.attention.scores.scale), shape)
    }

    /// Writes rows of some keys densely, and zeros behind them, `count` rows of whole vectors.
    fn gather(&self, keys: &Range<usize>, from: &Rows<R>, (rows, count): (&mut Vec<R>, usize)) {
        let (head, width) = (self.sizes.head, self.width());
        rows.clear();
        rows.resize(count * width, R::zero());
        let from = from.data[keys.start * from.stride..].chunks(from.stride).take(keys.len());
        for (row, from) in rows.chunks_mut(width).zip(from) {
            row[..head].copy_from_slice(&from[..head]);
        }
    }
}
