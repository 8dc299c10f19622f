//! Nearest-neighbour up-sampling by two, as in U-Net and VAE decoders.

use crate::kernel::{Kernel, Real, View, apply};
use candle_core::{Result, Tensor};

#[derive(Clone)]
struct Upsample;

/// Doubles height and width by repeating every pixel.
///
/// # Shapes
/// `x (B, C, H, W)` → `(B, C, 2H, 2W)`.
/// # Errors
/// If `x` does not have four dimensions.
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    apply(Upsample, &[x])
}

impl Kernel for Upsample {
    const NAME: &'static str = "upsample";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        match dims[0] {
            [b, c, h, w] => Ok(vec![*b, *c, 2 * h, 2 * w]),
            other => candle_core::bail!("upsample: expected (B, C, H, W), found {other:?}"),
        }
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let width = inputs[0].last();
        for (rows, row) in output.chunks_mut(4 * width).zip(inputs[0].data.chunks(width)) {
            let (upper, lower) = rows.split_at_mut(2 * width);
            upper.chunks_mut(2).zip(row).for_each(|(pair, x)| pair.fill(*x));
            lower.copy_from_slice(upper);
        }
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        let width = inputs[0].last();
        let mut dx = vec![R::zero(); inputs[0].data.len()];
        for (dx, rows) in dx.chunks_mut(width).zip(grad.chunks(4 * width)) {
            let (upper, lower) = rows.split_at(2 * width);
            for (d, (u, l)) in dx.iter_mut().zip(upper.chunks(2).zip(lower.chunks(2))) {
                *d = u[0] + u[1] + l[0] + l[1];
            }
        }
        vec![Some(dx)]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (b, c, h, w) = inputs[0].dims4()?;
        inputs[0].reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?.reshape((b, c, 2 * h, 2 * w))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};

    #[test]
    fn gradient() {
        check(Upsample, &[sample_tensor(&[2, 2, 2, 3], 1).unwrap()]);
    }
}
