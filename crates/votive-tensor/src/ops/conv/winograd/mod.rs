//! Convolutions by 3×3 kernels in tiles: 16 products for four pixels of a result, where the definition has 36.
//!
//! F(2×2, 3×3) of Lavin and Gray (arXiv:1509.09308, section 4.1): `Y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A`, summed over channels
//! before the last transform, so that each of a tile's 16 points is a matrix product. Points of tiles lie in panels of
//! [`PANEL`] tiles, a row for every channel, which the product reads from end to end.

mod kernels;
mod tiles;

use super::bias_of;
use crate::kernel::{Matrix, Real, Threads, matmul};
use crate::vector::{self, Lanes, LanesLoop, run_lanes};
use kernels::GatherKernel;
pub(super) use kernels::Kernels;
use rayon::prelude::*;
use std::ops::Range;
use tiles::{Lines, Panels, grad_points, results};

/// Points of a transformed tile or kernel.
pub(super) const POINTS: usize = 16;
/// Tiles of a panel.
const PANEL: usize = 16;
/// Numbers between what would else lie a power of two apart, and share few places of a cache.
const LINE: usize = 16;
/// Rows of a result that are computed together.
const BLOCK: usize = 6;
/// The most tiles that are transformed together, in whole rows, or of several small images, for a result and for the
/// gradient of a weight: what belongs to them stays in the cache.
const BAND: usize = 64;
const GRADIENT_BAND: usize = 256;
/// The fewest tiles of an image, and channels on both sides, for which transforming kernels and tiles is worth it.
const FEWEST_TILES: usize = 16;
const FEWEST_CHANNELS: usize = 16;

/// Images whose convolution by a 3×3 kernel, with stride and padding of 1, is computed in tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    height: usize,
    width: usize,
    /// Rows and columns of tiles.
    rows: usize,
    cols: usize,
}

impl Tiling {
    /// How images of this size are cut; none where the matrix product of the definition is faster. What one image gives
    /// does not depend on the others of its batch.
    pub(super) fn of((height, width): (usize, usize), channels: [usize; 2]) -> Option<Self> {
        let (rows, cols) = (height.div_ceil(2), width.div_ceil(2));
        let worth = rows * cols >= FEWEST_TILES && channels.iter().all(|count| *count >= FEWEST_CHANNELS);
        worth.then_some(Self { height, width, rows, cols })
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Rows of tiles that are transformed together.
    fn bands(&self, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (all, rows) = (self.rows, (most / self.cols).max(1));
        (0..all).step_by(rows).map(move |first| first..all.min(first + rows))
    }

    /// Rows of pixels that tiles of a result cover.
    fn lines(&self, band: &Range<usize>) -> Range<usize> {
        2 * band.start..(2 * band.end).min(self.height)
    }
}

impl Tiling {
    /// `images (B, depth, H, W)` → `out (B, rows, H, W)`, plus a bias for every row, if there is one, of all images or of each.
    pub(super) fn convolve<R: Real>(
        &self,
        kernels: &Kernels<R>,
        images: &[R],
        bias: Option<&[R]>,
        out: &mut [R],
    ) {
        let (rows, depth, pixels) = (kernels.rows, kernels.depth, self.pixels());
        let bands: Vec<Range<usize>> = self.bands(BAND).collect();
        let mut pieces = Vec::new();
        let pairs = images.chunks(depth * pixels).zip(out.chunks_mut(rows * pixels));
        for (i, (image, out)) in pairs.enumerate() {
            let (first, bias) = (pieces.len(), bias.map(|bias| bias_of(bias, rows, i)));
            let piece = |band: &Range<usize>| Piece { image, bias, band: band.clone(), out: Vec::new() };
            pieces.extend(bands.iter().map(piece));
            for mut plane in out.chunks_mut(pixels) {
                for piece in &mut pieces[first..] {
                    let (lines, below) = plane.split_at_mut(self.lines(&piece.band).len() * self.width);
                    piece.out.push(lines);
                    plane = below;
                }
            }
        }
        // Each thread has something to do, even if it is less than a whole band.
        let together =
            (BAND / (self.rows * self.cols)).min(pieces.len() / rayon::current_num_threads()).max(1);
        let most = together * bands.first().map_or(0, |band| band.len() * self.cols);
        pieces.par_chunks_mut(together).for_each_init(
            || Scratch::new(self, kernels, most),
            |scratch, pieces| run_lanes(Convolve { tiling: self, kernels, pieces, scratch }),
        );
    }

