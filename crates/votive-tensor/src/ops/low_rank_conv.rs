//! A frozen convolution with a trainable low-rank update, in one operation that keeps nothing but its input.

use super::conv::{Conv2d, Geometry, PARTS};
use crate::kernel::{Kernel, Matrix, Real, View, apply, matmul};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// `conv(x, weight) + bias + scale · conv1×1(conv(x, a), b)`, where x is convolved with `a` as with `weight`.
///
/// # Shapes
/// `x (B, C, H, W)`, `weight (O, C, kh, kw)`, `bias (O,)`, `a (R, C, kh, kw)`, `b (O, R, 1, 1)`
/// → `(B, O, (H + 2p − kh)/s + 1, (W + 2p − kw)/s + 1)`.
/// # Gradient
/// Flows to `x`, `a` and `b`; weight and bias are constants.
/// # Errors
/// If the sizes don't fit.
/// # Source
/// Hu et al., arXiv:2106.09685, Eq. 3, for the matrix `(O, C·kh·kw)` of a convolution, as PEFT 0.21.2 has it.
pub fn low_rank_conv2d(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    (a, b, scale): (&Tensor, &Tensor, f64),
    (stride, padding): (usize, usize),
) -> Result<Tensor> {
    let constants = vec![weight.detach(), bias.detach()];
    apply(LowRankConv { conv: Conv2d { stride, padding }, constants, scale }, &[x, a, b])
}

/// Arguments `x`, A, B, and the constants weight and bias.
#[derive(Clone)]
struct LowRankConv {
    conv: Conv2d,
    constants: Vec<Tensor>,
    scale: f64,
}

/// Sizes and matrices of one call.
struct Call<'a, R> {
    g: Geometry,
    rank: usize,
    weight: (&'a [R], Matrix),
    a: (&'a [R], Matrix),
    b: (&'a [R], Matrix),
}

impl LowRankConv {
    fn call<'a, R: Real>(&self, inputs: &'a [View<R>]) -> Call<'a, R> {
        let (g, rank) = (self.conv.geometry(inputs[0].dims, inputs[3].dims), inputs[1].dims[0]);
        Call {
            weight: (inputs[3].data, Matrix::dense(g.outs, g.patch())),
            a: (inputs[1].data, Matrix::dense(rank, g.patch())),
            b: (inputs[2].data, Matrix::dense(g.outs, rank)),
            g,
            rank,
        }
    }

    /// The gradient of x: `Wᵀ·dY + Aᵀ·(s·Bᵀ·dY)`, put back under the kernel.
    fn input_grad<R: Real>(&self, call: &Call<R>, grad: &[R]) -> Vec<R> {
        let Call { g, rank, weight, a, b } = call;
        let (pixels, threads) = (g.pixels(), g.threads());
        let mut dx = vec![R::zero(); g.batch * g.input()];
        dx.par_chunks_mut(g.input()).zip(grad.par_chunks(g.outs * pixels)).for_each_init(
            || (self.conv.scratch(g), vec![R::zero(); rank * pixels]),
            |(scratch, down), (dx, grad)| {
                let (grad, down_shape) =
                    ((grad, Matrix::dense(g.outs, pixels)), Matrix::dense(*rank, pixels));
                matmul((down, down_shape), (b.0, b.1.t()), grad, R::of(self.scale), false, threads);
                self.conv.add_columns(g, scratch, dx, |columns| {
                    let shape = Matrix::dense(g.patch(), pixels);
                    matmul((columns, shape), (weight.0, weight.1.t()), grad, R::one(), false, threads);
                    matmul((columns, shape), (a.0, a.1.t()), (down, down_shape), R::one(), true, threads);
                });
            },
        );
        dx
    }

    /// The gradients of A and B: sums over parts of the batch, which do not depend on the threads.
    fn update_grads<R: Real>(&self, call: &Call<R>, x: &[R], grad: &[R]) -> [Vec<R>; 2] {
        let Call { g, rank, .. } = call;
        let images = g.batch.div_ceil(PARTS).max(1);
        let (x, grad) = (x.par_chunks(images * g.input()), grad.par_chunks(images * g.outs * g.pixels()));
        let parts: Vec<[Vec<R>; 2]> =
            (x, grad).into_par_iter().map(|(x, grad)| self.part_of_update_grads(call, x, grad)).collect();
        let mut sums = [vec![R::zero(); rank * g.patch()], vec![R::zero(); g.outs * rank]];
        for part in parts {
            for (sum, part) in sums.iter_mut().zip(part) {
                sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            }
        }
        sums
    }

    fn part_of_update_grads<R: Real>(&self, call: &Call<R>, x: &[R], grad: &[R]) -> [Vec<R>; 2] {
        let Call { g, rank, a, b, .. } = call;
        let (pixels, threads, scale) = (g.pixels(), g.threads(), R::of(self.scale));
        let (mut da, mut db) = (vec![R::zero(); rank * g.patch()], vec![R::zero(); g.outs * rank]);
        let (mut scratch, mut down) = (self.conv.scratch(g), vec![R::zero(); rank * pixels]);
        let down_shape = Matrix::dense(*rank, pixels);
        for (image, grad) in x.chunks(g.input()).zip(grad.chunks(g.outs * pixels)) {
            let grad = (grad, Matrix::dense(g.outs, pixels));
            let columns = self.conv.columns(g, image, &mut scratch);
            let shape = Matrix::dense(g.patch(), pixels);
            matmul((&mut down, down_shape), *a, (columns, shape), R::one(), false, threads);
            matmul((&mut db, b.1), grad, (&down, down_shape.t()), scale, true, threads);
            // What comes back to the convolution with A takes the place of what it gave.
            matmul((&mut down, down_shape), (b.0, b.1.t()), grad, scale, false, threads);
            matmul((&mut da, a.1), (&down, down_shape), (columns, shape.t()), R::one(), true, threads);
        }
        [da, db]
    }
}

