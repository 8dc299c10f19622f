//! RMS, layer and group normalisation with scale (and shift).

use super::activation::Activation;
use crate::kernel::{Kernel, Real, View, apply};
use crate::vector;
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

/// Rows that one task takes, so that small rows don't drown in scheduling; fixed, so that sums over rows come out
/// equal whatever the number of threads.
const ROWS: usize = 64;

/// `x / √(mean(x²) + ε) · weight` over the last dimension.
///
/// # Shapes
/// `x (…, D)`, `weight (D,)` → `(…, D)`.
/// # Errors
/// If the sizes don't fit.
/// # Source
/// Zhang & Sennrich, arXiv:1910.07467, Eq. 4.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    apply(RmsNorm { eps }, &[x, weight])
}

/// `(x − mean) / √(var + ε) · weight + bias` over the last dimension.
///
/// # Shapes
/// `x (…, D)`, `weight (D,)`, `bias (D,)` → `(…, D)`.
/// # Errors
/// If the sizes don't fit.
/// # Source
/// Ba, Kiros & Hinton, arXiv:1607.06450, Eq. 4.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    apply(GroupNorm { groups: None, eps, activation: None }, &[x, weight, bias])
}

/// `(x − mean) / √(var + ε) · weight + bias` with mean and variance over the channels of one group and all positions.
///
/// # Shapes
/// `x (B, C, …)`, `weight (C,)`, `bias (C,)` → the shape of `x`.
/// # Errors
/// If `groups` does not divide C or the sizes don't fit.
/// # Source
/// Wu & He, arXiv:1803.08494, Eq. 1-3.
pub fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    apply(GroupNorm { groups: Some(groups), eps, activation: None }, &[x, weight, bias])
}

/// `activation(group_norm(x))` in one pass, which keeps nothing but its input for the backward.
///
/// # Shapes
/// As [`group_norm`].
/// # Errors
/// As [`group_norm`].
pub fn group_norm_activated(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    apply(GroupNorm { groups: Some(groups), eps, activation: Some(activation) }, &[x, weight, bias])
}

#[derive(Clone)]
struct RmsNorm {
    eps: f64,
}

impl RmsNorm {
    fn inverse_rms<R: Real>(&self, row: &[R]) -> R {
        let [square] = vector::sum([row, row], |x, _| [x * x]);
        (square / R::of(row.len() as f64) + R::of(self.eps)).sqrt().recip()
    }
}

impl Kernel for RmsNorm {
    const NAME: &'static str = "rms-norm";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        if dims[0].last() != dims[1].last() || dims[1].len() != 1 {
            candle_core::bail!("rms-norm: weight {:?} does not fit {:?}", dims[1], dims[0]);
        }
        Ok(dims[0].to_vec())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let (x, weight, width) = (inputs[0].data, inputs[1].data, inputs[1].data.len());
        output.par_chunks_mut(width * ROWS).zip(x.par_chunks(width * ROWS)).for_each(|(out, x)| {
            for (out, x) in out.chunks_mut(width).zip(x.chunks(width)) {
                let scale = self.inverse_rms(x);
                vector::zip_map(out, [x, weight], |x, w| x * scale * w);
            }
        });
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        let (x, weight, width) = (inputs[0].data, inputs[1].data, inputs[1].data.len());
        let mut dx = vec![R::zero(); x.len()];
        let span = width * ROWS;
        let partial: Vec<Vec<R>> = (dx.par_chunks_mut(span), x.par_chunks(span), grad.par_chunks(span))
            .into_par_iter()
            .map(|(dx, x, grad)| {
                let mut d_weight = vec![R::zero(); width];
                for ((dx, x), g) in dx.chunks_mut(width).zip(x.chunks(width)).zip(grad.chunks(width)) {
                    let scale = self.inverse_rms(x);
                    // The row's gradient for normalised numbers lies where its result will be.
                    vector::zip_map(dx, [g, weight], |g, w| g * w);
                    let [dot] = vector::sum([x, dx], |x, g| [x * g]);
                    let pull = dot * scale * scale / R::of(width as f64);
                    vector::update(dx, x, |g, x| scale * (g - x * pull));
                    vector::run(AddScaledProducts { sums: &mut d_weight, x, grad: g, scale });
                }
                d_weight
            })
            .collect();
        vec![Some(dx), Some(column_sums(&partial, width))]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        x.broadcast_div(&rms)?.broadcast_mul(inputs[1])
    }
}

/// `sums[i] += grad[i] · x[i] · scale`.
struct AddScaledProducts<'a, R> {
    sums: &'a mut [R],
    x: &'a [R],
    grad: &'a [R],
    scale: R,
}

impl<R: Real> vector::Loop for AddScaledProducts<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { sums, x, grad, scale } = self;
        sums.iter_mut().zip(x).zip(grad).for_each(|((sum, x), g)| *sum += *g * *x * scale);
    }
}

fn column_sums<R: Real>(rows: &[Vec<R>], width: usize) -> Vec<R> {
    let mut sums = vec![R::zero(); width];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(s, x)| *s += *x);
    }
    sums
}

