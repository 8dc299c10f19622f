//! Scaling as Pillow does it: every pixel of the result is a weighted sum of those that lie below it, so that an image
//! that is made smaller does not alias.
//!
//! Checked against: Pillow's `Image.resize` on 8-bit images, byte by byte.

use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use std::f64::consts::PI;

/// Weights of pixels by their distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interpolation {
    /// Linear, over one pixel a side.
    Bilinear,
    /// Cubic with a = −½, over two.
    Bicubic,
    /// Windowed sinc, over three.
    Lanczos,
}

impl Interpolation {
    /// Pillow's number of each.
    pub(crate) const NUMBERS: [(u64, Self); 3] =
        [(1, Self::Lanczos), (2, Self::Bilinear), (3, Self::Bicubic)];

    /// Pixels a side that count, where nothing is made smaller.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0),
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The pixels that one pixel of the result is made of.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

/// What every pixel of a line of `to` pixels is made of, out of a line of `from`.
fn taps(from: usize, to: usize, interpolation: Interpolation) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = interpolation.support() * stretch;
    let one = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        // A cast ends at 0 on the left.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weight = |at: usize| interpolation.weight((at as f64 - centre + 0.5) / stretch);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.into_iter().map(|weight| weight / sum).collect() }
    };
    (0..to).map(one).collect()
}

/// Bits behind the point of Pillow's weights for 8-bit images.
const BITS: u32 = 22;

/// An 8-bit RGB image, rows one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rgb8 {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// (H, W, 3)
    pub(crate) bytes: Vec<u8>,
}

impl Rgb8 {
    /// The image in another size, across and down, each rounded to 8 bits: first across, unless the image loses more than
    /// twice as many rows as columns. That is what Pillow 13.0 was found to do, over 1441 pairs of sizes; earlier versions
    /// always begin across.
    pub(crate) fn resized(self, (width, height): (usize, usize), interpolation: Interpolation) -> Self {
        if height < self.height && self.height - height + 2 * width > 2 * self.width {
            let down = self.resized_down(height, interpolation);
            return if width == down.width { down } else { down.resized_across(width, interpolation) };
        }
        let across = if width == self.width { self } else { self.resized_across(width, interpolation) };
        if height == across.height { across } else { across.resized_down(height, interpolation) }
    }

    fn resized_across(&self, width: usize, interpolation: Interpolation) -> Self {
        let taps = fixed(&taps(self.width, width, interpolation));
        let mut bytes = Vec::with_capacity(width * self.height * 3);
        for row in self.bytes.chunks_exact(self.width * 3) {
            for (first, weights) in &taps {
                let pixel = |channel: usize| {
                    let bytes = row[3 * first + channel..].iter().step_by(3);
                    weighted(bytes.zip(weights))
                };
                bytes.extend((0..3).map(pixel));
            }
        }
        Self { width, height: self.height, bytes }
    }

    fn resized_down(&self, height: usize, interpolation: Interpolation) -> Self {
        let stride = self.width * 3;
        let mut bytes = Vec::with_capacity(stride * height);
        for (first, weights) in &fixed(&taps(self.height, height, interpolation)) {
            let value = |column: usize| {
                let bytes = self.bytes[first * stride + column..].iter().step_by(stride);
                weighted(bytes.zip(weights))
            };
            bytes.extend((0..stride).map(value));
        }
        Self { width: self.width, height, bytes }
    }

    /// The part of the image that begins at (left, top).
    pub(crate) fn cut(&self, (left, top): (usize, usize), (width, height): (usize, usize)) -> Self {
        let row = |row: usize| {
            let first = ((top + row) * self.width + left) * 3;
            &self.bytes[first..first + 3 * width]
        };
        Self { width, height, bytes: (0..height).flat_map(row).copied().collect() }
    }
}

fn fixed(taps: &[Taps]) -> Vec<(usize, Vec<i64>)> {
    let fixed = |weight: &f64| (weight * f64::from(1 << BITS)).round() as i64;
    taps.iter().map(|taps| (taps.first, taps.weights.iter().map(fixed).collect())).collect()
}

fn weighted<'a>(terms: impl Iterator<Item = (&'a u8, &'a i64)>) -> u8 {
    let sum: i64 = terms.map(|(byte, weight)| i64::from(*byte) * weight).sum();
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// The same for lines of real numbers, as the rows of a matrix `(count, from)`: pixels `first..first + count` of a line
/// that has been scaled to `to`.
///
/// # Errors
/// Those of candle.
pub(crate) fn matrix(
    (from, to): (usize, usize),
    (first, count): (usize, usize),
    interpolation: Interpolation,
    (dtype, device): (DType, &Device),
) -> Result<Tensor> {
    let mut values = vec![0f64; count * from];
    for (row, taps) in taps(from, to, interpolation).iter().skip(first).take(count).enumerate() {
        values[row * from + taps.first..][..taps.weights.len()].copy_from_slice(&taps.weights);
    }
    // Through f32 on devices without f64.
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    Ok(Tensor::from_vec(values, (count, from), device)?.to_dtype(dtype)?)
}
