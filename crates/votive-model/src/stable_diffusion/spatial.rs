//! Between images and sequences: attention sees the pixels of an image as a sequence of channel vectors.

use crate::error::Result;
use candle_core::Tensor;

/// `x (B, C, H, W)` → `(B, H·W, C)`.
pub(super) fn to_sequence(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(2)?.transpose(1, 2)?.contiguous()?)
}

/// `x (B, H·W, C)` → `(B, C, H, W)`.
pub(super) fn to_image(x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (batch, _, channels) = x.dims3()?;
    Ok(x.transpose(1, 2)?.contiguous()?.reshape((batch, channels, height, width))?)
}