/// Group norm; with no groups given, the last dimension is normalised position by position (layer norm).
#[derive(Clone)]
struct GroupNorm {
    groups: Option<usize>,
    eps: f64,
    /// What follows at once.
    activation: Option<Activation>,
}

/// How a tensor falls apart into normalised spans: `spans` of `channels × positions` numbers each, the channel of a
/// span's first number being `(span % groups) · channels`.
struct Spans {
    channels: usize,
    positions: usize,
    groups: usize,
}

impl GroupNorm {
    fn spans(&self, dims: &[usize]) -> Spans {
        match self.groups {
            None => Spans { channels: dims.last().copied().unwrap_or(1), positions: 1, groups: 1 },
            Some(groups) => {
                Spans { channels: dims[1] / groups, positions: dims[2..].iter().product(), groups }
            }
        }
    }

    /// Mean and `1/√(var + ε)` of a span.
    fn moments<R: Real>(&self, span: &[R]) -> (R, R) {
        let n = R::of(span.len() as f64);
        let [sum] = vector::sum([span, span], |x, _| [x]);
        let mean = sum / n;
        let [squares] = vector::sum([span, span], |x, _| [(x - mean) * (x - mean)]);
        let variance = squares / n;
        (mean, (variance + R::of(self.eps)).sqrt().recip())
    }
}

impl Kernel for GroupNorm {
    const NAME: &'static str = "group-norm";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let channels = match self.groups {
            None => dims[0].last(),
            Some(groups) => dims[0].get(1).filter(|channels| groups > 0 && *channels % groups == 0),
        };
        if channels.is_none() || Some(dims[1]) != channels.map(std::slice::from_ref) || dims[1] != dims[2] {
            candle_core::bail!(
                "normalisation of {:?} in groups {:?}: weight {:?} or bias {:?} does not fit",
                dims[0],
                self.groups,
                dims[1],
                dims[2]
            );
        }
        Ok(dims[0].to_vec())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let (x, weight, bias) = (inputs[0].data, inputs[1].data, inputs[2].data);
        let Spans { channels, positions, groups } = self.spans(inputs[0].dims);
        let size = channels * positions;
        let batch = ROWS.div_ceil(positions);
        output.par_chunks_mut(size * batch).zip(x.par_chunks(size * batch)).enumerate().for_each(
            |(task, (out, x))| {
                for (i, (out, x)) in out.chunks_mut(size).zip(x.chunks(size)).enumerate() {
                    let first = (task * batch + i) % groups * channels;
                    let moments = self.moments(x);
                    let window = first..first + channels;
                    let (weight, bias) = (&weight[window.clone()], &bias[window]);
                    vector::run(Normalise { out: &mut *out, x, moments, positions, weight, bias });
                    if let Some(activation) = self.activation {
                        activation.apply_to(out);
                    }
                }
            },
        );
    }

    fn backward<R: Real>(&self, inputs: &[View<R>], _: &[R], grad: &[R], _: &[bool]) -> Vec<Option<Vec<R>>> {
        let (x, weight, bias) = (inputs[0].data, inputs[1].data, inputs[2].data);
        let Spans { channels, positions, groups } = self.spans(inputs[0].dims);
        let (size, total) = (channels * positions, channels * groups);
        let batch = ROWS.div_ceil(positions);
        let mut dx = vec![R::zero(); x.len()];
        let partial: Vec<Vec<R>> =
            (dx.par_chunks_mut(size * batch), x.par_chunks(size * batch), grad.par_chunks(size * batch))
                .into_par_iter()
                .enumerate()
                .map(|(task, (dx, x, grad))| {
                    let mut sums = vec![R::zero(); 2 * total];
                    let (d_weight, d_bias) = sums.split_at_mut(total);
                    let mut scratch = Vec::new();
                    for (i, ((dx, x), g)) in
                        dx.chunks_mut(size).zip(x.chunks(size)).zip(grad.chunks(size)).enumerate()
                    {
                        let first = (task * batch + i) % groups * channels;
                        let window = first..first + channels;
                        let moments = self.moments(x);
                        let (weight, bias) = (&weight[window.clone()], &bias[window.clone()]);
                        let mut g = g;
                        if let Some(activation) = self.activation {
                            scratch.resize(2 * size, R::zero());
                            let (out, slopes) = scratch.split_at_mut(size);
                            vector::run(Normalise { out: &mut *out, x, moments, positions, weight, bias });
                            activation.slopes(slopes, out, g);
                            g = slopes;
                        }
                        let sums = (&mut d_weight[window.clone()], &mut d_bias[window]);
                        span_backward((x, g, dx), moments, positions, weight, sums);
                    }
                    sums
                })
                .collect();
        let mut d_weight = column_sums(&partial, 2 * total);
        let d_bias = d_weight.split_off(total);
        vec![Some(dx), Some(d_weight), Some(d_bias)]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (x, weight, bias) = (inputs[0], inputs[1], inputs[2]);
        let normalise = |x: &Tensor| -> Result<Tensor> {
            let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
            centred.broadcast_div(&deviation)
        };
        let y = match self.groups {
            None => normalise(x)?.broadcast_mul(weight)?.broadcast_add(bias)?,
            Some(groups) => {
                let y = normalise(&x.reshape((x.dim(0)?, groups, ()))?)?.reshape(x.shape())?;
                let mut channel = vec![1; x.rank()];
                channel[1] = weight.elem_count();
                let y = y.broadcast_mul(&weight.reshape(channel.as_slice())?)?;
                y.broadcast_add(&bias.reshape(channel)?)?
            }
        };
        self.activation.map_or(Ok(y.clone()), |activation| activation.composed(&y))
    }
}

