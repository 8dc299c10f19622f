//! Where the gradients of parameters come together.
//!
//! candle's backward gives every gradient to a store, where it is added to zeros, and which lives as long as all that the graph holds; a sum
//! over micro-batches then is a second set of gradients. Of parameters that a recorder knows, the operations of this crate hand theirs
//! over at once, and there is one sum of each.

use crate::{scope, vector};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, TensorId};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The sums of the gradients of some parameters, over as many backwards as it is used for. Clones share them.
#[derive(Clone, Debug)]
pub struct Recorder {
    places: Arc<HashMap<TensorId, usize>>,
    /// In the order of the parameters.
    sums: Arc<Mutex<Vec<Option<Tensor>>>>,
}

thread_local! {
    /// Whose backward this thread is in.
    static CURRENT: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

impl Recorder {
    /// A recorder for the given trainable tensors.
    #[must_use]
    pub fn new(trainable: &[Tensor]) -> Self {
        let places = trainable.iter().enumerate().map(|(place, tensor)| (tensor.id(), place));
        let sums = vec![None; trainable.len()];
        Self { places: Arc::new(places.collect()), sums: Arc::new(Mutex::new(sums)) }
    }

    /// Runs the backward of `loss` and adds the gradients of the parameters to these.
    ///
    /// # Errors
    /// Those of candle.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        self.differentiate(loss).map(|_| ())
    }

    /// The sums, in the order of the parameters, none where no gradient came; the recorder is empty after it.
    #[must_use]
    pub fn take(&self) -> Vec<Option<Tensor>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().map(Option::take).collect()
    }

    /// As [`Recorder::backward`]; gives the gradients of all that the recorder does not know.
    pub(crate) fn differentiate(&self, loss: &Tensor) -> Result<GradStore> {
        let store = during(Some(self.clone()), || loss.backward())?;
        self.record(&store)?;
        Ok(store)
    }

    /// Adds the gradients of parameters that candle's own operations, or none of this recorder's backwards, left in a store.
    pub(crate) fn record(&self, store: &GradStore) -> Result<()> {
        self.places.iter().try_for_each(|(id, place)| match store.get_id(*id) {
            Some(gradient) => self.add(*place, gradient.detach()),
            None => Ok(()),
        })
    }

    fn add(&self, place: usize, mut gradient: Tensor) -> Result<()> {
        loop {
            let sum = {
                let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
                match sums[place].take() {
                    Some(sum) => sum,
                    None => {
                        sums[place] = Some(gradient);
                        return Ok(());
                    }
                }
            };
            // Without the lock: numbers are added on all threads, and one that waits for others may come here with other work. If
            // another gradient came meanwhile, this sum is added to it.
            gradient = if is_plain(&sum) && is_plain(&gradient) {
                sum.inplace_op2(&gradient, &Add)?;
                sum
            } else {
                (sum + gradient)?.detach()
            };
        }
    }
}

/// Runs `work` as part of a recorder's backward, or of none.
pub(crate) fn during<T>(recorder: Option<Recorder>, work: impl FnOnce() -> T) -> T {
    scope::within(&CURRENT, recorder, work)
}

/// Hands the gradient of an argument over to the recorder whose backward this is in; gives it back if it is not of a parameter that it knows.
pub(crate) fn hand_over(argument: &Tensor, gradient: Tensor) -> Result<Option<Tensor>> {
    let known = CURRENT.with_borrow(|current| {
        let recorder = current.as_ref()?;
        recorder.places.get(&argument.id()).map(|place| (recorder.clone(), *place))
    });
    match known {
        Some((recorder, place)) => recorder.add(place, gradient).map(|()| None),
        None => Ok(Some(gradient)),
    }
}

/// Whether numbers can be added where they are.
fn is_plain(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous()
}

/// Adds to what is there.
struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "sum of gradients"
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, to: &Layout, new: &CpuStorage, from: &Layout) -> Result<()> {
        /// Numbers that a thread adds at a time.
        const CHUNK: usize = 1 << 14;
        let (CpuStorage::F32(sum), CpuStorage::F32(new)) = (sum, new) else {
            candle_core::bail!("{}: f32 alone", self.name());
        };
        let (Some((to, to_end)), Some((from, from_end))) =
            (to.contiguous_offsets(), from.contiguous_offsets())
        else {
            candle_core::bail!("{}: contiguous alone", self.name());
        };
        let pairs = sum[to..to_end].par_chunks_mut(CHUNK).zip(new[from..from_end].par_chunks(CHUNK));
        pairs.for_each(|(sum, new)| vector::update(sum, new, |sum, new| sum + new));
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::sample_tensor;
    use crate::ops::linear;
    use candle_core::{Device, Var};

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn sums_over_backwards_are_those_of_the_store() {
        let var = |shape: &[usize], salt| {
            Var::from_tensor(&sample_tensor(shape, salt).unwrap().to_dtype(DType::F32).unwrap()).unwrap()
        };
        let (weight, bias, scale, idle) = (var(&[4, 3], 1), var(&[4], 2), var(&[4], 3), var(&[2], 4));
        // The scale goes through candle alone, and the weight through an operation of this crate twice.
        let loss = |x: &Tensor| {
            let y = linear(x, &weight, Some(&bias)).unwrap();
            let again = linear(&y.narrow(1, 0, 3).unwrap(), &weight, None).unwrap();
            (y.broadcast_mul(&scale).unwrap() + again).unwrap().sqr().unwrap().sum_all().unwrap()
        };
        let trainable = [&weight, &bias, &scale, &idle].map(|var| var.as_tensor().clone());
        let batches = [5, 6].map(|salt| sample_tensor(&[2, 3], salt).unwrap().to_dtype(DType::F32).unwrap());
        let recorder = Recorder::new(&trainable);
        let mut expected: Vec<Vec<f32>> = trainable.iter().map(|t| vec![0.0; t.elem_count()]).collect();
        for x in &batches {
            recorder.backward(&loss(x)).unwrap();
            let store = loss(x).backward().unwrap();
            for (expected, tensor) in expected.iter_mut().zip(&trainable[..3]) {
                let gradient = numbers(store.get(tensor).unwrap());
                expected.iter_mut().zip(gradient).for_each(|(sum, new)| *sum += new);
            }
        }
        let found = recorder.take();
        assert!(found[3].is_none());
        for (found, expected) in found.iter().flatten().zip(&expected) {
            for (found, expected) in numbers(found).iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
            }
        }
        assert!(recorder.take().iter().all(Option::is_none));
        // Outside of a recorder's backward nothing is taken away.
        assert!(loss(&batches[0]).backward().unwrap().get(&weight).is_some());
    }

    #[test]
    fn another_backward_inside_of_one_is_its_own() {
        let var = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        let [outer, inner] = [(); 2].map(|()| Recorder::new(&[var.as_tensor().clone()]));
        let give = || hand_over(&var, Tensor::new(&[3f32, 4.0], &Device::Cpu).unwrap()).unwrap();
        during(Some(outer.clone()), || {
            during(Some(inner.clone()), || assert!(give().is_none()));
            during(None, || assert!(give().is_some()));
            assert!(give().is_none());
            assert!(give().is_none());
        });
        let sums = [&outer, &inner].map(|recorder| numbers(recorder.take()[0].as_ref().unwrap()));
        assert_eq!(sums, [[6.0, 8.0], [3.0, 4.0]]);
    }
}
