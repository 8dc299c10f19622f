//! Between images and sequences: attention sees the pixels of an image as a sequence of channel vectors.

use crate::error::Result;
use candle_core::Tensor;
use votive_tensor::transpose;

/// `x (B, C, H, W)` → `(B, H·W, C)`.
pub(super) fn to_sequence(x: &Tensor) -> Result<Tensor> {
    Ok(transpose(&x.flatten_from(2)?)?)
}

/// `x (B, H·W, C)` → `(B, C, H, W)`.
pub(super) fn to_image(x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (batch, _, channels) = x.dims3()?;
    Ok(transpose(x)?.reshape((batch, channels, height, width))?)
}