    /// The gradient of a weight `(outs, channels, 3, 3)`, summed over the images `x (B, channels, H, W)` whose results have the
    /// gradients `grad (B, outs, H, W)`: `Gᵀ [Σ (A dY Aᵀ) ∘ (Bᵀ d B)] G`.
    pub(super) fn weight_grad<R: Real>(&self, [outs, channels]: [usize; 2], x: &[R], grad: &[R]) -> Vec<R> {
        // Points of the weight's gradient, `(16, outs, channels)`.
        let mut points = vec![R::zero(); POINTS * outs * channels];
        let together = (GRADIENT_BAND / (self.rows * self.cols)).max(1) * self.pixels();
        for (images, grads) in x.chunks(channels * together).zip(grad.chunks(outs * together)) {
            for band in self.bands(GRADIENT_BAND) {
                let tiles = images.len() / (channels * self.pixels()) * band.len() * self.cols;
                let seen = self.by_channel(images, channels, tiles, |planes, out| {
                    run_lanes(TransformImages { tiling: self, planes, channels, band: &band, out });
                });
                let given = self.by_channel(grads, outs, tiles, |planes, out| {
                    run_lanes(TransformGrads { tiling: self, planes, channels: outs, band: &band, out });
                });
                points.par_chunks_mut(outs * channels).enumerate().for_each(|(point, sum)| {
                    let rows = |data, rows| (data, Matrix::strided(rows, tiles, POINTS * tiles + LINE));
                    let a = rows(&given[point * tiles..], outs);
                    let b = rows(&seen[point * tiles..], channels);
                    let sum = (sum, Matrix::dense(outs, channels));
                    matmul(sum, a, (b.0, b.1.t()), R::one(), true, Threads::One);
                });
            }
        }
        let mut result = vec![R::zero(); outs * channels * 9];
        result.par_chunks_mut(channels * 9).enumerate().for_each(|(out, weight)| {
            vector::run(GatherKernel {
                points: &points[out * channels..],
                distance: outs * channels,
                weight,
            });
        });
        result
    }
}

/// A band of an image.
struct Piece<'a, R> {
    image: &'a [R],
    /// A number for each row of the result.
    bias: Option<&'a [R]>,
    band: Range<usize>,
    /// Lines of each row of the result.
    out: Vec<&'a mut [R]>,
}

/// Pieces that are transformed together.
struct Convolve<'a, 'b, R> {
    tiling: &'a Tiling,
    kernels: &'a Kernels<R>,
    pieces: &'a mut [Piece<'b, R>],
    scratch: &'a mut Scratch<R>,
}

/// What is used for some pieces after the others: points of the images and of the results.
struct Scratch<R> {
    lines: Lines<R>,
    image: Vec<R>,
    result: Vec<R>,
}

impl<R: Real> Scratch<R> {
    /// For at most so many tiles.
    fn new(tiling: &Tiling, kernels: &Kernels<R>, tiles: usize) -> Self {
        let zeros = |depth| vec![R::zero(); Panels::narrow(tiles, depth).len()];
        Self {
            lines: Lines::new(tiling, (tiles / tiling.cols).min(tiling.rows)),
            image: zeros(kernels.depth),
            result: zeros(kernels.rows.next_multiple_of(BLOCK)),
        }
    }
}

