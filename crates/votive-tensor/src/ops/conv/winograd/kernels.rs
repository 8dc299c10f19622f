//! Kernels on their way to tiles, and the gradients of tiles on their way back.

use super::tiles::{load_all, store_all};
use super::{BLOCK, POINTS};
use crate::kernel::Real;
use crate::vector::{self, LANES, Lanes, LanesLoop, run_lanes};
use rayon::prelude::*;

/// Kernels as the products read them: for every [`BLOCK`] rows of the result, at every point, a row of channels for each.
pub(in super::super) struct Kernels<R> {
    pub(super) data: Vec<R>,
    pub(super) rows: usize,
    pub(super) depth: usize,
}

impl<R: Real> Kernels<R> {
    /// Of `weight (rows, depth, 3, 3)`.
    pub(in super::super) fn new(weight: &[R], rows: usize, depth: usize) -> Self {
        Self::of(rows, depth, |row, channel, tap| weight[(row * depth + channel) * 9 + tap])
    }

    /// Those that take the gradient of a result to that of its images: of `weight (depth, rows, 3, 3)`, turned around.
    pub(in super::super) fn turned(weight: &[R], rows: usize, depth: usize) -> Self {
        Self::of(rows, depth, |row, channel, tap| weight[(channel * rows + row) * 9 + 8 - tap])
    }

    fn of(rows: usize, depth: usize, tap: impl Fn(usize, usize, usize) -> R + Sync) -> Self {
        let block = BLOCK * depth;
        let mut data = vec![R::zero(); rows.div_ceil(BLOCK) * POINTS * block];
        data.par_chunks_mut(POINTS * block).enumerate().for_each(|(at, points)| {
            let mut taps = vec![R::zero(); 9 * depth];
            for (i, row) in (at * BLOCK..rows.min((at + 1) * BLOCK)).enumerate() {
                for channel in 0..depth {
                    (0..9).for_each(|t| taps[t * depth + channel] = tap(row, channel, t));
                }
                run_lanes(TransformKernel { taps: &taps, depth, points: &mut points[i * depth..], block });
            }
        });
        Self { data, rows, depth }
    }
}

/// `G g Gᵀ` for a row of channels: `taps (9, depth)`, and points that lie `block` apart.
struct TransformKernel<'a, R> {
    taps: &'a [R],
    depth: usize,
    points: &'a mut [R],
    block: usize,
}

impl<R: Real> LanesLoop<R> for TransformKernel<'_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let Self { taps, depth, points, block } = self;
        // The last vector ends with the last channel, and repeats some of the one before.
        let last = depth - LANES;
        let mut next = 0;
        while next < depth {
            let at = if next < last { next } else { last };
            let columns = [
                ends(column::<R, L>(&taps[at..], depth)),
                ends(column(&taps[depth + at..], depth)),
                ends(column(&taps[2 * depth + at..], depth)),
            ];
            for y in 0..4 {
                let row = ends([columns[0][y], columns[1][y], columns[2][y]]);
                let points = &mut points[4 * y * block + at..];
                store_all(row[0], points);
                store_all(row[1], &mut points[block..]);
                store_all(row[2], &mut points[2 * block..]);
                store_all(row[3], &mut points[3 * block..]);
            }
            next += LANES;
        }
    }
}

/// A column of taps, which lie three rows apart.
#[inline(always)]
fn column<R: Real, L: Lanes<R>>(taps: &[R], depth: usize) -> [L; 3] {
    [load_all(taps), load_all(&taps[3 * depth..]), load_all(&taps[6 * depth..])]
}

/// `G`: four points of three taps.
#[inline(always)]
fn ends<R: Real, L: Lanes<R>>([a, b, c]: [L; 3]) -> [L; 4] {
    let half = L::same(R::of(0.5));
    let (middle, around) = (half.times(b), half.times(a.plus(c)));
    [a, around.plus(middle), around.minus(middle), c]
}

/// `Gᵀ dU G` for a row of channels, whose points lie `distance` apart; `weight (channels, 3, 3)`.
pub(super) struct GatherKernel<'a, R> {
    pub(super) points: &'a [R],
    pub(super) distance: usize,
    pub(super) weight: &'a mut [R],
}

impl<R: Real> vector::Loop for GatherKernel<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { points, distance, weight } = self;
        let half = R::of(0.5);
        let ends = |[a, b, c, d]: [R; 4]| [a + half * (b + c), half * (b - c), d + half * (b + c)];
        for (i, taps) in weight.chunks_mut(9).enumerate() {
            let columns: [[R; 3]; 4] =
                std::array::from_fn(|x| ends(std::array::from_fn(|y| points[(4 * y + x) * distance + i])));
            for y in 0..3 {
                taps[3 * y..3 * y + 3].copy_from_slice(&ends(std::array::from_fn(|x| columns[x][y])));
            }
        }
    }
}
