//! Weights as products read them, kept while a network that nobody trains runs again and again.
//!
//! Every call of a convolution in tiles transforms its kernels, and every linear map of a few hundred rows turns its weight round. With few pixels that is
//! a good part of the work, and the same at every step of a sampler.

use crate::scope;
use candle_core::{Tensor, TensorId};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes of kept weights; what is more is made anew in every call, as without keeping.
const MOST: usize = 512 << 20;

/// A weight in another form, once a call has made it.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(Arc<OnceLock<Box<dyn Any + Send + Sync>>>);

impl Form {
    /// The form, which `make` makes if this is the first call; none if it is kept in another number type.
    pub(super) fn get<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        if self.0.get().is_none() {
            // Two threads may both make it: one that waited here for the other could be what the other waits for.
            let _ = self.0.set(Box::new(make()));
        }
        self.0.get()?.downcast_ref()
    }
}

/// The weights that were seen, those that came again with their forms.
#[derive(Debug, Default)]
struct Kept {
    forms: HashMap<TensorId, Option<Form>>,
    bytes: usize,
}

thread_local! {
    static KEPT: RefCell<KeptWeights> = const { RefCell::new(KeptWeights(None)) };
}

/// The weights that are kept where a thread is now, to be kept where other threads do parts of its work; maybe none.
#[derive(Clone, Debug)]
pub struct KeptWeights(Option<Arc<Mutex<Kept>>>);

impl KeptWeights {
    /// Those of this thread.
    #[must_use]
    pub fn here() -> Self {
        KEPT.with_borrow(Clone::clone)
    }

    /// Runs a part of the work for which they are kept.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        scope::within(&KEPT, self.clone(), work)
    }
}

/// Runs `work`, in which no weight changes. From its second use on, a weight that is not trained is kept in the form in which products read it, up to
/// half a gigabyte of them, until `work` is done. The results are the same to the last bit.
pub fn keeping_weights<T>(work: impl FnOnce() -> T) -> T {
    KeptWeights(Some(Arc::default())).within(work)
}

/// Where the form of a weight is kept, which takes so many bytes; none if nothing is kept, or not yet.
pub(super) fn form_of(weight: &Tensor, bytes: usize) -> Option<Form> {
    KEPT.with_borrow(|kept| {
        let kept = kept.0.as_ref().filter(|_| weight.device().is_cpu() && !weight.track_op())?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A weight that is made for one call does not come again.
        let Kept { forms, bytes: taken } = &mut *kept;
        let Some(form) = forms.get_mut(&weight.id()) else {
            forms.insert(weight.id(), None);
            return None;
        };
        if form.is_none() && *taken + bytes <= MOST {
            *taken += bytes;
            *form = Some(Form::default());
        }
        form.clone()
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::sample_tensor;
    use crate::ops::{conv2d, linear};
    use candle_core::{DType, Var};

    fn tensor(shape: &[usize], salt: u64, dtype: DType) -> Tensor {
        sample_tensor(shape, salt).unwrap().to_dtype(dtype).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn kept_weights_give_the_same_numbers() {
        for dtype in [DType::F32, DType::F64] {
            let kernels = [1, 2].map(|salt| tensor(&[18, 16, 3, 3], salt, dtype));
            let maps = [3, 4].map(|salt| tensor(&[32, 48], salt, dtype));
            let bias = [18, 32].map(|outs| tensor(&[outs], 5, dtype));
            let run = |salt: u64| -> Vec<f64> {
                let (image, rows) = (tensor(&[2, 16, 8, 9], salt, dtype), tensor(&[300, 48], salt, dtype));
                let images = kernels.iter().map(|weight| conv2d(&image, weight, &bias[0], 1, 1).unwrap());
                let rows = maps.iter().map(|weight| linear(&rows, weight, Some(&bias[1])).unwrap());
                images.chain(rows).flat_map(|result| numbers(&result)).collect()
            };
            let plain: Vec<Vec<f64>> = (0..3).map(run).collect();
            let kept: Vec<Vec<f64>> = keeping_weights(|| (0..3).map(run).collect());
            assert_eq!(plain, kept);
        }
    }

    #[test]
    fn what_is_trained_or_too_large_or_new_is_not_kept() {
        let weight = tensor(&[2, 2], 1, DType::F32);
        let trained = Var::from_tensor(&weight).unwrap();
        let found = |weight: &Tensor, bytes| form_of(weight, bytes).is_some();
        assert!(!found(&weight, 1) && !found(&weight, 1));
        keeping_weights(|| {
            assert_eq!([1, 1, 1].map(|bytes| found(&weight, bytes)), [false, true, true]);
            assert_eq!([1, 1].map(|bytes| found(&trained, bytes)), [false; 2]);
            let large = weight.copy().unwrap();
            assert_eq!([MOST, MOST].map(|bytes| found(&large, bytes)), [false; 2]);
            keeping_weights(|| assert!(!found(&weight, 1)));
            let here = KeptWeights::here();
            let elsewhere = || here.within(|| found(&weight, 1));
            assert!(std::thread::scope(|scope| scope.spawn(elsewhere).join().unwrap()));
            assert!(found(&weight, 1));
        });
        assert!(!found(&weight, 1));
    }

    #[test]
    fn gradients_pass_through_kept_weights() {
        let (weight, bias) = (tensor(&[16, 16, 3, 3], 1, DType::F32), tensor(&[16], 2, DType::F32));
        let image = Var::from_tensor(&tensor(&[1, 16, 8, 8], 3, DType::F32)).unwrap();
        let gradient = || {
            let loss = conv2d(&image, &weight, &bias, 1, 1).unwrap().sqr().unwrap().sum_all().unwrap();
            numbers(loss.backward().unwrap().get(&image).unwrap())
        };
        let plain = gradient();
        keeping_weights(|| (0..3).for_each(|_| assert_eq!(gradient(), plain)));
    }
}
