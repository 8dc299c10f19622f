//! `max(0, x)` with the gradient of a hinge that is just closed.

use crate::error::Result;
use candle_core::Tensor;

/// `max(0, x)`, whose slope at 0 is 0 as in PyTorch; candle's `relu` has 1 there, where many a run starts.
pub(crate) fn positive_part(x: &Tensor) -> Result<Tensor> {
    let is_positive = x.gt(0.0)?.to_dtype(x.dtype())?;
    Ok((x * is_positive)?)
}
