//! Elementwise activations, alone and as the gate of a product (SwiGLU, GEGLU).

use crate::kernel::{Kernel, Real, View, apply};
use crate::vector;
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::marker::PhantomData;

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

/// A function with its derivative. `at` is `#[inline(always)]` and called from plain loops, so that compilers find vectors.
trait Curve<R>: Send + Sync {
    /// `(f(x), f′(x))`.
    fn at<const FUSED: bool>(x: R) -> (R, R);
}

/// `1/(1 + e⁻ˣ)`.
#[inline(always)]
fn sigmoid<R: Real, const FUSED: bool>(x: R) -> R {
    R::one() / (R::one() + (-x).exp_in::<FUSED>())
}

struct Silu;
impl<R: Real> Curve<R> for Silu {
    #[inline(always)]
    fn at<const FUSED: bool>(x: R) -> (R, R) {
        let s = sigmoid::<R, FUSED>(x);
        (x * s, s * (R::one() + x * (R::one() - s)))
    }
}

struct QuickGelu;
impl<R: Real> Curve<R> for QuickGelu {
    #[inline(always)]
    fn at<const FUSED: bool>(x: R) -> (R, R) {
        let k = R::of(1.702);
        let s = sigmoid::<R, FUSED>(k * x);
        (x * s, s * (R::one() + k * x * (R::one() - s)))
    }
}

struct GeluErf;
impl<R: Real> Curve<R> for GeluErf {
    #[inline(always)]
    fn at<const FUSED: bool>(x: R) -> (R, R) {
        let (half, root, norm) =
            (R::of(0.5), R::of(std::f64::consts::FRAC_1_SQRT_2), R::of(0.398_942_280_401_432_7));
        let cdf = half * (R::one() + (x * root).erf_in::<FUSED>());
        (x * cdf, cdf + x * norm * (-half * x * x).exp_in::<FUSED>())
    }
}

struct GeluTanh;
impl<R: Real> Curve<R> for GeluTanh {
    #[inline(always)]
    fn at<const FUSED: bool>(x: R) -> (R, R) {
        let (a, b, three) = (R::of(0.797_884_560_802_865_4), R::of(0.044_715), R::of(3.0));
        let (one, half) = (R::one(), R::of(0.5));
        let t = (a * (x + b * x * x * x)).tanh();
        let slope = a * (one + three * b * x * x);
        (half * x * (one + t), half * (one + t) + half * x * (one - t * t) * slope)
    }
}

impl Activation {
    /// Runs `job` with the function of this activation.
    ///
    /// The choice is made once for a whole slice, so that the loop over it has no branch and can use vector
    /// instructions.
    fn with<R: Real, T>(self, job: impl Job<R, T>) -> T {
        match self {
            Self::Silu => job.run::<Silu>(),
            Self::QuickGelu => job.run::<QuickGelu>(),
            Self::GeluErf => job.run::<GeluErf>(),
            Self::GeluTanh => job.run::<GeluTanh>(),
        }
    }

    /// Replaces numbers by what the function makes of them.
    pub(super) fn apply_to<R: Real>(self, numbers: &mut [R]) {
        struct Whole<'a, R>(&'a mut [R]);
        impl<R: Real> Job<R, ()> for Whole<'_, R> {
            fn run<C: Curve<R>>(self) {
                vector::run(InPlace::<R, C>(self.0, PhantomData));
            }
        }
        self.with(Whole(numbers));
    }

    /// `out[i] = f′(x[i]) · y[i]`.
    pub(super) fn slopes<R: Real>(self, out: &mut [R], x: &[R], y: &[R]) {
        struct Whole<'a, R>(&'a mut [R], [&'a [R]; 2]);
        impl<R: Real> Job<R, ()> for Whole<'_, R> {
            fn run<C: Curve<R>>(self) {
                let Self(out, [x, y]) = self;
                vector::run(Slopes::<R, C> { out, x, y, curve: PhantomData });
            }
        }
        self.with(Whole(out, [x, y]));
    }

    pub(super) fn composed(self, x: &Tensor) -> Result<Tensor> {
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

/// Work that is written once for all functions.
trait Job<R, T> {
    fn run<C: Curve<R>>(self) -> T;
}

/// `out[i] = f(x[i])`, times `y[i]` if there is one.
struct Values<'a, R, C> {
    out: &'a mut [R],
    x: &'a [R],
    y: Option<&'a [R]>,
    curve: PhantomData<C>,
}

impl<R: Real, C: Curve<R>> vector::Loop for Values<'_, R, C> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { out, x, y, .. } = self;
        for (out, x) in out.iter_mut().zip(x) {
            *out = C::at::<FUSED>(*x).0;
        }
        for (out, y) in out.iter_mut().zip(y.into_iter().flatten()) {
            *out *= *y;
        }
    }
}

/// `x[i] = f(x[i])`.
struct InPlace<'a, R, C>(&'a mut [R], PhantomData<C>);

impl<R: Real, C: Curve<R>> vector::Loop for InPlace<'_, R, C> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        for x in self.0 {
            *x = C::at::<FUSED>(*x).0;
        }
    }
}

/// `out[i] = f′(x[i]) · y[i]`.
struct Slopes<'a, R, C> {
    out: &'a mut [R],
    x: &'a [R],
    y: &'a [R],
    curve: PhantomData<C>,
}

