//! Recomputed segments: a part of a network whose intermediate results are not kept for the backward.
//!
//! The segment runs once without a graph, and again, with one, when its gradient is asked for. Results and gradients
//! are those of the plain network, bit for bit; peak memory falls to the segments' borders and one segment's inside.
//!
//! Source: Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where recomputed segments leave the gradients of the parameters that they read.
///
/// candle hands a custom operation only the gradient of its own arguments, so parameters inside a segment need this
/// second way out. [`Recorder::merge`] joins both.
#[derive(Clone, Debug)]
pub struct Recorder {
    trainable: Arc<[Tensor]>,
    gradients: Arc<Mutex<BTreeMap<usize, Tensor>>>,
}

impl Recorder {
    /// A recorder for the given trainable tensors.
    #[must_use]
    pub fn new(trainable: Vec<Tensor>) -> Self {
        Self { trainable: trainable.into(), gradients: Arc::default() }
    }

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

    /// Adds what the segments recorded to the gradients of the backward, and empties the recorder.
    ///
    /// # Errors
    /// Those of candle.
    pub fn merge(&self, store: &GradStore) -> Result<Vec<Option<Tensor>>> {
        let mut recorded =
            std::mem::take(&mut *self.gradients.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = self.trainable.iter().enumerate().map(|(index, tensor)| {
            let outside = store.get_id(tensor.id()).map(Tensor::detach);
            match (outside, recorded.remove(&index)) {
                (Some(outside), Some(inside)) => Ok(Some((outside + inside)?)),
                (outside, inside) => Ok(outside.or(inside)),
            }
        });
        joined.collect()
    }

    fn record(&self, store: &GradStore) -> Result<()> {
        let mut gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, tensor) in self.trainable.iter().enumerate() {
            let Some(grad) = store.get_id(tensor.id()) else { continue };
            let sum = match gradients.remove(&index) {
                Some(before) => (before + grad)?,
                None => grad.clone(),
            };
            gradients.insert(index, sum.detach());
        }
        Ok(())
    }
}

type Segment = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync;

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
        let result = self.result.contiguous()?;
        let (storage, layout) = result.storage_and_layout();
        match (&*storage, layout.start_offset()) {
            (Storage::Cpu(storage), 0) => Ok((storage.clone(), result.shape().clone())),
            _ => candle_core::bail!("recomputed segment: the result must be a whole tensor on the CPU"),
        }
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let input = Var::from_tensor(&arg.detach())?;
        let output = (self.segment)(input.as_tensor())?;
        let store = (output * grad.detach())?.sum_all()?.backward()?;
        self.recorder.record(&store)?;
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
    fn gradients_are_those_of_the_plain_network_bit_for_bit() {
        let x = sample_tensor(&[3, 4], 1).unwrap();
        let weights: Vec<Var> =
            (0..3).map(|i| Var::from_tensor(&sample_tensor(&[4, 4], 2 + i).unwrap()).unwrap()).collect();
        let tensors: Vec<Tensor> = weights.iter().map(|w| w.as_tensor().clone()).collect();
        let layer = |w: Tensor| move |x: &Tensor| activate(&linear(x, &w, None)?, Activation::Silu)? + x;
        let run = |recompute: bool| {
            let recorder = Recorder::new(tensors.clone());
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
            let grads = recorder.merge(&loss.backward().unwrap()).unwrap();
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
