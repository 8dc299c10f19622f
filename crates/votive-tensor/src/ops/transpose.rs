//! Rows become columns. candle copies a transposed tensor number by number.

use crate::kernel::{Kernel, Real, View, apply};
use crate::vector;
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

/// The transposes of the matrices that the last two dimensions hold, in memory as they are read.
///
/// # Shapes
/// `x (…, M, N)` → `(…, N, M)`.
/// # Errors
/// If `x` has fewer than two dimensions.
pub fn transpose(x: &Tensor) -> Result<Tensor> {
    apply(Transpose, &[x])
}

#[derive(Clone)]
struct Transpose;

impl Kernel for Transpose {
    const NAME: &'static str = "transpose";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let mut dims = dims[0].to_vec();
        match dims.as_mut_slice() {
            [.., m, n] => std::mem::swap(m, n),
            other => candle_core::bail!("transpose: expected (…, M, N), found {other:?}"),
        }
        Ok(dims)
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        if let [.., m, n] = *inputs[0].dims {
            transpose_all(inputs[0].data, [m, n], output);
        }
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        let mut dx = vec![R::zero(); grad.len()];
        if let [.., m, n] = *inputs[0].dims {
            transpose_all(grad, [n, m], &mut dx);
        }
        vec![Some(dx)]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        inputs[0].transpose(D::Minus2, D::Minus1)?.contiguous()
    }
}

/// Columns that are turned together: as many as are read with a line of the cache.
const STRIP: usize = 16;

/// Whether a matrix of this shape is turned by vectors.
pub(super) fn is_fast([rows, columns]: [usize; 2]) -> bool {
    rows.is_multiple_of(STRIP) && columns.is_multiple_of(STRIP)
}

/// The transposes of dense matrices that follow each other.
pub(super) fn transpose_all<R: Real>(from: &[R], [rows, columns]: [usize; 2], into: &mut [R]) {
    let size = (rows * columns).max(1);
    for (from, into) in from.chunks(size).zip(into.chunks_mut(size)) {
        if is_fast([rows, columns]) {
            into.par_chunks_mut(STRIP * rows).enumerate().for_each(|(strip, into)| {
                vector::transpose((&from[strip * STRIP..], columns), (into, rows));
            });
        } else {
            for (column, into) in into.chunks_mut(rows).enumerate() {
                into.iter_mut().enumerate().for_each(|(row, into)| *into = from[row * columns + column]);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};

    #[test]
    fn gradient() {
        check(Transpose, &[sample_tensor(&[2, 3, 5], 1).unwrap()]);
        check(Transpose, &[sample_tensor(&[2, 16, 32], 1).unwrap()]);
        check(Transpose, &[sample_tensor(&[7, 1], 1).unwrap()]);
    }
}
