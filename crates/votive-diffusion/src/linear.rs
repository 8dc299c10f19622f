//! Weighted sums of tensors, with one weight for all rows or one per row. All of diffusion's algebra is this.

use candle_core::Tensor;

use crate::error::{DiffusionError, Result};

/// `Σ weight · tensor`; a term of weight 0 is not computed, so it cannot bring in a NaN.
pub(crate) fn weighted_sum(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (weight, tensor) in terms.iter().filter(|(weight, _)| *weight != 0.0) {
        let term = if *weight == 1.0 { (*tensor).clone() } else { tensor.affine(*weight, 0.0)? };
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    match (sum, terms.first()) {
        (Some(sum), _) => Ok(sum),
        (None, Some((_, tensor))) => Ok(tensor.zeros_like()?),
        (None, None) => Err(DiffusionError::shape("terms of a weighted sum", 1, 0)),
    }
}

/// `left_weight[b] · left[b] + right_weight[b] · right[b]` for each row b.
///
/// # Shapes
/// `left` and `right` `(B, …)` alike, the weights of length B → `(B, …)`
pub(crate) fn weighted_rows(weights: &[(f64, f64)], left: &Tensor, right: &Tensor) -> Result<Tensor> {
    same_dims("latents and their counterpart", left, right)?;
    let Some(&rows) = left.dims().first().filter(|rows| **rows == weights.len()) else {
        return Err(DiffusionError::shape(
            "timesteps, one per row of the latents",
            left.dims(),
            weights.len(),
        ));
    };
    let column = |values: Vec<f64>| -> Result<Tensor> {
        let mut dims = vec![1; left.rank()];
        dims[0] = rows;
        Ok(Tensor::from_vec(values, dims, &candle_core::Device::Cpu)?
            .to_dtype(left.dtype())?
            .to_device(left.device())?)
    };
    let left_weights = column(weights.iter().map(|w| w.0).collect())?;
    let right_weights = column(weights.iter().map(|w| w.1).collect())?;
    Ok((left.broadcast_mul(&left_weights)? + right.broadcast_mul(&right_weights)?)?)
}

/// Refuses two tensors of unlike shape before candle's broadcasting can hide it.
pub(crate) fn same_dims(what: &'static str, expected: &Tensor, found: &Tensor) -> Result<()> {
    if expected.dims() == found.dims() {
        return Ok(());
    }
    Err(DiffusionError::shape(what, expected.dims(), found.dims()))
}
