//! Central differences: the check that a backward is the derivative of its forward.

use candle_core::{Device, Result, Tensor, Var};

/// The largest disagreement between a backward and central differences, relative to the gradient's size.
///
/// `function` maps tensors of the given shapes to one tensor; its result is reduced with fixed random weights, so
/// that every output matters. Everything runs in f64.
///
/// # Errors
/// Those of `function`, and an input that received no gradient at all.
pub fn gradient_error(inputs: &[Tensor], function: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<f64> {
    const STEP: f64 = 1e-5;
    let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let output = function(&tracked)?;
    let weights = weights_like(&output)?;
    let objective =
        |inputs: &[Tensor]| -> Result<f64> { (function(inputs)? * &weights)?.sum_all()?.to_scalar::<f64>() };
    let grads = (output * &weights)?.sum_all()?.backward()?;
    let mut worst = 0.0f64;
    for (index, var) in vars.iter().enumerate() {
        let Some(grad) = grads.get(var) else {
            candle_core::bail!("input {index} received no gradient");
        };
        let grad = grad.flatten_all()?.to_vec1::<f64>()?;
        let scale = grad.iter().fold(1e-3f64, |most, value| most.max(value.abs()));
        let base = inputs[index].flatten_all()?.to_vec1::<f64>()?;
        for position in 0..base.len() {
            let shifted = |delta: f64| -> Result<f64> {
                let mut values = base.clone();
                values[position] += delta;
                let mut moved = inputs.to_vec();
                moved[index] = Tensor::from_vec(values, inputs[index].shape(), inputs[index].device())?;
                objective(&moved)
            };
            let slope = (shifted(STEP)? - shifted(-STEP)?) / (2.0 * STEP);
            worst = worst.max((slope - grad[position]).abs() / scale);
        }
    }
    Ok(worst)
}

fn weights_like(output: &Tensor) -> Result<Tensor> {
    let values: Vec<f64> = (0..output.elem_count()).map(|i| (i as f64 * 0.7 + 0.3).sin() + 0.1).collect();
    Tensor::from_vec(values, output.shape(), &Device::Cpu)
}

/// A smooth, fixed tensor of f64 values of about unit size, for checks.
///
/// # Errors
/// Those of candle.
pub fn sample_tensor(shape: &[usize], salt: u64) -> Result<Tensor> {
    let mut draws = crate::random::Draws::new(salt, crate::random::Stream::Init, 0, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| draws.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::{Kernel, Real, View, apply};

    /// Checks a kernel: fused backward against differences, composition against differences, and both forwards.
    #[track_caller]
    pub(crate) fn check<K: Kernel>(kernel: K, inputs: &[Tensor]) {
        let refs: Vec<&Tensor> = inputs.iter().collect();
        let fused = apply(kernel.clone(), &refs).unwrap();
        let composed = kernel.composed(&refs).unwrap();
        let distance =
            (&fused - &composed).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert_eq!(fused.dims(), composed.dims(), "{}", K::NAME);
        assert!(distance < 1e-5, "{}: fused and composed differ by {distance}", K::NAME);
        let error = gradient_error(inputs, |x| apply(kernel.clone(), &x.iter().collect::<Vec<_>>())).unwrap();
        assert!(error < 2e-7, "{}: fused gradient off by {error}", K::NAME);
        let error = gradient_error(inputs, |x| kernel.composed(&x.iter().collect::<Vec<_>>())).unwrap();
        assert!(error < 1e-5, "{}: composed gradient off by {error}", K::NAME);
    }

    /// x², with a backward that forgets the 2.
    #[derive(Clone)]
    struct WrongSquare;

    impl Kernel for WrongSquare {
        const NAME: &'static str = "wrong-square";

        fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
            Ok(dims[0].to_vec())
        }

        fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
            output.iter_mut().zip(inputs[0].data).for_each(|(o, x)| *o = *x * *x);
        }

        fn backward<R: Real>(&self, x: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
            vec![Some(x[0].data.iter().zip(grad).map(|(x, g)| *x * *g).collect())]
        }

        fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
            inputs[0].sqr()
        }
    }

    #[test]
    fn a_wrong_backward_is_caught() {
        let inputs = [sample_tensor(&[3, 2], 1).unwrap()];
        let error = gradient_error(&inputs, |x| apply(WrongSquare, &[&x[0]])).unwrap();
        assert!(error > 0.1, "the check did not see a gradient that is half of the right one: {error}");
        let error = gradient_error(&inputs, |x| x[0].sqr()).unwrap();
        assert!(error < 1e-8, "{error}");
    }

    #[test]
    fn a_lost_gradient_is_caught() {
        let inputs = [sample_tensor(&[3], 1).unwrap()];
        assert!(gradient_error(&inputs, |x| x[0].detach().sqr()).is_err());
    }
}
