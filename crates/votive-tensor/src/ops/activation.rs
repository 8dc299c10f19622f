//! Elementwise activations, alone and as the gate of a product (SwiGLU, GEGLU).

use crate::kernel::{Kernel, Real, View, apply};
use crate::vector;
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// An activation function by its exact formula; `gelu` variants differ and are not interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x·σ(x)`, also called swish.
    Silu,
    /// `x·Φ(x)` with the error function: torch's default `gelu`.
    GeluErf,
    /// The tanh approximation of GELU: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// `x·σ(1.702 x)`, the activation of OpenAI's CLIP.
    QuickGelu,
}

impl Activation {
    /// Calls `job` with the function `x ↦ (value, derivative)` of this activation.
    ///
    /// The choice is made once for a whole slice, so that the loop over it has no branch and can use vector
    /// instructions.
    fn with<R: Real, T>(self, job: impl Loop<R, T>) -> T {
        let (one, half) = (R::one(), R::of(0.5));
        let sigmoid = move |x: R| one / (one + (-x).fast_exp());
        match self {
            Self::Silu => job.run(move |x: R| {
                let s = sigmoid(x);
                (x * s, s * (one + x * (one - s)))
            }),
            Self::QuickGelu => {
                let k = R::of(1.702);
                job.run(move |x: R| {
                    let s = sigmoid(k * x);
                    (x * s, s * (one + k * x * (one - s)))
                })
            }
            Self::GeluErf => {
                let (root, norm) = (R::of(std::f64::consts::FRAC_1_SQRT_2), R::of(0.398_942_280_401_432_7));
                job.run(move |x: R| {
                    let cdf = half * (one + (x * root).erf());
                    (x * cdf, cdf + x * norm * (-half * x * x).fast_exp())
                })
            }
            Self::GeluTanh => {
                let (a, b, three) = (R::of(0.797_884_560_802_865_4), R::of(0.044_715), R::of(3.0));
                job.run(move |x: R| {
                    let t = (a * (x + b * x * x * x)).tanh();
                    let slope = a * (one + three * b * x * x);
                    (half * x * (one + t), half * (one + t) + half * x * (one - t * t) * slope)
                })
            }
        }
    }

    fn composed(self, x: &Tensor) -> Result<Tensor> {
        let sigmoid = |x: &Tensor| -> Result<Tensor> { (x.neg()?.exp()? + 1.0)?.recip() };
        match self {
            Self::Silu => x.mul(&sigmoid(x)?),
            Self::QuickGelu => x.mul(&sigmoid(&(x * 1.702)?)?),
            Self::GeluErf => x.mul(&(((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?),
            Self::GeluTanh => {
                let inner = ((x + (x.mul(x)?.mul(x)? * 0.044_715)?)? * 0.797_884_560_802_865_4)?;
                x.mul(&((inner.tanh()? + 1.0)? * 0.5)?)
            }
        }
    }
}

/// A loop over slices that calls a function from `x` to value and derivative.
trait Loop<R, T> {
    fn run(self, function: impl Fn(R) -> (R, R) + Send + Sync) -> T;
}

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 14;

#[derive(Clone)]
struct Activate(Activation);

/// Applies an activation to every element.
///
/// # Shapes
/// `x` any shape → the same shape.
/// # Errors
/// Those of candle.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    apply(Activate(activation), &[x])
}

impl Kernel for Activate {
    const NAME: &'static str = "activation";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(dims[0].to_vec())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        struct Values<'a, R>(&'a [R], &'a mut [R]);
        impl<R: Real> Loop<R, ()> for Values<'_, R> {
            fn run(self, function: impl Fn(R) -> (R, R) + Send + Sync) {
                self.1.par_chunks_mut(CHUNK).zip(self.0.par_chunks(CHUNK)).for_each(|(out, x)| {
                    vector::map(out, x, |x| function(x).0);
                });
            }
        }
        self.0.with(Values(inputs[0].data, output));
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        struct Slopes<'a, R>(&'a [R], &'a [R]);
        impl<R: Real> Loop<R, Vec<R>> for Slopes<'_, R> {
            fn run(self, function: impl Fn(R) -> (R, R) + Send + Sync) -> Vec<R> {
                let mut dx = vec![R::zero(); self.0.len()];
                dx.par_chunks_mut(CHUNK)
                    .zip(self.0.par_chunks(CHUNK))
                    .zip(self.1.par_chunks(CHUNK))
                    .for_each(|((dx, x), g)| vector::zip_map(dx, [x, g], |x, g| g * function(x).1));
                dx
            }
        }
        vec![Some(self.0.with(Slopes(inputs[0].data, grad)))]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.0.composed(inputs[0])
    }
}

