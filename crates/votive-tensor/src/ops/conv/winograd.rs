//! Convolutions by 3×3 kernels in tiles: 16 products for four pixels of a result, where the definition has 36.
//!
//! F(2×2, 3×3) of Lavin and Gray (arXiv:1509.09308, section 4.1): `Y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A`, summed over channels
//! before the last transform, so that each of a tile's 16 points is a matrix product. Points of tiles lie in panels of
//! [`PANEL`] tiles, a row for every channel, which the product reads from end to end.

use crate::kernel::{Matrix, Real, Threads, matmul};
use crate::vector::{self, LANES, Lanes, LanesLoop, run_lanes};
use rayon::prelude::*;
use std::ops::Range;

/// Points of a transformed tile or kernel.
const POINTS: usize = 16;
/// Tiles of a panel.
const PANEL: usize = 16;
/// Numbers between what would else lie a power of two apart, and share few places of a cache.
const LINE: usize = 16;
/// Rows of a result that are computed together.
const BLOCK: usize = 6;
/// The most tiles that are transformed together, in whole rows, for a result and for the gradient of a weight: what
/// belongs to them stays in the cache.
const BAND: usize = 64;
const GRADIENT_BAND: usize = 256;
/// The fewest tiles of an image, and channels on both sides, for which transforming kernels and tiles is worth it.
const FEWEST_TILES: usize = 64;
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

/// Kernels as the products read them: for every [`BLOCK`] rows of the result, at every point, a row of channels for each.
pub(super) struct Kernels<R> {
    data: Vec<R>,
    rows: usize,
    depth: usize,
}

impl<R: Real> Kernels<R> {
    /// Of `weight (rows, depth, 3, 3)`.
    pub(super) fn new(weight: &[R], rows: usize, depth: usize) -> Self {
        Self::of(rows, depth, |row, channel, tap| weight[(row * depth + channel) * 9 + tap])
    }