impl<R: Real> LanesLoop<R> for Convolve<'_, '_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let Self { tiling, kernels, pieces, scratch } = self;
        let tiles = pieces.iter().map(|piece| piece.band.len() * tiling.cols).sum();
        let from = Panels::narrow(tiles, kernels.depth);
        let to = Panels::narrow(tiles, kernels.rows.next_multiple_of(BLOCK));
        let mut first = 0;
        for piece in &*pieces {
            for (channel, plane) in piece.image.chunks(tiling.pixels()).enumerate() {
                scratch.lines.fill::<L>(tiling, plane, &piece.band);
                let place = (channel, first);
                scratch.lines.transform::<L>(tiling, piece.band.len(), &from, place, &mut scratch.image);
            }
            first += piece.band.len() * tiling.cols;
        }
        let block = BLOCK * kernels.depth;
        for point in 0..POINTS {
            let images = &scratch.image[point * from.point..(point + 1) * from.point];
            let results = &mut scratch.result[point * to.point..(point + 1) * to.point];
            for (at, kernels_of_block) in kernels.data.chunks(POINTS * block).enumerate() {
                let kernels_here = &kernels_of_block[point * block..(point + 1) * block];
                for (image, result) in images.chunks_exact(from.panel).zip(results.chunks_exact_mut(to.panel))
                {
                    let result = &mut result[at * BLOCK * PANEL..(at + 1) * BLOCK * PANEL];
                    vector::products::<R, FUSED, BLOCK>(
                        (result, PANEL),
                        (kernels_here, kernels.depth),
                        (image, PANEL),
                    );
                }
            }
        }
        let mut first = 0;
        for piece in pieces {
            for (row, lines) in piece.out.iter_mut().enumerate() {
                let bias = match piece.bias {
                    Some(bias) => bias[row],
                    None => R::zero(),
                };
                results::<R, L>(tiling, &to, (row, first), &scratch.result, lines, bias);
            }
            first += piece.band.len() * tiling.cols;
        }
    }
}

impl Tiling {
    /// The points of tiles, dense for each channel of images `(B, channels, H, W)`, as `transform` makes them of that
    /// channel's planes, which begin with the first.
    fn by_channel<R: Real>(
        &self,
        images: &[R],
        channels: usize,
        tiles: usize,
        transform: impl Fn(&[R], &mut [R]) + Sync,
    ) -> Vec<R> {
        let mut points = vec![R::zero(); channels * (POINTS * tiles + LINE)];
        let points_of = points.par_chunks_mut(POINTS * tiles + LINE).enumerate();
        points_of.for_each(|(channel, out)| transform(&images[channel * self.pixels()..], out));
        points
    }
}

/// `Bᵀ d B` of a band of some images' planes of one channel.
struct TransformImages<'a, R> {
    tiling: &'a Tiling,
    planes: &'a [R],
    /// Channels from one plane to the next.
    channels: usize,
    band: &'a Range<usize>,
    out: &'a mut [R],
}

impl<R: Real> LanesLoop<R> for TransformImages<'_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let Self { tiling, planes, channels, band, out } = self;
        let (pixels, tiles) = (tiling.pixels(), band.len() * tiling.cols);
        let panels = Panels::dense((out.len() - LINE) / POINTS);
        let mut lines = Lines::new(tiling, band.len());
        for (image, planes) in planes.chunks(channels * pixels).enumerate() {
            lines.fill::<L>(tiling, &planes[..pixels], band);
            lines.transform::<L>(tiling, band.len(), &panels, (0, image * tiles), out);
        }
    }
}

/// `A dY Aᵀ` of a band of some gradients' planes of one channel.
struct TransformGrads<'a, R> {
    tiling: &'a Tiling,
    planes: &'a [R],
    /// Channels from one plane to the next.
    channels: usize,
    band: &'a Range<usize>,
    out: &'a mut [R],
}

impl<R: Real> LanesLoop<R> for TransformGrads<'_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let Self { tiling, planes, channels, band, out } = self;
        let panels = Panels::dense((out.len() - LINE) / POINTS);
        let lines = tiling.lines(band);
        for (image, planes) in planes.chunks(channels * tiling.pixels()).enumerate() {
            let lines = &planes[lines.start * tiling.width..lines.end * tiling.width];
            let first = image * band.len() * tiling.cols;
            grad_points::<R, L>(tiling, &panels, first, lines, out);
        }
    }
}