/// Finishes the gradients of a gate, whose factor is there already, and of what it gates.
struct GateSlopes<'a, R, F> {
    gate: &'a [R],
    grad: &'a [R],
    d_gate: &'a mut [R],
    d_value: &'a mut [R],
    function: &'a F,
}

impl<R: Real, F: Fn(R) -> (R, R)> vector::Loop for GateSlopes<'_, R, F> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let outputs = self.d_gate.iter_mut().zip(self.d_value);
        for ((d_gate, d_value), (gate, g)) in outputs.zip(self.gate.iter().zip(self.grad)) {
            let (y, slope) = (self.function)(*gate);
            *d_gate *= slope;
            *d_value = *g * y;
        }
    }
}

#[derive(Clone)]
struct Gated(Activation);

/// `activation(gate) · value`, elementwise.
///
/// # Shapes
/// `gate` and `value` of one shape → that shape.
/// # Errors
/// If the shapes differ.
pub fn gated(gate: &Tensor, value: &Tensor, activation: Activation) -> Result<Tensor> {
    apply(Gated(activation), &[gate, value])
}

impl Kernel for Gated {
    const NAME: &'static str = "gated activation";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        if dims[0] != dims[1] {
            candle_core::bail!("gated activation: gate {:?} and value {:?} differ", dims[0], dims[1]);
        }
        Ok(dims[0].to_vec())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        struct Products<'a, R>(&'a [R], &'a [R], &'a mut [R]);
        impl<R: Real> Loop<R, ()> for Products<'_, R> {
            fn run(self, function: impl Fn(R) -> (R, R) + Send + Sync) {
                let arguments = self.0.par_chunks(CHUNK).zip(self.1.par_chunks(CHUNK));
                self.2.par_chunks_mut(CHUNK).zip(arguments).for_each(|(out, (gate, value))| {
                    vector::zip_map(out, [gate, value], |gate, value| function(gate).0 * value);
                });
            }
        }
        self.0.with(Products(inputs[0].data, inputs[1].data, output));
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        struct Slopes<'a, R>(&'a [R], &'a [R], &'a [R]);
        impl<R: Real> Loop<R, (Vec<R>, Vec<R>)> for Slopes<'_, R> {
            fn run(self, function: impl Fn(R) -> (R, R) + Send + Sync) -> (Vec<R>, Vec<R>) {
                let mut d_gate = vec![R::zero(); self.2.len()];
                let mut d_value = vec![R::zero(); self.2.len()];
                let outputs = d_gate.par_chunks_mut(CHUNK).zip(d_value.par_chunks_mut(CHUNK));
                let arguments = self.0.par_chunks(CHUNK).zip(self.1.par_chunks(CHUNK));
                outputs.zip(arguments).zip(self.2.par_chunks(CHUNK)).for_each(
                    |((outputs, (gate, value)), grad)| {
                        let (d_gate, d_value) = outputs;
                        vector::zip_map(d_gate, [value, grad], |value, g| g * value);
                        vector::run(GateSlopes { gate, grad, d_gate, d_value, function: &function });
                    },
                );
                (d_gate, d_value)
            }
        }
        let (d_gate, d_value) = self.0.with(Slopes(inputs[0].data, inputs[1].data, grad));
        vec![Some(d_gate), Some(d_value)]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.0.composed(inputs[0])?.mul(inputs[1])
    }
}

#[derive(Clone)]
struct GatedHalves(Activation);

