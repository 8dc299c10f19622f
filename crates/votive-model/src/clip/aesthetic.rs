//! LAION's aesthetic predictor: how pleasing an image is, by its embedding alone.
//!
//! Source: Schuhmann, improved-aesthetic-predictor, `sac+logos+ava1-l14-linearMSE`: five affine maps with dropout and no
//! activation between them, on the normalised embedding of CLIP ViT-L/14, trained to tell people's ratings from 1 to 10.
//!
//! Departure: maps without an activation between them are one, and that one is what is kept.

use crate::error::{ModelError, Result};
use crate::files;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// Places of the affine maps among the layers; dropout has the others. A head with activations has other places.
const PLACES: [usize; 5] = [0, 2, 4, 6, 7];

/// An affine map of a normalised embedding to a number.
#[derive(Clone, Debug)]
pub struct AestheticHead {
    /// `(1, D)`
    weight: Tensor,
    bias: f64,
}

impl AestheticHead {
    /// The name of its file beside the CLIP model that it stands on.
    pub const FILE: &str = "aesthetic.safetensors";

    /// Reads `layers.{0,2,4,6,7}.{weight,bias}` of a file.
    ///
    /// # Errors
    /// If the file is missing or malformed, has other tensors, or its maps do not follow each other to one number.
    pub fn read(path: &Path, device: &Device) -> Result<Self> {
        let mut tensors = files::read(path, &Device::Cpu)?.tensors;
        let mut problems = String::new();
        let mut taken = |name: String| {
            let found = tensors.remove(&name);
            if found.is_none() {
                problems += &format!("  missing {name}\n");
            }
            found
        };
        let maps = PLACES.map(|place| {
            (place, taken(format!("layers.{place}.weight")), taken(format!("layers.{place}.bias")))
        });
        for name in tensors.keys() {
            problems += &format!("  unexpected {name}\n");
        }
        let mismatch =
            |problems: String| ModelError::Mismatch { origin: path.display().to_string(), problems };
        if !problems.is_empty() {
            return Err(mismatch(format!("{problems}  a head without activations has maps at {PLACES:?}")));
        }
        // From the last map to the first: the rows that are left multiply what comes before.
        let mut whole: Option<(Tensor, Tensor)> = None;
        for (place, weight, bias) in maps.into_iter().rev() {
            let (Some(weight), Some(bias)) = (weight, bias) else { continue };
            let (weight, bias) = (weight.to_dtype(DType::F64)?, bias.to_dtype(DType::F64)?);
            let outs = whole.as_ref().map_or(Ok(1), |(rows, _)| rows.dim(1))?;
            if weight.rank() != 2 || weight.dim(0)? != outs || bias.dims() != [outs] {
                let (weight, bias) = (weight.dims(), bias.dims());
                return Err(mismatch(format!(
                    "  layers.{place}: weight {weight:?} and bias {bias:?}, expected {outs} rows"
                )));
            }
            let bias = bias.unsqueeze(1)?;
            whole = Some(match whole {
                None => (weight, bias),
                Some((rows, sum)) => (rows.matmul(&weight)?, (rows.matmul(&bias)? + sum)?),
            });
        }
        let (rows, sum) = whole.ok_or_else(|| mismatch("  no maps".to_owned()))?;
        Ok(Self {
            weight: rows.to_dtype(DType::F32)?.to_device(device)?,
            bias: sum.flatten_all()?.to_vec1::<f64>()?.iter().sum(),
        })
    }

    /// Width of the embeddings that it reads.
    #[must_use]
    pub fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// Points of 10 for each embedding, with a gradient by it.
    ///
    /// # Shapes
    /// `embeds (B, D)`, of any length → `(B,)`
    /// # Errors
    /// If the width is another one.
    pub fn points(&self, embeds: &Tensor) -> Result<Tensor> {
        let length = embeds.sqr()?.sum_keepdim(1)?.sqrt()?;
        let unit = embeds.broadcast_div(&length)?;
        Ok((unit.broadcast_mul(&self.weight.to_dtype(embeds.dtype())?)?.sum(1)? + self.bias)?)
    }
}
