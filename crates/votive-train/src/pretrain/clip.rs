//! A CLIP model from nothing: each image is to be told from the other texts of its batch, and each text from the other images.
//!
//! Source: Radford et al., "Learning transferable visual models from natural language supervision", arXiv:2103.00020, Fig. 3, with its
//! trained temperature, `exp(logit_scale)` at most 100. Departure: texts that are equal to an image's own are not held against it.

use super::Examples;
use crate::error::Result;
use candle_core::{D, Device, Tensor};
use std::ops::Range;
use votive_data::ClipTokenizer;
use votive_model::clip::ClipModel;

/// The logarithm of the paper's bound on the temperature's inverse, 100.
const MOST_LOGIT_SCALE: f64 = 4.605_170_185_988_092;
/// Added to the logits of pairs that are left out.
const LEFT_OUT: f32 = -1e9;

/// The loss of both towers.
pub struct ClipPretraining<'a> {
    /// The model that is trained.
    pub model: &'a ClipModel,
    /// Its tokenizer.
    pub tokenizer: &'a ClipTokenizer,
    /// Captioned images by index, as the image encoder reads them.
    pub examples: &'a Examples<Vec<f32>>,
}

impl ClipPretraining<'_> {
    /// Mean of both cross entropies, nats, on a batch of examples.
    ///
    /// # Errors
    /// Those of the networks.
    pub fn loss(&self, examples: Range<u64>) -> Result<Tensor> {
        let side = self.model.vision_config().image_size;
        let (mut ids, mut pixels, mut captions) = (Vec::new(), Vec::new(), Vec::new());
        for index in examples {
            let (caption, image) = (self.examples)(index);
            ids.extend(self.tokenizer.encode(&caption)?.ids);
            pixels.extend(image);
            captions.push(caption);
        }
        let n = captions.len();
        let ids = Tensor::from_vec(ids, (n, self.tokenizer.positions()), &Device::Cpu)?;
        let pixels = Tensor::from_vec(pixels, (n, 3, side, side), &Device::Cpu)?;
        let (images, texts) = (self.model.image_embeds(&pixels)?, self.model.text_embeds(&ids)?);
        Ok(contrast(&images, &texts, self.model.logit_scale(), &captions)?)
    }
}

/// The loss of images and texts in one space; rows with equal `captions` are not held against each other.
///
/// # Shapes
/// `images (B, D)`, `texts (B, D)`, `logit_scale ()` → `()`
fn contrast(
    images: &Tensor,
    texts: &Tensor,
    logit_scale: &Tensor,
    captions: &[String],
) -> candle_core::Result<Tensor> {
    let unit = |x: &Tensor| x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?);
    let n = captions.len();
    let scale = logit_scale.minimum(MOST_LOGIT_SCALE)?.exp()?;
    let logits = unit(images)?.matmul(&unit(texts)?.t()?)?.broadcast_mul(&scale)?;
    let is_left_out = |i: usize, j: usize| i != j && captions[i] == captions[j];
    let mask = (0..n * n).map(|at| if is_left_out(at / n, at % n) { LEFT_OUT } else { 0.0 });
    let mask = Tensor::from_vec(mask.collect::<Vec<f32>>(), (n, n), &Device::Cpu)?;
    let logits = (logits + mask.to_dtype(images.dtype())?)?;
    let own = Tensor::eye(n, images.dtype(), &Device::Cpu)?;
    let entropy = |logits: &Tensor| -> candle_core::Result<Tensor> {
        let chosen = (log_softmax(logits)? * &own)?;
        chosen.sum_all()?.affine(-1.0 / n as f64, 0.0)
    };
    (entropy(&logits)? + entropy(&logits.t()?.contiguous()?)?)?.affine(0.5, 0.0)
}

/// Over the last dimension.
fn log_softmax(logits: &Tensor) -> candle_core::Result<Tensor> {
    let most = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&most)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::Var;

    fn names(captions: &[&str]) -> Vec<String> {
        captions.iter().map(|caption| (*caption).to_owned()).collect()
    }

    #[test]
    fn the_loss_of_two_pairs_is_that_by_hand() {
        let images = Tensor::new(&[[2f64, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let texts = Tensor::new(&[[3f64, 0.0], [1.0, 1.0]], &Device::Cpu).unwrap();
        let scale = Tensor::new(2f64.ln(), &Device::Cpu).unwrap();
        let of = |captions: &[&str]| {
            contrast(&images, &texts, &scale, &names(captions)).unwrap().to_scalar::<f64>().unwrap()
        };
        // Cosines [[1, s], [0, s]] with s = 1/√2, times 2.
        let s = 2.0 * 0.5f64.sqrt();
        let other = |own: f64, other: f64| (1.0 + (other - own).exp()).ln();
        let rows = other(2.0, s) + other(s, 0.0);
        let columns = other(2.0, 0.0) + other(s, s);
        assert!((of(&["a", "b"]) - (rows + columns) / 4.0).abs() < 1e-12);
        // Equal captions are not held against each other, so that nothing is left to be told apart.
        assert!(of(&["a", "a"]).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let numbers = |seed: u64| -> Vec<f64> { (0..12).map(|i| ((i * 7 + seed) as f64).sin()).collect() };
        let images = Var::from_vec(numbers(1), (3, 4), &Device::Cpu).unwrap();
        let texts = Tensor::from_vec(numbers(5), (3, 4), &Device::Cpu).unwrap();
        let scale = Var::new(1.2f64, &Device::Cpu).unwrap();
        let captions = names(&["a", "b", "a"]);
        let loss = |images: &Tensor, scale: &Tensor| contrast(images, &texts, scale, &captions).unwrap();
        let gradients = loss(&images, &scale).backward().unwrap();
        let of_images = gradients.get(&images).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let value = |numbers: Vec<f64>, scale: f64| {
            let images = Tensor::from_vec(numbers, (3, 4), &Device::Cpu).unwrap();
            let scale = Tensor::new(scale, &Device::Cpu).unwrap();
            loss(&images, &scale).to_scalar::<f64>().unwrap()
        };
        let step = 1e-6;
        for (i, gradient) in of_images.iter().enumerate() {
            let moved = |by: f64| {
                let mut numbers = numbers(1);
                numbers[i] += by;
                value(numbers, 1.2)
            };
            assert!(((moved(step) - moved(-step)) / (2.0 * step) - gradient).abs() < 1e-8, "{i}");
        }
        let of_scale = gradients.get(&scale).unwrap().to_scalar::<f64>().unwrap();
        let moved = (value(numbers(1), 1.2 + step) - value(numbers(1), 1.2 - step)) / (2.0 * step);
        assert!((moved - of_scale).abs() < 1e-8);
    }
}