impl<R: Real, C: Curve<R>> vector::Loop for Slopes<'_, R, C> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { out, x, y, .. } = self;
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = C::at::<FUSED>(*x).1 * *y;
        }
    }
}

/// The gradients of a gate and of what it gates.
struct GateSlopes<'a, R, C> {
    gate: &'a [R],
    value: &'a [R],
    grad: &'a [R],
    d_gate: &'a mut [R],
    d_value: &'a mut [R],
    curve: PhantomData<C>,
}

impl<R: Real, C: Curve<R>> vector::Loop for GateSlopes<'_, R, C> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { gate, value, grad, d_gate, d_value, .. } = self;
        for ((d_gate, value), grad) in d_gate.iter_mut().zip(value).zip(grad) {
            *d_gate = *grad * *value;
        }
        for ((d_gate, d_value), (gate, grad)) in d_gate.iter_mut().zip(d_value).zip(gate.iter().zip(grad)) {
            let (y, slope) = C::at::<FUSED>(*gate);
            *d_gate *= slope;
            *d_value = *grad * y;
        }
    }
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
        struct Whole<'a, R>(&'a [R], &'a mut [R]);
        impl<R: Real> Job<R, ()> for Whole<'_, R> {
            fn run<C: Curve<R>>(self) {
                self.1.par_chunks_mut(CHUNK).zip(self.0.par_chunks(CHUNK)).for_each(|(out, x)| {
                    vector::run(Values::<R, C> { out, x, y: None, curve: PhantomData });
                });
            }
        }
        self.0.with(Whole(inputs[0].data, output));
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        struct Whole<'a, R>(&'a [R], &'a [R]);
        impl<R: Real> Job<R, Vec<R>> for Whole<'_, R> {
            fn run<C: Curve<R>>(self) -> Vec<R> {
                let mut dx = vec![R::zero(); self.0.len()];
                let arguments = self.0.par_chunks(CHUNK).zip(self.1.par_chunks(CHUNK));
                dx.par_chunks_mut(CHUNK).zip(arguments).for_each(|(out, (x, y))| {
                    vector::run(Slopes::<R, C> { out, x, y, curve: PhantomData });
                });
                dx
            }
        }
        vec![Some(self.0.with(Whole(inputs[0].data, grad)))]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.0.composed(inputs[0])
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
        impl<R: Real> Job<R, ()> for Products<'_, R> {
            fn run<C: Curve<R>>(self) {
                let arguments = self.0.par_chunks(CHUNK).zip(self.1.par_chunks(CHUNK));
                self.2.par_chunks_mut(CHUNK).zip(arguments).for_each(|(out, (gate, value))| {
                    vector::run(Values::<R, C> { out, x: gate, y: Some(value), curve: PhantomData });
                });
            }
        }
        self.0.with(Products(inputs[0].data, inputs[1].data, output));
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        struct Whole<'a, R>(&'a [R], &'a [R], &'a [R]);
        impl<R: Real> Job<R, (Vec<R>, Vec<R>)> for Whole<'_, R> {
            fn run<C: Curve<R>>(self) -> (Vec<R>, Vec<R>) {
                let mut d_gate = vec![R::zero(); self.2.len()];
                let mut d_value = vec![R::zero(); self.2.len()];
                let outputs = d_gate.par_chunks_mut(CHUNK).zip(d_value.par_chunks_mut(CHUNK));
                let arguments = self.0.par_chunks(CHUNK).zip(self.1.par_chunks(CHUNK));
                outputs.zip(arguments).zip(self.2.par_chunks(CHUNK)).for_each(
                    |((outputs, (gate, value)), grad)| {
                        let (d_gate, d_value) = outputs;
                        let curve = PhantomData::<C>;
                        vector::run(GateSlopes { gate, value, grad, d_gate, d_value, curve });
                    },
                );
                (d_gate, d_value)
            }
        }
        let (d_gate, d_value) = self.0.with(Whole(inputs[0].data, inputs[1].data, grad));
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
        impl<R: Real> Job<R, ()> for Rows<'_, R> {
            fn run<C: Curve<R>>(self) {
                let Rows(x, out, width) = self;
                let rows = rows_at_once(width);
                out.par_chunks_mut(rows * width).zip(x.par_chunks(2 * rows * width)).for_each(|(out, x)| {
                    for (out, x) in out.chunks_mut(width).zip(x.chunks(2 * width)) {
                        let (value, gate) = x.split_at(width);
                        vector::run(Values::<R, C> { out, x: gate, y: Some(value), curve: PhantomData });
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
        impl<R: Real> Job<R, Vec<R>> for Rows<'_, R> {
            fn run<C: Curve<R>>(self) -> Vec<R> {
                let Rows(x, grad, width) = self;
                let rows = rows_at_once(width);
                let mut dx = vec![R::zero(); x.len()];
                let outputs = dx.par_chunks_mut(2 * rows * width).zip(x.par_chunks(2 * rows * width));
                outputs.zip(grad.par_chunks(rows * width)).for_each(|((dx, x), grad)| {
                    let rows = dx.chunks_mut(2 * width).zip(x.chunks(2 * width));
                    for ((dx, x), grad) in rows.zip(grad.chunks(width)) {
                        let ((d_value, d_gate), (value, gate)) = (dx.split_at_mut(width), x.split_at(width));
                        let curve = PhantomData::<C>;
                        vector::run(GateSlopes { gate, value, grad, d_gate, d_value, curve });
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
