//! A convolution whose kernels are kept as tiles need them.

use super::winograd::{Kernels, POINTS};
use super::{Conv2d, Kernel, Real, View};
use crate::ops::kept::{Form, form_of};
use candle_core::{Result, Tensor};

/// [`Conv2d`] by a weight whose form is kept.
#[derive(Clone)]
pub(super) struct KeptConv2d {
    conv: Conv2d,
    form: Form,
}

impl KeptConv2d {
    /// The convolution by a weight, if its form is kept.
    pub(super) fn of(conv: &Conv2d, weight: &Tensor) -> Option<Self> {
        let (outs, channels, 3, 3) = weight.dims4().ok()? else { return None };
        let form = form_of(weight, POINTS * outs * channels * weight.dtype().size_in_bytes())?;
        Some(Self { conv: conv.clone(), form })
    }
}

impl Kernel for KeptConv2d {
    const NAME: &'static str = Conv2d::NAME;

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        self.conv.shape(dims)
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let g = self.conv.geometry(inputs[0].dims, inputs[1].dims);
        let kernels = || Kernels::new(inputs[1].data, g.outs, g.channels);
        match self.conv.tiling(&g).and_then(|tiling| Some((tiling, self.form.get(kernels)?))) {
            Some((tiling, kernels)) => {
                tiling.convolve(kernels, inputs[0].data, Some(inputs[2].data), output);
            }
            None => self.conv.forward(inputs, output),
        }
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        output: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        self.conv.backward(inputs, output, grad, wanted)
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.conv.composed(inputs)
    }
}
