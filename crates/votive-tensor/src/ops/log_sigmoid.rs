//! log σ(x), with the backward σ(−x) in closed form.
//!
//! At x = 0, where every preference run starts, textbook compositions of candle 0.11.1's ops give a wrong gradient
//! (1.0 or 1.5 where ½ is right), because `abs`, `relu` and `minimum` choose a slope there.

use crate::kernel::{Kernel, Real, View, apply};
use candle_core::{Result, Tensor};

#[derive(Clone)]
struct LogSigmoid;

/// The logarithm of the logistic function, elementwise.
///
/// # Shapes
/// `x` any shape → the same shape.
/// # Numerics
/// Finite for every finite `x`; the gradient is σ(−x) exactly, ½ at 0.
/// # Errors
/// Those of candle.
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    apply(LogSigmoid, &[x])
}

impl Kernel for LogSigmoid {
    const NAME: &'static str = "log-sigmoid";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(dims[0].to_vec())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        for (o, x) in output.iter_mut().zip(inputs[0].data) {
            let below = if *x > R::zero() { R::zero() } else { *x };
            *o = below - (-x.abs()).exp().ln_1p();
        }
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        // σ(−x) without overflow: the exponential is always of a number that is not positive.
        let sigmoid_of_minus = |x: R| {
            let e = (-x.abs()).exp();
            if x > R::zero() { e / (R::one() + e) } else { R::one() / (R::one() + e) }
        };
        vec![Some(inputs[0].data.iter().zip(grad).map(|(x, g)| *g * sigmoid_of_minus(*x)).collect())]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        // log_softmax([x, 0])[0], shifted by a constant maximum: no op here has a kink at 0.
        let x = inputs[0];
        let shift = x.detach().maximum(&x.zeros_like()?)?;
        let sum = ((x - &shift)?.exp()? + shift.neg()?.exp()?)?;
        (x - &shift)?.sub(&sum.log()?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};
    use candle_core::{Device, Var};

    #[test]
    fn gradient() {
        check(LogSigmoid, &[sample_tensor(&[5], 1).unwrap()]);
    }

    #[test]
    fn values_and_slopes_at_zero_and_far_out() {
        let x = Var::from_vec(vec![0.0f32, 800.0, -800.0], 3, &Device::Cpu).unwrap();
        for y in [log_sigmoid(&x).unwrap(), LogSigmoid.composed(&[&x]).unwrap()] {
            assert_eq!(y.to_vec1::<f32>().unwrap(), [-std::f32::consts::LN_2, 0.0, -800.0]);
            let grad = y.sum_all().unwrap().backward().unwrap();
            assert_eq!(grad.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.5, 0.0, 1.0]);
        }
    }
}
