//! `x · Wᵀ` for a few rows of x, as a generation has them: bounded by reading W, so W is read once, where it lies.
//!
//! A number of the result is one dot product whose sum has the same order whatever the other rows are, so that a row's
//! result does not depend on how many others are in the batch.

use crate::kernel::Real;
use crate::vector;
use rayon::prelude::*;

/// Rows up to which this is faster than a general product, which packs W first.
pub(super) const MOST: usize = 16;
/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 16;
/// Tasks for each thread, so that one that is held up does not hold up the others.
const TASKS_PER_THREAD: usize = 4;

/// Adds `x (rows, ins) · weight (outs, ins)ᵀ` to `out (rows, outs)`.
pub(super) fn add_product<R: Real>(x: &[R], weight: &[R], ins: usize, out: &mut [R]) {
    let (rows, outs) = (x.len().checked_div(ins).unwrap_or(0), weight.len().checked_div(ins).unwrap_or(0));
    if rows == 0 || outs == 0 {
        return;
    }
    let per_task = outs.div_ceil(rayon::current_num_threads() * TASKS_PER_THREAD);
    let per_task = per_task.max(TASK / (ins * rows)).next_multiple_of(WIDTH);
    let mut columns = vec![R::zero(); outs * rows];
    columns.par_chunks_mut(per_task * rows).zip(weight.par_chunks(per_task * ins)).for_each(
        |(columns, weight)| {
            vector::run(Block { x, weight, ins, columns });
        },
    );
    for (out_index, column) in columns.chunks_exact(rows).enumerate() {
        for (row, value) in column.iter().enumerate() {
            out[row * outs + out_index] += *value;
        }
    }
}

/// Rows of x, and rows of W, whose products are summed at the same time: as many as registers hold. With more rows of x
/// than that, one row of W at a time is read from memory without a pause.
const TALL: usize = 8;
const HEIGHT: usize = 4;
const WIDTH: usize = 2;
/// How far ahead memory is asked for W, in numbers; measured.
const AHEAD: usize = 512;

/// Some rows of W against all rows of x.
struct Block<'a, R> {
    x: &'a [R],
    weight: &'a [R],
    ins: usize,
    /// `(rows of W, rows of x)`.
    columns: &'a mut [R],
}

impl<R: Real> vector::Loop for Block<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let rows = self.x.len() / self.ins;
        let weights = self.weight.chunks(WIDTH * self.ins);
        for (weight, columns) in weights.zip(self.columns.chunks_mut(WIDTH * rows)) {
            if weight.len() == WIDTH * self.ins {
                group::<R, FUSED, WIDTH>(self.x, weight, self.ins, columns);
            } else {
                for (weight, column) in weight.chunks_exact(self.ins).zip(columns.chunks_exact_mut(rows)) {
                    group::<R, FUSED, 1>(self.x, weight, self.ins, column);
                }
            }
        }
    }
}

/// `W` rows of the weight against all rows of x, which stay in the nearest cache.
#[inline(always)]
fn group<R: Real, const FUSED: bool, const W: usize>(x: &[R], weight: &[R], ins: usize, columns: &mut [R]) {
    let rows = x.len() / ins;
    let mut row = 0;
    while row + TALL <= rows {
        for (w, weight) in weight.chunks_exact(ins).enumerate() {
            tile::<R, FUSED, TALL, 1>(&x[row * ins..], weight, ins, &mut columns[w * rows + row..], rows);
        }
        row += TALL;
    }
    while row + HEIGHT <= rows {
        tile::<R, FUSED, HEIGHT, W>(&x[row * ins..], weight, ins, &mut columns[row..], rows);
        row += HEIGHT;
    }
    while row < rows {
        tile::<R, FUSED, 1, W>(&x[row * ins..], weight, ins, &mut columns[row..], rows);
        row += 1;
    }
}

/// The dot products of `H` rows of x with `W` rows of the weight.
#[inline(always)]
fn tile<R: Real, const FUSED: bool, const H: usize, const W: usize>(
    x: &[R],
    weight: &[R],
    ins: usize,
    columns: &mut [R],
    rows: usize,
) {
    let x: [&[R]; H] = std::array::from_fn(|h| &x[h * ins..(h + 1) * ins]);
    let weight: [&[R]; W] = std::array::from_fn(|w| &weight[w * ins..(w + 1) * ins]);
    let products = vector::dots::<R, FUSED, H, W, AHEAD>(x, weight);
    for (w, products) in products.iter().enumerate() {
        columns[w * rows..w * rows + H].copy_from_slice(products);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    fn numbers(n: usize, salt: u64) -> Vec<f32> {
        Draws::new(salt, Stream::Init, 0, 0).normals(n)
    }

    /// Sizes around those of vectors, tiles and tasks.
    const SIZES: [(usize, usize); 6] = [(1, 1), (7, 3), (8, 2), (40, 31), (129, 70), (512, 333)];

    #[test]
    fn every_number_is_the_dot_product() {
        for (ins, outs) in SIZES {
            for rows in 1..=MOST {
                let (x, weight) = (numbers(rows * ins, 1), numbers(outs * ins, 2));
                let mut out = vec![0.5; rows * outs];
                add_product(&x, &weight, ins, &mut out);
                for (index, found) in out.iter().enumerate() {
                    let (x, weight) = (&x[index / outs * ins..], &weight[index % outs * ins..]);
                    let pairs = x.iter().zip(weight).take(ins);
                    let exact: f64 = pairs.clone().map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let size: f64 = pairs.map(|(a, b)| f64::from(a * b).abs()).sum();
                    let off = (f64::from(*found) - 0.5 - exact).abs();
                    assert!(off <= 1e-6 * (1.0 + size), "{rows} x {ins} x {outs}: off by {off}");
                }
            }
        }
    }

    #[test]
    fn a_row_comes_out_bit_for_bit_the_same_among_any_others() {
        for (ins, outs) in SIZES {
            let (x, weight) = (numbers(MOST * ins, 1), numbers(outs * ins, 2));
            let product = |x: &[f32]| {
                let mut out = vec![0.0; x.len() / ins * outs];
                add_product(x, &weight, ins, &mut out);
                out
            };
            let all = product(&x);
            for rows in 1..MOST {
                assert_eq!(product(&x[..rows * ins]), all[..rows * outs], "{rows} x {ins} x {outs}");
                let last = MOST - rows;
                assert_eq!(product(&x[last * ins..]), all[last * outs..], "last {rows} x {ins} x {outs}");
            }
        }
    }
}
