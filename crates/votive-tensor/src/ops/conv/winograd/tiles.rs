//! Tiles of images and results: where their points lie, and the ways there and back.

use super::{LINE, PANEL, POINTS, Tiling};
use crate::kernel::Real;
use crate::vector::{LANES, Lanes, load_all, store_all};
use std::ops::Range;

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
pub(super) struct Panels {
    width: usize,
    /// Distances of points and of panels.
    pub(super) point: usize,
    pub(super) panel: usize,
}

impl Panels {
    /// For products: point, panel, channel, tile.
    pub(super) fn narrow(tiles: usize, depth: usize) -> Self {
        let panel = depth * PANEL;
        Self { width: PANEL, point: tiles.div_ceil(PANEL) * panel + LINE, panel }
    }

    /// One channel's, in one panel.
    pub(super) fn dense(tiles: usize) -> Self {
        Self { width: tiles, point: tiles, panel: tiles }
    }

    pub(super) fn len(&self) -> usize {
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
            && let Some(data) = data[self.first..].first_chunk_mut::<LANES>()
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
            && let Some(data) = data[self.first..].first_chunk::<LANES>()
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
pub(super) struct Lines<R> {
    even: Vec<R>,
    odd: Vec<R>,
    stride: usize,
}

impl<R: Real> Lines<R> {
    /// For the lines of at most `rows` rows of tiles.
    pub(super) fn new(tiling: &Tiling, rows: usize) -> Self {
        // A tile reads into its neighbour on the right, a vector of tiles behind the last one.
        let stride = tiling.cols.next_multiple_of(LANES) + 1;
        let zeros = vec![R::zero(); (2 * rows + 2) * stride];
        Self { even: zeros.clone(), odd: zeros, stride }
    }

    /// Reads what the tiles of a band see of a plane.
    #[inline(always)]
    pub(super) fn fill<L: Lanes<R>>(&mut self, tiling: &Tiling, plane: &[R], band: &Range<usize>) {
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

    /// The points of some channel's tiles, `Bᵀ d B`, which are counted from a first one.
    #[inline(always)]
    pub(super) fn transform<L: Lanes<R>>(
        &self,
        tiling: &Tiling,
        rows: usize,
        panels: &Panels,
        (channel, first_tile): (usize, usize),
        out: &mut [R],
    ) {
        for row in 0..rows {
            let lines = 2 * row * self.stride..(2 * row + 4) * self.stride;
            let lines = [&self.even[lines.clone()], &self.odd[lines]];
            for first in (0..tiling.cols).step_by(LANES) {
                let tile = first_tile + row * tiling.cols + first;
                let place = panels.place(channel, tile, LANES.min(tiling.cols - first));
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

/// Lines of a row of the result, of tiles from `first` on: `Aᵀ M A + bias`.
#[inline(always)]
pub(super) fn results<R: Real, L: Lanes<R>>(
    tiling: &Tiling,
    panels: &Panels,
    (row, first): (usize, usize),
    points: &[R],
    lines: &mut [R],
    bias: R,
) {
    let bias = L::same(bias);
    for (tile_row, lines) in lines.chunks_mut(2 * tiling.width).enumerate() {
        for column in (0..tiling.cols).step_by(LANES) {
            let tile = first + tile_row * tiling.cols + column;
            let place = panels.place(row, tile, LANES.min(tiling.cols - column));
            let columns = [
                gather(place.column::<R, L>(points, 0)),
                gather(place.column::<R, L>(points, 1)),
                gather(place.column::<R, L>(points, 2)),
                gather(place.column::<R, L>(points, 3)),
            ];
            for (y, line) in lines.chunks_mut(tiling.width).enumerate() {
                let row = [columns[0][y], columns[1][y], columns[2][y], columns[3][y]];
                let [even, odd] = gather(row);
                write(&mut line[2 * column..], even.plus(bias), odd.plus(bias));
            }
        }
    }
}

/// Writes columns of even and odd number in turn, as many as there is room for.
#[inline(always)]
fn write<R: Real, L: Lanes<R>>(line: &mut [R], even: L, odd: L) {
    let [first, second] = even.interleave(odd);
    if let Some((to, rest)) = line.split_first_chunk_mut::<LANES>()
        && let Some(rest) = rest.first_chunk_mut::<LANES>()
    {
        first.store(to);
        return second.store(rest);
    }
    let mut pixels = [[R::zero(); LANES]; 2];
    first.store(&mut pixels[0]);
    second.store(&mut pixels[1]);
    line.iter_mut().zip(pixels.as_flattened()).for_each(|(to, pixel)| *to = *pixel);
}

/// `A dY Aᵀ` of lines of a gradient, whose tiles are counted from `first_tile` on.
#[inline(always)]
pub(super) fn grad_points<R: Real, L: Lanes<R>>(
    tiling: &Tiling,
    panels: &Panels,
    first_tile: usize,
    lines: &[R],
    out: &mut [R],
) {
    for (row, lines) in lines.chunks(2 * tiling.width).enumerate() {
        for first in (0..tiling.cols).step_by(LANES) {
            let mut pixels = [[L::same(R::zero()); 2]; 2];
            for (line, pixels) in lines.chunks(tiling.width).zip(&mut pixels) {
                *pixels = read(&line[2 * first..]);
            }
            let tile = first_tile + row * tiling.cols + first;
            let place = panels.place(0, tile, LANES.min(tiling.cols - first));
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

/// Columns of even and odd number, zero behind the end of the line.
#[inline(always)]
fn read<R: Real, L: Lanes<R>>(line: &[R]) -> [L; 2] {
    if let Some((first, rest)) = line.split_first_chunk::<LANES>()
        && let Some(second) = rest.first_chunk::<LANES>()
    {
        return L::load(first).deinterleave(L::load(second));
    }
    let mut pixels = [[R::zero(); LANES]; 2];
    pixels.as_flattened_mut().iter_mut().zip(line).for_each(|(to, pixel)| *to = *pixel);
    L::load(&pixels[0]).deinterleave(L::load(&pixels[1]))
}
