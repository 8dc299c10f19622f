//! The gated MLP of nearly every decoder.

use super::block::Mlp;
use super::sizes::Sizes;
use crate::error::Result;
use crate::nn::Linear;
use crate::params::Scope;
use candle_core::Tensor;
use votive_tensor as ops;
use votive_tensor::Activation;

/// `down(activation(gate(x)) · up(x))`; SwiGLU with SiLU, GEGLU with GELU: Shazeer, arXiv:2002.05202.
#[derive(Debug)]
pub(crate) struct GatedMlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// The MLP of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(sizes: &Sizes, scope: &Scope, bias: bool, activation: Activation) -> Result<Self> {
        let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
        let into = |name: &str| Linear::with_init(&scope.sub(name), width, inner, bias, sizes.init());
        let down = scope.sub("down_proj");
        Ok(Self {
            gate_proj: into("gate_proj")?,
            up_proj: into("up_proj")?,
            down_proj: Linear::with_init(&down, inner, width, bias, sizes.residual_init())?,
            activation,
        })
    }
}

impl Mlp for GatedMlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = (self.gate_proj.forward(x)?, self.up_proj.forward(x)?);
        self.down_proj.forward(&ops::gated(&gate, &up, self.activation)?)
    }
}
