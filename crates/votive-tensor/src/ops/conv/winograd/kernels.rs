//! Kernels on their way to tiles, and the gradients of tiles on their way back.

use super::{BLOCK, POINTS};
use crate::kernel::Real;
use crate::vector::{self, LANES, Lanes, LanesLoop, columns, run_lanes, store_all};
use rayon::prelude::*;
use std::ops::Range;

/// Taps of a kernel.
const TAPS: usize = 9;

/// Kernels as the products read them: for every [`BLOCK`] rows of the result, at every point, a row of channels for each.
pub(in super::super) struct Kernels<R> {
    pub(super) data: Vec<R>,
    pub(super) rows: usize,
    pub(super) depth: usize,
}

impl<R: Real> Kernels<R> {
    /// Of `weight (rows, depth, 3, 3)`.
    pub(in super::super) fn new(weight: &[R], rows: usize, depth: usize) -> Self {
        Self::of(Taps { weight, row: depth, channel: 1, is_turned: false }, rows, depth)
    }

    /// Those that take the gradient of a result to that of its images: of `weight (depth, rows, 3, 3)`, turned around.
    pub(in super::super) fn turned(weight: &[R], rows: usize, depth: usize) -> Self {
        Self::of(Taps { weight, row: 1, channel: rows, is_turned: true }, rows, depth)
    }

    fn of(taps: Taps<R>, rows: usize, depth: usize) -> Self {
        let block = BLOCK * depth;
        let mut data = vec![R::zero(); rows.div_ceil(BLOCK) * POINTS * block];
        data.par_chunks_mut(POINTS * block).enumerate().for_each(|(at, points)| {
            let rows = at * BLOCK..rows.min((at + 1) * BLOCK);
            run_lanes(TransformKernels { taps, rows, depth, points, block });
        });
        Self { data, rows, depth }
    }
}

/// The taps of all kernels of a weight.
#[derive(Clone, Copy)]
struct Taps<'a, R> {
    weight: &'a [R],
    /// Kernels from one row, and from one channel, to the next.
    row: usize,
    channel: usize,
    /// The last tap comes first.
    is_turned: bool,
}

impl<R: Real> Taps<'_, R> {
    /// Each tap of a vector of channels.
    #[inline(always)]
    fn load<L: Lanes<R>>(&self, row: usize, channel: usize) -> [L; TAPS] {
        let (first, distance) = (TAPS * (row * self.row + channel * self.channel), TAPS * self.channel);
        let kernels = &self.weight[first..first + 7 * distance + TAPS];
        let [t0, t1, t2, t3, t4, t5, t6, t7] = columns(kernels, distance);
        let t8 = L::load(&std::array::from_fn::<_, LANES, _>(|i| kernels[i * distance + 8]));
        match self.is_turned {
            false => [t0, t1, t2, t3, t4, t5, t6, t7, t8],
            true => [t8, t7, t6, t5, t4, t3, t2, t1, t0],
        }
    }
}

/// `G g Gᵀ` for some rows of kernels, whose points lie `block` apart.
struct TransformKernels<'a, R> {
    taps: Taps<'a, R>,
    rows: Range<usize>,
    depth: usize,
    points: &'a mut [R],
    block: usize,
}

impl<R: Real> LanesLoop<R> for TransformKernels<'_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let Self { taps, rows, depth, points, block } = self;
        // The last vector ends with the last channel, and repeats some of the one before.
        let last = depth - LANES;
        let mut next = 0;
        while next < depth {
            let at = if next < last { next } else { last };
            // The kernels of neighbouring rows are neighbours where they are turned.
            for (i, row) in rows.clone().enumerate() {
                let [a, b, c, d, e, f, g, h, k] = taps.load::<L>(row, at);
                let columns = [ends([a, d, g]), ends([b, e, h]), ends([c, f, k])];
                for y in 0..4 {
                    let row = ends([columns[0][y], columns[1][y], columns[2][y]]);
                    let points = &mut points[4 * y * block + i * depth + at..];
                    store_all(row[0], points);
                    store_all(row[1], &mut points[block..]);
                    store_all(row[2], &mut points[2 * block..]);
                    store_all(row[3], &mut points[3 * block..]);
                }
            }
            next += LANES;
        }
    }
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