/// `activation(second half) · first half` of the last dimension, which is never taken apart in memory.
///
/// # Shapes
/// `x (…, 2W)` → `(…, W)`.
/// # Errors
/// If the last dimension is odd.
/// # Source
/// Shazeer, "GLU variants improve transformer", arXiv:2002.05202; the order of the halves is that of diffusers' `GEGLU`.
pub fn gated_halves(x: &Tensor, activation: Activation) -> Result<Tensor> {
    apply(GatedHalves(activation), &[x])
}

/// Rows that one task takes.
fn rows_at_once(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

impl Kernel for GatedHalves {
    const NAME: &'static str = "gated halves";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        match dims[0] {
            [rows @ .., width] if width.is_multiple_of(2) => Ok([rows, &[width / 2]].concat()),
            other => candle_core::bail!("gated halves: {other:?} has no two halves"),
        }
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        struct Rows<'a, R>(&'a [R], &'a mut [R], usize);
        impl<R: Real> Loop<R, ()> for Rows<'_, R> {
            fn run(self, function: impl Fn(R) -> (R, R) + Send + Sync) {
                let Rows(x, out, width) = self;
                let rows = rows_at_once(width);
                out.par_chunks_mut(rows * width).zip(x.par_chunks(2 * rows * width)).for_each(|(out, x)| {
                    for (out, x) in out.chunks_mut(width).zip(x.chunks(2 * width)) {
                        let (value, gate) = x.split_at(width);
                        vector::zip_map(out, [gate, value], |gate, value| function(gate).0 * value);
                    }
                });
            }
        }
        let width = inputs[0].last() / 2;
        if width > 0 {
            self.0.with(Rows(inputs[0].data, output, width));
        }
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        struct Rows<'a, R>(&'a [R], &'a [R], usize);
        impl<R: Real> Loop<R, Vec<R>> for Rows<'_, R> {
            fn run(self, function: impl Fn(R) -> (R, R) + Send + Sync) -> Vec<R> {
                let Rows(x, grad, width) = self;
                let rows = rows_at_once(width);
                let mut dx = vec![R::zero(); x.len()];
                let outputs = dx.par_chunks_mut(2 * rows * width).zip(x.par_chunks(2 * rows * width));
                outputs.zip(grad.par_chunks(rows * width)).for_each(|((dx, x), grad)| {
                    let rows = dx.chunks_mut(2 * width).zip(x.chunks(2 * width));
                    for ((dx, x), grad) in rows.zip(grad.chunks(width)) {
                        let ((d_value, d_gate), (value, gate)) = (dx.split_at_mut(width), x.split_at(width));
                        vector::zip_map(d_gate, [value, grad], |value, g| g * value);
                        vector::run(GateSlopes { gate, grad, d_gate, d_value, function: &function });
                    }
                });
                dx
            }
        }
        let width = inputs[0].last() / 2;
        vec![Some(if width > 0 { self.0.with(Rows(inputs[0].data, grad, width)) } else { Vec::new() })]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (last, width) = (inputs[0].rank() - 1, inputs[0].dim(candle_core::D::Minus1)? / 2);
        let value = inputs[0].narrow(last, 0, width)?.contiguous()?;
        let gate = inputs[0].narrow(last, width, width)?.contiguous()?;
        self.0.composed(&gate)?.mul(&value)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};

    const ALL: [Activation; 4] =
        [Activation::Silu, Activation::GeluErf, Activation::GeluTanh, Activation::QuickGelu];

    #[test]
    fn gradients() {
        for activation in ALL {
            let (a, b) = (sample_tensor(&[3, 4], 1).unwrap(), sample_tensor(&[3, 4], 2).unwrap());
            check(Activate(activation), std::slice::from_ref(&a));
            check(Gated(activation), &[a, b]);
            check(GatedHalves(activation), &[sample_tensor(&[2, 3, 10], 3).unwrap()]);
        }
    }

    #[test]
    fn shapes_must_agree() {
        let (a, b) = (sample_tensor(&[2, 2], 1).unwrap(), sample_tensor(&[4], 2).unwrap());
        assert!(gated(&a, &b, Activation::Silu).is_err());
        assert!(gated_halves(&sample_tensor(&[2, 3], 1).unwrap(), Activation::Silu).is_err());
    }
}