impl Kernel for LowRankConv {
    const NAME: &'static str = "low-rank conv2d";

    fn constants(&self) -> &[Tensor] {
        &self.constants
    }

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let (x, a, b) = (dims[0], dims[1], dims[2]);
        let (weight, bias) = (self.constants[0].dims(), self.constants[1].dims());
        let fits = matches!((weight, a, b), ([o, kernel @ ..], [r, own @ ..], [outs, rank, 1, 1])
            if kernel == own && r == rank && o == outs);
        if !fits {
            candle_core::bail!("low-rank conv2d: input {x:?}, weight {weight:?}, A {a:?}, B {b:?}");
        }
        self.conv.shape(&[x, weight, bias])
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let call = self.call(inputs);
        let Call { g, rank, weight, a, b } = &call;
        let (pixels, threads) = (g.pixels(), g.threads());
        output.par_chunks_mut(g.outs * pixels).zip(inputs[0].data.par_chunks(g.input())).for_each_init(
            || (self.conv.scratch(g), vec![R::zero(); rank * pixels]),
            |(scratch, down), (out, image)| {
                out.chunks_mut(pixels).zip(inputs[4].data).for_each(|(plane, b)| plane.fill(*b));
                let (shape, down_shape) = (Matrix::dense(g.outs, pixels), Matrix::dense(*rank, pixels));
                let columns = (self.conv.columns(g, image, scratch), Matrix::dense(g.patch(), pixels));
                matmul((out, shape), *weight, columns, R::one(), true, threads);
                matmul((down, down_shape), *a, columns, R::one(), false, threads);
                matmul((out, shape), *b, (down, down_shape), R::of(self.scale), true, threads);
            },
        );
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        _: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        let call = self.call(inputs);
        let dx = wanted[0].then(|| self.input_grad(&call, grad));
        let updates = (wanted[1] || wanted[2]).then(|| self.update_grads(&call, inputs[0].data, grad));
        let [da, db] = updates.map_or([None, None], |both| both.map(Some));
        vec![dx, da.filter(|_| wanted[1]), db.filter(|_| wanted[2])]
    }

    #[expect(clippy::disallowed_methods, reason = "other devices have no kernel of ours")]
    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (x, a, b) = (inputs[0].contiguous()?, inputs[1].contiguous()?, inputs[2].contiguous()?);
        let y = self.conv.composed(&[&x, &self.constants[0], &self.constants[1]])?;
        let down = x.conv2d(&a, self.conv.padding, self.conv.stride, 1, 1)?;
        y + (down.conv2d(&b, 0, 1, 1, 1)? * self.scale)?
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};
    use crate::ops::conv2d;

    fn t(shape: &[usize], salt: u64) -> Tensor {
        sample_tensor(shape, salt).unwrap()
    }

    /// A kernel of `k × k` from 2 channels to 3, with an update of rank 2.
    fn kernel(k: usize, stride: usize, padding: usize) -> LowRankConv {
        let constants = vec![t(&[3, 2, k, k], 4), t(&[3], 5)];
        LowRankConv { conv: Conv2d { stride, padding }, constants, scale: 1.7 }
    }

    #[test]
    fn gradients() {
        let b = t(&[3, 2, 1, 1], 3);
        check(kernel(3, 1, 1), &[t(&[5, 2, 4, 5], 1), t(&[2, 2, 3, 3], 2), b.clone()]);
        check(kernel(3, 2, 1), &[t(&[2, 2, 4, 6], 1), t(&[2, 2, 3, 3], 2), b.clone()]);
        check(kernel(1, 1, 0), &[t(&[1, 2, 3, 2], 1), t(&[2, 2, 1, 1], 2), b]);
    }

    #[test]
    fn it_is_the_convolution_with_the_update_in_its_weight() {
        let (x, a, b) = (t(&[2, 2, 5, 5], 1), t(&[2, 2, 3, 3], 2), t(&[3, 2, 1, 1], 3));
        let (weight, bias) = (t(&[3, 2, 3, 3], 4), t(&[3], 5));
        let found = low_rank_conv2d(&x, (&weight, &bias), (&a, &b, 0.5), (2, 1)).unwrap();
        let delta = b.flatten_from(1).unwrap().matmul(&a.flatten_from(1).unwrap()).unwrap();
        let merged = (weight + (delta * 0.5).unwrap().reshape((3, 2, 3, 3)).unwrap()).unwrap();
        let expected = conv2d(&x, &merged, &bias, 2, 1).unwrap();
        let error = (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(error < 1e-12, "{error}");
    }

    #[test]
    fn misfits_are_refused() {
        let (x, weight, bias) = (t(&[2, 2, 5, 5], 1), t(&[3, 2, 3, 3], 4), t(&[3], 5));
        for (a, b) in
            [([2, 2, 1, 1], [3, 2, 1, 1]), ([2, 2, 3, 3], [3, 4, 1, 1]), ([2, 2, 3, 3], [4, 2, 1, 1])]
        {
            let update = (&t(&a, 2), &t(&b, 3), 1.0);
            let error = low_rank_conv2d(&x, (&weight, &bias), update, (1, 1)).unwrap_err();
            assert!(error.to_string().contains("low-rank conv2d"), "{error}");
        }
    }
}
