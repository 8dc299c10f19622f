//! Soft capping: numbers squeezed into ±cap without a corner.
//!
//! Source: Gemma Team, arXiv:2408.00118, Sec. 2, after Bello et al., arXiv:1611.09940.

use crate::kernel::Real;
use candle_core::{Result, Tensor};

/// `cap · tanh(x / cap)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Softcap(pub(super) f64);

impl Softcap {
    /// Caps numbers in place.
    pub(super) fn apply<R: Real>(self, values: &mut [R]) {
        let (cap, inverse) = (R::of(self.0), R::of(self.0.recip()));
        values.iter_mut().for_each(|x| *x = cap * (*x * inverse).fast_tanh());
    }

    /// The derivative where the result is `capped`.
    pub(super) fn slope<R: Real>(self, capped: R) -> R {
        let t = capped * R::of(self.0.recip());
        R::one() - t * t
    }

    /// The same, composed of candle ops.
    pub(super) fn composed(self, x: &Tensor) -> Result<Tensor> {
        (x / self.0)?.tanh()? * self.0
    }
}