    /// Those that take the gradient of a result to that of its images: of `weight (depth, rows, 3, 3)`, turned around.
    pub(super) fn turned(weight: &[R], rows: usize, depth: usize) -> Self {
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

/// `Aᵀ`: two pixels of four points.
#[inline(always)]
fn gather<R, L: Lanes<R>>([a, b, c, d]: [L; 4]) -> [L; 2] {
    [a.plus(b).plus(c), b.minus(c).minus(d)]
}

/// `A`: four points of the gradients of two pixels.
#[inline(always)]
fn scatter<R: Real, L: Lanes<R>>([a, b]: [L; 2]) -> [L; 4] {
    [a, a.plus(b), a.minus(b), L::same(R::zero()).minus(b)]
}

/// Stores a row of points, whose columns are still those of the image: `Bᵀ` on a row.
#[inline(always)]
fn store_row<R: Real, L: Lanes<R>>(out: &mut [R], place: Place, row: usize, [a, b, c, d]: [L; 4]) {
    place.store(out, 4 * row, a.minus(c));
    place.store(out, 4 * row + 1, b.plus(c));
    place.store(out, 4 * row + 2, c.minus(b));
    place.store(out, 4 * row + 3, b.minus(d));
}

/// Where the points of a band's tiles lie: a panel of `width` tiles has a row for each channel.
#[derive(Clone, Copy)]
struct Panels {
    width: usize,
    /// Distances of points and of panels.
    point: usize,
    panel: usize,
}

impl Panels {
    /// For products: point, panel, channel, tile.
    fn narrow(tiles: usize, depth: usize) -> Self {
        let panel = depth * PANEL;
        Self { width: PANEL, point: tiles.div_ceil(PANEL) * panel + LINE, panel }
    }

    /// One channel's, in one panel.
    fn dense(tiles: usize) -> Self {
        Self { width: tiles, point: tiles, panel: tiles }
    }

    fn len(&self) -> usize {
        POINTS * self.point
    }

    /// Where a channel's numbers for some tiles of a row lie, at the first point.
    #[inline(always)]
    fn place(&self, channel: usize, tile: usize, count: usize) -> Place {
        let (panel, within) = (tile / self.width, tile % self.width);
        let first = panel * self.panel + channel * self.width + within;
        Place {
            first,
            here: count.min(self.width - within),
            next: (panel + 1) * self.panel + channel * self.width,
            count,
            point: self.point,
        }
    }
}

/// A vector of tiles, of which the first `count` are used: `here` of them lie from `first` on, others from `next` on.
#[derive(Clone, Copy)]
struct Place {
    first: usize,
    here: usize,
    next: usize,
    count: usize,
    /// Distance of points.
    point: usize,
}

impl Place {
    #[inline(always)]
    fn store<R: Real, L: Lanes<R>>(&self, data: &mut [R], point: usize, values: L) {
        let data = &mut data[point * self.point..];
        if self.here == LANES
            && let Some(data) = data[self.first..].first_chunk_mut()
        {
            return values.store(data);
        }
        let mut numbers = [R::zero(); LANES];
        values.store(&mut numbers);
        data[self.first..self.first + self.here].copy_from_slice(&numbers[..self.here]);
        let (rest, behind) = (self.count - self.here, &numbers[self.here..self.count]);
        data.iter_mut().skip(self.next).take(rest).zip(behind).for_each(|(data, value)| *data = *value);
    }

    /// The points of a column.
    #[inline(always)]
    fn column<R: Real, L: Lanes<R>>(&self, data: &[R], x: usize) -> [L; 4] {
        [self.load(data, x), self.load(data, 4 + x), self.load(data, 8 + x), self.load(data, 12 + x)]
    }

    #[inline(always)]
    fn load<R: Real, L: Lanes<R>>(&self, data: &[R], point: usize) -> L {
        let data = &data[point * self.point..];
        if self.here == LANES
            && let Some(data) = data[self.first..].first_chunk()
        {
            return L::load(data);
        }
        let mut values = [R::zero(); LANES];
        values[..self.here].copy_from_slice(&data[self.first..self.first + self.here]);
        let (rest, behind) = (self.count - self.here, &mut values[self.here..self.count]);
        behind
            .iter_mut()
            .zip(data.iter().skip(self.next).take(rest))
            .for_each(|(value, data)| *value = *data);
        L::load(&values)
    }
}

/// Lines of an image around a band, columns of even and odd number apart, with the padding.
struct Lines<R> {
    even: Vec<R>,
    odd: Vec<R>,
    stride: usize,
}

impl<R: Real> Lines<R> {
    /// For the lines of at most `rows` rows of tiles.
    fn new(tiling: &Tiling, rows: usize) -> Self {
        // A tile reads into its neighbour on the right, a vector of tiles behind the last one.
        let stride = tiling.cols.next_multiple_of(LANES) + 1;
        let zeros = vec![R::zero(); (2 * rows + 2) * stride];
        Self { even: zeros.clone(), odd: zeros, stride }
    }

    /// Reads what the tiles of a band see of a plane.
    #[inline(always)]
    fn fill<L: Lanes<R>>(&mut self, tiling: &Tiling, plane: &[R], band: &Range<usize>) {
        let width = tiling.width;
        let lines = self.even.chunks_mut(self.stride).zip(self.odd.chunks_mut(self.stride));
        for (line, (even, odd)) in (2 * band.start..2 * band.end + 2).zip(lines) {
            // Line and column 0 are padding.
            if line == 0 || line > tiling.height {
                even.fill(R::zero());
                odd.fill(R::zero());
                continue;
            }
            let columns = &plane[(line - 1) * width..line * width];
            for first in (0..tiling.cols).step_by(LANES) {
                let [odd_columns, even_columns] = read::<R, L>(&columns[2 * first..]);
                // Behind the last column are zeros, and so is column 0.
                store_all(odd_columns, &mut odd[first..]);
                store_all(even_columns, &mut even[first + 1..]);
            }
        }
    }

    /// The points of some channel's tiles, `Bᵀ d B`.
    #[inline(always)]
    fn transform<L: Lanes<R>>(
        &self,
        tiling: &Tiling,
        rows: usize,
        panels: &Panels,
        channel: usize,
        out: &mut [R],
    ) {
        for row in 0..rows {
            let lines = 2 * row * self.stride..(2 * row + 4) * self.stride;
            let lines = [&self.even[lines.clone()], &self.odd[lines]];
            for first in (0..tiling.cols).step_by(LANES) {
                let place = panels.place(channel, row * tiling.cols + first, LANES.min(tiling.cols - first));
                // One row of points after the other: all of them need more registers than there are.
                let [a, b] = [self.columns::<L>(lines, 0, first), self.columns(lines, 2, first)];
                store_row(out, place, 0, minus(a, b));
                let [a, b] = [self.columns::<L>(lines, 1, first), self.columns(lines, 2, first)];
                store_row(out, place, 1, plus(a, b));
                store_row(out, place, 2, minus(b, a));
                let [a, b] = [self.columns::<L>(lines, 1, first), self.columns(lines, 3, first)];
                store_row(out, place, 3, minus(a, b));
            }
        }
    }

    /// The four columns of tiles on one line of them.
    #[inline(always)]
    fn columns<L: Lanes<R>>(&self, [even, odd]: [&[R]; 2], line: usize, first: usize) -> [L; 4] {
        let at = line * self.stride + first;
        let (even, odd) = (&even[at..], &odd[at..]);
        [load_all(even), load_all(odd), load_all(&even[1..]), load_all(&odd[1..])]
    }
}

#[inline(always)]
fn plus<R, L: Lanes<R>>(a: [L; 4], b: [L; 4]) -> [L; 4] {
    [a[0].plus(b[0]), a[1].plus(b[1]), a[2].plus(b[2]), a[3].plus(b[3])]
}

#[inline(always)]
fn minus<R, L: Lanes<R>>(a: [L; 4], b: [L; 4]) -> [L; 4] {
    [a[0].minus(b[0]), a[1].minus(b[1]), a[2].minus(b[2]), a[3].minus(b[3])]
}

#[inline(always)]
fn load_all<R: Real, L: Lanes<R>>(from: &[R]) -> L {
    match from.first_chunk() {
        Some(from) => L::load(from),
        None => L::same(R::zero()),
    }
}

#[inline(always)]
fn store_all<R: Real, L: Lanes<R>>(values: L, to: &mut [R]) {
    if let Some(to) = to.first_chunk_mut() {
        values.store(to);
    }
}

impl Tiling {
    /// `images (B, depth, H, W)` → `out (B, rows, H, W)`, plus a bias for every row, if there is one.
    pub(super) fn convolve<R: Real>(
        &self,
        kernels: &Kernels<R>,
        images: &[R],
        bias: Option<&[R]>,
        out: &mut [R],
    ) {
        let (rows, depth) = (kernels.rows, kernels.depth);
        let tiling = self;
        let bands: Vec<Range<usize>> = tiling.bands(BAND).collect();
        let mut jobs = Vec::new();
        for (image, out) in images.chunks(depth * tiling.pixels()).zip(out.chunks_mut(rows * tiling.pixels()))
        {
            let first = jobs.len();
            jobs.extend(bands.iter().cloned().map(|band| ConvolveBand {
                tiling,
                kernels,
                image,
                bias,
                band,
                out: vec![],
            }));
            for mut plane in out.chunks_mut(tiling.pixels()) {
                for job in &mut jobs[first..] {
                    let (lines, below) = plane.split_at_mut(tiling.lines(&job.band).len() * tiling.width);
                    job.out.push(lines);
                    plane = below;
                }
            }
        }
        let most = bands.first().map_or(0, |band| band.len());
        jobs.into_par_iter().for_each_init(
            || Scratch::new(tiling, kernels, most),
            |scratch, job| {
                run_lanes((job, scratch));
            },
        );
    }

    /// The gradient of a weight `(outs, channels, 3, 3)`, summed over the images `x (B, channels, H, W)` whose results have the
    /// gradients `grad (B, outs, H, W)`: `Gᵀ [Σ (A dY Aᵀ) ∘ (Bᵀ d B)] G`.
    pub(super) fn weight_grad<R: Real>(&self, [outs, channels]: [usize; 2], x: &[R], grad: &[R]) -> Vec<R> {
        let tiling = self;
        // Points of the weight's gradient, `(16, outs, channels)`.
        let mut points = vec![R::zero(); POINTS * outs * channels];
        let images = x.chunks(channels * tiling.pixels()).zip(grad.chunks(outs * tiling.pixels()));
        for (image, grad) in images {
            for band in tiling.bands(GRADIENT_BAND) {
                let tiles = band.len() * tiling.cols;
                let seen = by_channel(tiling, image, tiles, |out, plane| {
                    run_lanes(TransformImage { tiling, plane, band: &band, out });
                });
                let given = by_channel(tiling, grad, tiles, |out, plane| {
                    run_lanes(TransformGrad { tiling, plane, band: &band, out });
                });
                points.par_chunks_mut(outs * channels).enumerate().for_each(|(point, sum)| {
                    let rows = |data, rows| (data, Matrix::strided(rows, tiles, POINTS * tiles + LINE));
                    let (a, b) =
                        (rows(&given[point * tiles..], outs), rows(&seen[point * tiles..], channels));
                    matmul(
                        (sum, Matrix::dense(outs, channels)),
                        a,
                        (b.0, b.1.t()),
                        R::one(),
                        true,
                        Threads::One,
                    );
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

/// One band of one image.
struct ConvolveBand<'a, R> {
    tiling: &'a Tiling,
    kernels: &'a Kernels<R>,
    image: &'a [R],
    bias: Option<&'a [R]>,
    band: Range<usize>,
    /// Lines of each row of the result.
    out: Vec<&'a mut [R]>,
}

/// What is used for one band after the other: points of the image and of the result.
struct Scratch<R> {
    lines: Lines<R>,
    image: Vec<R>,
    result: Vec<R>,
}

impl<R: Real> Scratch<R> {
    fn new(tiling: &Tiling, kernels: &Kernels<R>, rows: usize) -> Self {
        let zeros = |depth| vec![R::zero(); Panels::narrow(rows * tiling.cols, depth).len()];
        Self {
            lines: Lines::new(tiling, rows),
            image: zeros(kernels.depth),
            result: zeros(kernels.rows.next_multiple_of(BLOCK)),
        }
    }
}

impl<R: Real> LanesLoop<R> for (ConvolveBand<'_, R>, &mut Scratch<R>) {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let (ConvolveBand { tiling, kernels, image, bias, band, mut out }, scratch) = self;
        let tiles = band.len() * tiling.cols;
        let from = Panels::narrow(tiles, kernels.depth);
        let to = Panels::narrow(tiles, kernels.rows.next_multiple_of(BLOCK));
        for (channel, plane) in image.chunks(tiling.pixels()).enumerate() {
            scratch.lines.fill::<L>(tiling, plane, &band);
            scratch.lines.transform::<L>(tiling, band.len(), &from, channel, &mut scratch.image);
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
        for (row, lines) in out.iter_mut().enumerate() {
            let bias = L::same(match bias {
                Some(bias) => bias[row],
                None => R::zero(),
            });
            for (tile_row, lines) in lines.chunks_mut(2 * tiling.width).enumerate() {
                for first in (0..tiling.cols).step_by(LANES) {
                    let tile = tile_row * tiling.cols + first;
                    let place = to.place(row, tile, LANES.min(tiling.cols - first));
                    let points = &*scratch.result;
                    let columns = [
                        gather(place.column::<R, L>(points, 0)),
                        gather(place.column::<R, L>(points, 1)),
                        gather(place.column::<R, L>(points, 2)),
                        gather(place.column::<R, L>(points, 3)),
                    ];
                    for (y, line) in lines.chunks_mut(tiling.width).enumerate() {
                        let row = [columns[0][y], columns[1][y], columns[2][y], columns[3][y]];
                        let [even, odd] = gather(row);
                        write(&mut line[2 * first..], even.plus(bias), odd.plus(bias));
                    }
                }
            }
        }
    }
}

/// Writes columns of even and odd number in turn, as many as there is room for.
#[inline(always)]
fn write<R: Real, L: Lanes<R>>(line: &mut [R], even: L, odd: L) {
    let [first, second] = even.interleave(odd);
    if let Some((to, rest)) = line.split_first_chunk_mut()
        && let Some(rest) = rest.first_chunk_mut()
    {
        first.store(to);
        return second.store(rest);
    }
    let mut pixels = [[R::zero(); LANES]; 2];
    first.store(&mut pixels[0]);
    second.store(&mut pixels[1]);
    line.iter_mut().zip(pixels.as_flattened()).for_each(|(to, pixel)| *to = *pixel);
}

/// The points of a band's tiles, dense for each channel, as `transform` makes them of its plane.
fn by_channel<R: Real>(
    tiling: &Tiling,
    planes: &[R],
    tiles: usize,
    transform: impl Fn(&mut [R], &[R]) + Sync,
) -> Vec<R> {
    let mut points = vec![R::zero(); planes.len() / tiling.pixels() * (POINTS * tiles + LINE)];
    let planes = planes.par_chunks(tiling.pixels());
    points.par_chunks_mut(POINTS * tiles + LINE).zip(planes).for_each(|(out, plane)| transform(out, plane));
    points
}

/// `Bᵀ d B` of a band of an image's plane.
struct TransformImage<'a, R> {
    tiling: &'a Tiling,
    plane: &'a [R],
    band: &'a Range<usize>,
    out: &'a mut [R],
}

impl<R: Real> LanesLoop<R> for TransformImage<'_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let Self { tiling, plane, band, out } = self;
        let mut lines = Lines::new(tiling, band.len());
        lines.fill::<L>(tiling, plane, band);
        lines.transform::<L>(tiling, band.len(), &Panels::dense(band.len() * tiling.cols), 0, out);
    }
}

/// `A dY Aᵀ` of a band of a gradient's plane.
struct TransformGrad<'a, R> {
    tiling: &'a Tiling,
    plane: &'a [R],
    band: &'a Range<usize>,
    out: &'a mut [R],
}

impl<R: Real> LanesLoop<R> for TransformGrad<'_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        let Self { tiling, plane, band, out } = self;
        let panels = Panels::dense(band.len() * tiling.cols);
        let lines = tiling.lines(band);
        let lines = &plane[lines.start * tiling.width..lines.end * tiling.width];
        for (row, lines) in lines.chunks(2 * tiling.width).enumerate() {
            for first in (0..tiling.cols).step_by(LANES) {
                let mut pixels = [[L::same(R::zero()); 2]; 2];
                for (line, pixels) in lines.chunks(tiling.width).zip(&mut pixels) {
                    *pixels = read(&line[2 * first..]);
                }
                let place = panels.place(0, row * tiling.cols + first, LANES.min(tiling.cols - first));
                let even = scatter::<R, L>([pixels[0][0], pixels[1][0]]);
                let odd = scatter::<R, L>([pixels[0][1], pixels[1][1]]);
                for y in 0..4 {
                    let row = scatter::<R, L>([even[y], odd[y]]);
                    place.store(out, 4 * y, row[0]);
                    place.store(out, 4 * y + 1, row[1]);
                    place.store(out, 4 * y + 2, row[2]);
                    place.store(out, 4 * y + 3, row[3]);
                }
            }
        }
    }
}

/// Columns of even and odd number, zero behind the end of the line.
#[inline(always)]
fn read<R: Real, L: Lanes<R>>(line: &[R]) -> [L; 2] {
    if let Some((first, rest)) = line.split_first_chunk()
        && let Some(second) = rest.first_chunk()
    {
        return L::load(first).deinterleave(L::load(second));
    }
    let mut pixels = [[R::zero(); LANES]; 2];
    pixels.as_flattened_mut().iter_mut().zip(line).for_each(|(to, pixel)| *to = *pixel);
    L::load(&pixels[0]).deinterleave(L::load(&pixels[1]))
}

/// `Gᵀ dU G` for a row of channels, whose points lie `distance` apart; `weight (channels, 3, 3)`.
struct GatherKernel<'a, R> {
    points: &'a [R],
    distance: usize,
    weight: &'a mut [R],
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