/// Normalises a span, and scales and shifts it channel by channel.
struct Normalise<'a, R> {
    out: &'a mut [R],
    x: &'a [R],
    /// Mean and `1/√(var + ε)`.
    moments: (R, R),
    positions: usize,
    weight: &'a [R],
    bias: &'a [R],
}

impl<R: Real> vector::Loop for Normalise<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { out, x, moments: (mean, scale), positions, weight, bias } = self;
        if positions == 1 {
            let affine = weight.iter().zip(bias);
            out.iter_mut().zip(x).zip(affine).for_each(|((o, x), (w, b))| *o = (*x - mean) * scale * *w + *b);
            return;
        }
        let channels = out.chunks_exact_mut(positions).zip(x.chunks_exact(positions));
        for ((out, x), (w, b)) in channels.zip(weight.iter().zip(bias)) {
            let w = *w * scale;
            out.iter_mut().zip(x).for_each(|(o, x)| *o = (*x - mean) * w + *b);
        }
    }
}

/// The gradient of a span, and what it adds to those of weight and bias.
fn span_backward<R: Real>(
    (x, grad, dx): (&[R], &[R], &mut [R]),
    (mean, scale): (R, R),
    positions: usize,
    weight: &[R],
    (d_weight, d_bias): (&mut [R], &mut [R]),
) {
    if positions == 1 {
        vector::update(d_bias, grad, |sum, g| sum + g);
        vector::zip_map(dx, [x, grad], |x, g| (x - mean) * scale * g);
        vector::update(d_weight, dx, |sum, product| sum + product);
        // The gradient for normalised numbers lies where the result will be.
        vector::zip_map(dx, [grad, weight], |g, w| g * w);
    } else {
        let channels = dx.chunks_exact_mut(positions).zip(x.chunks_exact(positions));
        for (c, ((dx, x), g)) in channels.zip(grad.chunks_exact(positions)).enumerate() {
            let [sum, dot] = vector::sum([x, g], |x, g| [g, (x - mean) * scale * g]);
            d_bias[c] += sum;
            d_weight[c] += dot;
            vector::map(dx, g, |g| g * weight[c]);
        }
    }
    let [sum, dot] = vector::sum([x, dx], |x, g| [g, (x - mean) * scale * g]);
    let n = R::of(x.len() as f64);
    let (mean_grad, mean_dot) = (sum / n, dot / n);
    vector::update(dx, x, |g, x| scale * (g - mean_grad - (x - mean) * scale * mean_dot));
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::activation::activate;
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};
    use candle_core::DType;

    #[test]
    fn gradients() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
        check(RmsNorm { eps: 1e-5 }, &[t(&[2, 3, 6], 1), t(&[6], 2)]);
        check(
            GroupNorm { groups: None, eps: 1e-5, activation: None },
            &[t(&[2, 3, 6], 1), t(&[6], 2), t(&[6], 3)],
        );
        for activation in [None, Some(Activation::Silu), Some(Activation::GeluErf)] {
            let norm = GroupNorm { groups: Some(2), eps: 1e-5, activation };
            check(norm, &[t(&[2, 6, 2, 3], 1), t(&[6], 2), t(&[6], 3)]);
            let norm = GroupNorm { groups: Some(3), eps: 1e-2, activation };
            check(norm, &[t(&[70, 6, 1, 1], 1), t(&[6], 2), t(&[6], 3)]);
        }
    }

    #[test]
    fn an_activation_in_the_same_pass_changes_no_bit() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap().to_dtype(DType::F32).unwrap();
        let (x, weight, bias) = (t(&[3, 8, 5, 7], 1), t(&[8], 2), t(&[8], 3));
        let apart = activate(&group_norm(&x, &weight, &bias, 4, 1e-5).unwrap(), Activation::Silu).unwrap();
        let at_once = group_norm_activated(&x, (&weight, &bias), 4, 1e-5, Activation::Silu).unwrap();
        let numbers = |y: &Tensor| y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(&apart), numbers(&at_once));
    }

    #[test]
    fn misfits_are_refused() {
        let t = |shape: &[usize]| sample_tensor(shape, 1).unwrap();
        assert!(rms_norm(&t(&[2, 6]), &t(&[5]), 1e-5).is_err());
        assert!(layer_norm(&t(&[2, 6]), &t(&[6]), &t(&[5]), 1e-5).is_err());
        assert!(group_norm(&t(&[2, 6, 4]), &t(&[6]), &t(&[6]), 4, 1e-5).is_err());
    }
}
