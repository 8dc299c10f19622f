//! The building blocks of networks: a parameter or two, and the operation that uses them.

use crate::error::Result;
use crate::lora::LoraLayer;
use crate::params::{Init, Scope};
use candle_core::Tensor;
use votive_tensor as ops;
use votive_tensor::{Activation, Weight};

/// Modules that are tables of vectors, or read as one, though their weights have the shape of a linear map's.
pub(crate) const TABLES: [&str; 4] = ["embed_tokens", "lm_head", "position_embedding", "pos_embed"];

/// A linear map, with a low-rank adapter if the parameters have one for it.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    lora: Option<LoraLayer>,
}

impl Linear {
    /// `weight (outs, ins)` and, if asked for, `bias (outs,)` of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(scope: &Scope, ins: usize, outs: usize, bias: bool) -> Result<Self> {
        Self::with_init(scope, ins, outs, bias, Init::fan_in(ins))
    }

    /// The same, with another start for the weight.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn with_init(scope: &Scope, ins: usize, outs: usize, bias: bool, init: Init) -> Result<Self> {
        let weight = scope.linear(&[outs, ins], init)?;
        let bias = bias.then(|| scope.get("bias", &[outs], Init::Zero)).transpose()?;
        Ok(Self { weight, bias, lora: scope.lora() })
    }

    /// `x (…, ins)` → `(…, outs)`.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref();
        let Some(lora) = &self.lora else {
            return Ok(match &self.weight {
                Weight::Whole(weight) => ops::linear(x, weight, bias)?,
                Weight::Stored(weight) => ops::stored_linear(x, weight, bias)?,
            });
        };
        adapted_linear(x, &self.weight, bias, lora)
    }
}

/// `x (…, ins)` → `(…, outs)` through a weight `(outs, ins)` and its adapter, whose matrices may be kernels of one pixel.
///
/// # Errors
/// If the sizes don't fit.
pub(crate) fn adapted_linear(
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    lora: &LoraLayer,
) -> Result<Tensor> {
    let (a, b) = (lora.a.flatten_from(1)?, lora.b.flatten_from(1)?);
    let update = (&a, &b, lora.scale);
    let Some(stretch) = lora.stretch(weight)? else {
        return Ok(ops::low_rank_linear(x, weight, bias, update)?);
    };
    // DoRA stretches what the weight gives, and not the bias.
    let y = ops::low_rank_linear(x, weight, None, update)?.broadcast_mul(&stretch)?;
    match bias {
        None => Ok(y),
        Some(bias) => Ok(y.broadcast_add(bias)?),
    }
}

/// A convolution with bias, with a low-rank adapter if the parameters have one for it.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: usize,
    lora: Option<LoraLayer>,
}

impl Conv2d {
    /// `weight (outs, ins, kernel, kernel)` and `bias (outs,)` of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(
        scope: &Scope,
        ins: usize,
        outs: usize,
        kernel: usize,
        (stride, padding): (usize, usize),
    ) -> Result<Self> {
        let init = Init::fan_in(ins * kernel * kernel);
        let weight = scope.get("weight", &[outs, ins, kernel, kernel], init)?;
        let bias = scope.get("bias", &[outs], Init::Zero)?;
        Ok(Self { weight, bias, stride, padding, lora: scope.lora() })
    }

    /// `x (B, ins, H, W)` → `(B, outs, H', W')`.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias, steps) = (&self.weight, &self.bias, (self.stride, self.padding));
        let Some(lora) = &self.lora else {
            return Ok(ops::conv2d(x, weight, bias, self.stride, self.padding)?);
        };
        let update = (&lora.a, &lora.b, lora.scale);
        let Some(stretch) = lora.stretch(&Weight::Whole(weight.clone()))? else {
            return Ok(ops::low_rank_conv2d(x, (weight, bias), update, steps)?);
        };
        // DoRA stretches what the kernel gives, and not the bias.
        let y = ops::low_rank_conv2d(x, (weight, &bias.zeros_like()?), update, steps)?;
        let channels = (1, (), 1, 1);
        Ok(y.broadcast_mul(&stretch.reshape(channels)?)?.broadcast_add(&bias.reshape(channels)?)?)
    }

    /// The same, plus `shift (B, outs)` at every pixel: as part of the bias, where no adapter comes between, so that the sum is
    /// not kept beside what it is made of.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn forward_shifted(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        match self.lora {
            Some(_) => Ok(ops::add_to_channels(&self.forward(x)?, shift)?),
            None => {
                let bias = shift.broadcast_add(&self.bias)?;
                Ok(ops::conv2d(x, &self.weight, &bias, self.stride, self.padding)?)
            }
        }
    }
}

/// Root-mean-square normalisation of the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    /// The weight is kept as its distance from 1.
    is_around_one: bool,
    eps: f64,
}

impl RmsNorm {
    /// `weight (width,)` of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(scope: &Scope, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: scope.get("weight", &[width], Init::One)?, is_around_one: false, eps })
    }

    /// The same for checkpoints that hold `weight − 1` (Gemma).
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn around_one(scope: &Scope, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: scope.get("weight", &[width], Init::Zero)?, is_around_one: true, eps })
    }

    /// Size of what is normalised.
    pub(crate) fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// `x (…, width)` → the same shape.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // Added anew each time: training changes the weight in place.
        let weight = if self.is_around_one { &(&self.weight + 1.0)? } else { &self.weight };
        Ok(ops::rms_norm(x, weight, self.eps)?)
    }
}

/// Layer normalisation of the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// `weight` and `bias (width,)` of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(scope: &Scope, width: usize, eps: f64) -> Result<Self> {
        let weight = scope.get("weight", &[width], Init::One)?;
        Ok(Self { weight, bias: scope.get("bias", &[width], Init::Zero)?, eps })
    }

    /// `x (…, width)` → the same shape.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

/// Group normalisation of channels.
#[derive(Clone, Debug)]
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `weight` and `bias (channels,)` of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(scope: &Scope, channels: usize, groups: usize, eps: f64) -> Result<Self> {
        let weight = scope.get("weight", &[channels], Init::One)?;
        Ok(Self { weight, bias: scope.get("bias", &[channels], Init::Zero)?, groups, eps })
    }

    /// `x (B, channels, …)` → the same shape.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::group_norm(x, &self.weight, &self.bias, self.groups, self.eps)?)
    }

    /// The same with an activation behind it, of which nothing is kept for the backward.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let affine = (&self.weight, &self.bias);
        Ok(ops::group_norm_activated(x, affine, self.groups, self.eps, activation)?)
    }
}

/// A table of vectors.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// `weight (entries, width)` of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(scope: &Scope, entries: usize, width: usize, init: Init) -> Result<Self> {
        Ok(Self { weight: scope.get("weight", &[entries, width], init)? })
    }

    /// The table, `(entries, width)`.
    #[must_use]
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `ids (B, T)` u32 → `(B, T, width)`.
    ///
    /// # Errors
    /// If an id is not in the table.
    pub(crate) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (rows, positions) = ids.dims2()?;
        let flat = self.weight.index_select(&ids.flatten_all()?, 0)?;
        Ok(flat.reshape((rows, positions, self.weight.dim(1)?))?)
    }
}
