//! A number for each channel of an image, added to all of its pixels.

use crate::kernel::{Kernel, Real, View, apply};
use crate::vector;
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// `x + t`, where t has one number for each image and channel.
///
/// # Shapes
/// `x (B, C, H, W)`, `t (B, C)` → `(B, C, H, W)`.
/// # Errors
/// If the sizes don't fit.
pub fn add_to_channels(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    apply(AddToChannels, &[x, t])
}

#[derive(Clone)]
struct AddToChannels;

/// Numbers that one task takes, about.
const CHUNK: usize = 1 << 14;

impl Kernel for AddToChannels {
    const NAME: &'static str = "add to channels";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        match (dims[0], dims[1]) {
            ([b, c, _, _], [rows, channels]) if b == rows && c == channels => Ok(dims[0].to_vec()),
            _ => candle_core::bail!("add to channels: {:?} and {:?}", dims[0], dims[1]),
        }
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let pixels = inputs[0].dims[2] * inputs[0].dims[3];
        if pixels == 0 {
            return;
        }
        let planes = (CHUNK / pixels).max(1);
        let x = inputs[0].data.par_chunks(planes * pixels).zip(inputs[1].data.par_chunks(planes));
        output.par_chunks_mut(planes * pixels).zip(x).for_each(|(out, (x, t))| {
            for ((out, x), t) in out.chunks_mut(pixels).zip(x.chunks(pixels)).zip(t) {
                vector::map(out, x, |x| x + *t);
            }
        });
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        _: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        let pixels = inputs[0].dims[2] * inputs[0].dims[3];
        let sum = |plane: &[R]| vector::sum([plane, plane], |g, _| [g])[0];
        let dt = wanted[1].then(|| match pixels {
            0 => vec![R::zero(); inputs[1].data.len()],
            _ => grad.par_chunks(pixels).map(sum).collect(),
        });
        vec![wanted[0].then(|| grad.to_vec()), dt]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        inputs[0].broadcast_add(&inputs[1].unsqueeze(2)?.unsqueeze(3)?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};

    #[test]
    fn gradients() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
        check(AddToChannels, &[t(&[2, 3, 4, 5], 1), t(&[2, 3], 2)]);
        assert!(add_to_channels(&t(&[2, 3, 1, 1], 1), &t(&[3, 2], 2)).is_err());
    }
}
