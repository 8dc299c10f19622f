//! Recomputed segments: a part of a network whose intermediate results are not kept for the backward.
//!
//! The segment runs once without a graph, and again, with one, when its gradient is asked for. Results and gradients
//! are those of the plain network, bit for bit; peak memory falls to the segments' borders and one segment's inside. candle hands a
//! custom operation only the gradient of its own arguments, so those of parameters inside come out at a [`Recorder`].
//!
//! Source: Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174.

use crate::recorder::{Recorder, during};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, Var};
use rayon::prelude::*;

impl Recorder {
    /// Runs `segment` on `x` without keeping what happens inside.
    ///
    /// On devices other than the CPU the segment runs as it is, with everything kept.
    ///
    /// # Errors
    /// Those of `segment`.
    pub fn segment<F>(&self, x: &Tensor, segment: F) -> Result<Tensor>
    where
        F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    {
        if !x.device().is_cpu() {
            return segment(x);
        }
        // Parameters stay tracked inside, so drop the graph at once and keep only the numbers.
        let result = segment(&x.detach())?.detach();
        let anchor = if x.track_op() { x.clone() } else { Var::from_tensor(x)?.into_inner() };
        anchor.apply_op1(Recomputed { result, segment: Box::new(segment), recorder: self.clone() })
    }

    /// Computes parts of some rows at the same time, each with a graph of its own, and puts them one after the other; in the
    /// backward the parts go back at the same time, too. Operations too small to be shared between cores then share nothing.
    ///
    /// Gradients come out here alone: `part` must not read what is tracked and not recorded.
    ///
    /// # Errors
    /// Those of `part`, or if the parts don't fit together.
    pub fn beside<E: From<candle_core::Error> + Send>(
        &self,
        parts: usize,
        part: impl Fn(usize) -> std::result::Result<Tensor, E> + Send + Sync,
    ) -> std::result::Result<Tensor, E> {
        let parts = (0..parts).into_par_iter().map(part).collect::<std::result::Result<Vec<_>, E>>()?;
        let result = Tensor::cat(&parts.iter().map(Tensor::detach).collect::<Vec<_>>(), 0)?;
        let anchor = Var::zeros((), result.dtype(), result.device())?;
        Ok(anchor.apply_op1(Beside { result, parts, recorder: self.clone() })?)
    }
}

type Segment = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync;

/// What is known already, as the result of an operation.
fn known(name: &str, result: &Tensor) -> Result<(CpuStorage, Shape)> {
    let result = result.contiguous()?;
    let (storage, layout) = result.storage_and_layout();
    match (&*storage, layout.start_offset()) {
        (Storage::Cpu(storage), 0) => Ok((storage.clone(), result.shape().clone())),
        _ => candle_core::bail!("{name}: the result must be a whole tensor on the CPU"),
    }
}

struct Beside {
    result: Tensor,
    parts: Vec<Tensor>,
    recorder: Recorder,
}

impl CustomOp1 for Beside {
    fn name(&self) -> &'static str {
        "parts side by side"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        known(self.name(), &self.result)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut rows = 0;
        let mut graded = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let here = part.dim(0)?;
            graded.push((part, grad.narrow(0, rows, here)?.detach()));
            rows += here;
        }
        // To stores of their own, and from those one after the other, so that sums do not depend on which part is first.
        let back = |(part, grad): (&Tensor, Tensor)| {
            let sum = (part * grad)?.sum_all()?;
            during(None, || sum.backward())
        };
        let stores = graded.into_par_iter().map(back).collect::<Result<Vec<_>>>()?;
        stores.iter().try_for_each(|store| self.recorder.record(store))?;
        Ok(None)
    }
}

struct Recomputed {
    result: Tensor,
    segment: Box<Segment>,
    recorder: Recorder,
}

impl CustomOp1 for Recomputed {
    fn name(&self) -> &'static str {
        "recomputed segment"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        known(self.name(), &self.result)
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let input = Var::from_tensor(&arg.detach())?;
        let output = (self.segment)(input.as_tensor())?;
        let store = self.recorder.differentiate(&(output * grad.detach())?.sum_all()?)?;
        Ok(store.get(&input).map(Tensor::detach))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::sample_tensor;
    use crate::ops::{Activation, activate, linear};

    #[test]
    fn parts_side_by_side_give_the_gradients_of_the_whole() {
        let x = sample_tensor(&[5, 4], 1).unwrap();
        let weights: Vec<Var> =
            (0..2).map(|i| Var::from_tensor(&sample_tensor(&[4, 4], 2 + i).unwrap()).unwrap()).collect();
        let tensors: Vec<Tensor> = weights.iter().map(|w| w.as_tensor().clone()).collect();
        let network = |x: &Tensor| {
            linear(&activate(&linear(x, &tensors[0], None)?, Activation::Silu)?, &tensors[1], None)
        };
        let run = |is_apart: bool| {
            let recorder = Recorder::new(&tensors);
            let y = match is_apart {
                true => recorder.beside(2, |part| network(&x.narrow(0, 3 * part, 3 - part)?)).unwrap(),
                false => network(&x).unwrap(),
            };
            let loss = y.sqr().unwrap().sum_all().unwrap();
            recorder.backward(&loss).unwrap();
            let grads = recorder.take();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            (flat(&y), grads.into_iter().map(|g| flat(&g.unwrap())).collect::<Vec<_>>().concat())
        };
        let (whole, apart) = (run(false), run(true));
        assert_eq!(whole.0, apart.0);
        for (a, b) in whole.1.iter().zip(&apart.1) {
            assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn gradients_are_those_of_the_plain_network_bit_for_bit() {
        let x = sample_tensor(&[3, 4], 1).unwrap();
        let weights: Vec<Var> =
            (0..3).map(|i| Var::from_tensor(&sample_tensor(&[4, 4], 2 + i).unwrap()).unwrap()).collect();
        let tensors: Vec<Tensor> = weights.iter().map(|w| w.as_tensor().clone()).collect();
        let layer = |w: Tensor| move |x: &Tensor| activate(&linear(x, &w, None)?, Activation::Silu)? + x;
        let run = |recompute: bool| {
            let recorder = Recorder::new(&tensors);
            let mut h = x.clone();
            // The last weight is used twice, once outside a segment.
            for w in tensors.iter().chain([&tensors[2]]) {
                h = if recompute {
                    recorder.segment(&h, layer(w.clone())).unwrap()
                } else {
                    layer(w.clone())(&h).unwrap()
                };
            }
            let loss = linear(&h, &tensors[2], None).unwrap().sqr().unwrap().sum_all().unwrap();
            recorder.backward(&loss).unwrap();
            let grads = recorder.take();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            (
                loss.to_scalar::<f64>().unwrap(),
                grads.into_iter().map(|g| flat(&g.unwrap())).collect::<Vec<_>>(),
            )
        };
        let (plain, recomputed) = (run(false), run(true));
        assert_eq!(plain.0, recomputed.0);
        for (a, b) in plain.1.iter().flatten().zip(recomputed.1.iter().flatten()) {
            // Weights used more than once are summed in another order, which costs the last bit.
            assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{a} {b}");
        }
        assert_eq!(plain.1[0], recomputed.1[0]);
    }
}
