//! Rotary position embedding in the half-split layout of Hugging Face checkpoints.

use crate::kernel::{Kernel, Real, View, apply};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Rotates the two halves of every head by the position's angles; with fewer angles than half a head is wide, only
/// the halves of its first 2·A numbers (partial rotary embedding).
///
/// # Shapes
/// `x (B, T, heads·D)`, `cos` and `sin (B or 1, T, A)`, 2·A at most D → the shape of `x`.
/// # Gradient
/// Flows to `x` only; angles are constants.
/// # Errors
/// If the sizes don't fit.
/// # Source
/// Su et al., arXiv:2104.09864, Eq. 34, with the pairs (i, i + A) of transformers' `rotate_half`.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, heads: usize) -> Result<Tensor> {
    apply(Rope { heads }, &[x, &cos.detach(), &sin.detach()])
}

#[derive(Clone)]
struct Rope {
    heads: usize,
}

impl Rope {
    /// Rotates by the angles, or back by them if `sign` is −1.
    fn rotate<R: Real>(&self, inputs: &[View<R>], x: &[R], sign: R, output: &mut [R]) {
        let (width, half) = (inputs[0].last(), inputs[1].last());
        let positions = inputs[1].data.len() / half;
        output.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate().for_each(|(row, (out, x))| {
            // One table for all rows of the batch repeats after its T positions.
            let at = row % positions * half;
            let (cos, sin) = (&inputs[1].data[at..at + half], &inputs[2].data[at..at + half]);
            let head = width / self.heads;
            for (out, x) in out.chunks_mut(head).zip(x.chunks(head)) {
                out[2 * half..].copy_from_slice(&x[2 * half..]);
                for i in 0..half {
                    let (a, b, s) = (x[i], x[i + half], sin[i] * sign);
                    out[i] = a * cos[i] - b * s;
                    out[i + half] = b * cos[i] + a * s;
                }
            }
        });
    }
}

impl Kernel for Rope {
    const NAME: &'static str = "rope";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        match (dims[0], dims[1]) {
            ([b, t, width], [rows, positions, half])
                if dims[1] == dims[2]
                    && positions == t
                    && (*rows == 1 || rows == b)
                    && self.heads > 0
                    && width.is_multiple_of(self.heads)
                    && 2 * half <= width / self.heads =>
            {
                Ok(dims[0].to_vec())
            }
            _ => candle_core::bail!("rope: input {:?}, angles {:?}, {} heads", dims[0], dims[1], self.heads),
        }
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        self.rotate(inputs, inputs[0].data, R::one(), output);
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        let mut dx = vec![R::zero(); grad.len()];
        self.rotate(inputs, grad, -R::one(), &mut dx);
        vec![Some(dx), None, None]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (b, t, width) = inputs[0].dims3()?;
        let half = inputs[1].dim(2)?;
        let head = width / self.heads;
        let x = inputs[0].reshape((b, t, self.heads, head))?;
        let (a, c) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let (cos, sin) = (inputs[1].unsqueeze(2)?, inputs[2].unsqueeze(2)?);
        let first = (a.broadcast_mul(&cos)? - c.broadcast_mul(&sin)?)?;
        let second = (c.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let mut parts = vec![first, second];
        if head > 2 * half {
            parts.push(x.narrow(3, 2 * half, head - 2 * half)?);
        }
        Tensor::cat(&parts, 3)?.reshape((b, t, width))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{gradient_error, sample_tensor};

    #[test]
    fn gradient_and_composition() {
        // All of each head of 4, and the first 4 of each head of 6.
        for (rows, width) in [(1, 8), (2, 8), (2, 12)] {
            let x = sample_tensor(&[2, 3, width], 1).unwrap();
            let angles = sample_tensor(&[rows, 3, 2], 2).unwrap();
            let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
            let error = gradient_error(std::slice::from_ref(&x), |x| rope(&x[0], &cos, &sin, 2)).unwrap();
            assert!(error < 1e-8, "{error}");
            let fused = rope(&x, &cos, &sin, 2).unwrap();
            let composed = Rope { heads: 2 }.composed(&[&x, &cos, &sin]).unwrap();
            let distance =
                (fused - composed).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(distance < 1e-12, "{distance}");
        }
    }
}
