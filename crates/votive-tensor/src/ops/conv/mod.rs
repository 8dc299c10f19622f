//! Two-dimensional convolution, forward and backward: large images under 3×3 kernels in tiles ([`winograd`]), all others
//! as im2col and matrix products.
//!
//! candle 0.11.1's backward is 4 to 7 times slower on a CPU, and its weight gradient uses a strided kernel that some
//! back ends read wrongly; here every operand is contiguous.

mod kept;
mod winograd;

use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use crate::vector;
use candle_core::{Result, Tensor};
use kept::KeptConv2d;
use rayon::prelude::*;
use winograd::{Kernels, Tiling};

/// Parts that a batch is cut into for weight gradients; fixed, so that the sum does not depend on the threads.
pub(super) const PARTS: usize = 4;

/// A convolution with square stride and zero padding on all sides.
///
/// # Shapes
/// `x (B, C, H, W)`, `weight (O, C, kh, kw)`, `bias (O,)`, or `(B, O)` for one of each image
/// → `(B, O, (H + 2p − kh)/s + 1, (W + 2p − kw)/s + 1)`.
/// # Errors
/// If the sizes don't fit.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let conv = Conv2d { stride, padding };
    match KeptConv2d::of(&conv, weight) {
        Some(kept) => apply(kept, &[x, weight, bias]),
        None => apply(conv, &[x, weight, bias]),
    }
}

#[derive(Clone)]
pub(super) struct Conv2d {
    pub(super) stride: usize,
    pub(super) padding: usize,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    pub(super) outs: usize,
    kernel: (usize, usize),
    out_height: usize,
    out_width: usize,
}

impl Geometry {
    /// Numbers of an image.
    pub(super) fn input(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Pixels of a result.
    pub(super) fn pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Numbers under one position of the kernel.
    pub(super) fn patch(&self) -> usize {
        self.channels * self.kernel.0 * self.kernel.1
    }

    /// A batch fills the threads with images, a single image with its product.
    pub(super) fn threads(&self) -> Threads {
        if self.batch == 1 { Threads::All } else { Threads::One }
    }
}

impl Conv2d {
    pub(super) fn geometry(&self, x: &[usize], weight: &[usize]) -> Geometry {
        let out = |size: usize, kernel: usize| (size + 2 * self.padding - kernel) / self.stride + 1;
        Geometry {
            batch: x[0],
            channels: x[1],
            height: x[2],
            width: x[3],
            outs: weight[0],
            kernel: (weight[2], weight[3]),
            out_height: out(x[2], weight[2]),
            out_width: out(x[3], weight[3]),
        }
    }

    /// How the images are cut, if they are computed in tiles.
    fn tiling(&self, g: &Geometry) -> Option<Tiling> {
        let fits = g.kernel == (3, 3) && self.stride == 1 && self.padding == 1;
        fits.then(|| Tiling::of((g.height, g.width), [g.outs, g.channels])).flatten()
    }

    fn is_pointwise(&self, g: &Geometry) -> bool {
        g.kernel == (1, 1) && self.stride == 1 && self.padding == 0
    }

    /// Calls `visit(column offset, image offset, run)` for every run of kernel inputs that lie inside the image:
    /// `run` columns, whose pixels lie `stride` apart.
    fn runs(&self, g: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
        let (s, p) = (self.stride, self.padding);
        let mut row = 0;
        for c in 0..g.channels {
            for ky in 0..g.kernel.0 {
                for kx in 0..g.kernel.1 {
                    // Output columns whose input column `ox·s + kx − p` is inside 0..width.
                    let first = p.saturating_sub(kx).div_ceil(s);
                    let end =
                        if g.width + p > kx { (g.width + p - kx - 1) / s + 1 } else { 0 }.min(g.out_width);
                    for oy in 0..g.out_height {
                        let y = oy * s + ky;
                        if first < end && (p..g.height + p).contains(&y) {
                            let column = row * g.pixels() + oy * g.out_width + first;
                            visit(column, (c * g.height + y - p) * g.width + first * s + kx - p, end - first);
                        }
                    }
                    row += 1;
                }
            }
        }
    }

    /// Memory for the columns of one image; none for a kernel of one pixel, whose columns are the image.
    pub(super) fn scratch<R: Real>(&self, g: &Geometry) -> Vec<R> {
        vec![R::zero(); if self.is_pointwise(g) { 0 } else { g.patch() * g.pixels() }]
    }

    /// What is under the kernel at every pixel of the result, `(patch, pixels)`.
    pub(super) fn columns<'a, R: Real>(&self, g: &Geometry, image: &'a [R], scratch: &'a mut [R]) -> &'a [R] {
        if self.is_pointwise(g) {
            return image;
        }
        self.im2col(g, image, scratch);
        scratch
    }

    /// Adds to an image, whose numbers are zero, what `fill` makes of its columns.
    pub(super) fn add_columns<R: Real>(
        &self,
        g: &Geometry,
        scratch: &mut [R],
        image: &mut [R],
        fill: impl FnOnce(&mut [R]),
    ) {
        if self.is_pointwise(g) {
            return fill(image);
        }
        fill(scratch);
        self.col2im(g, scratch, image);
    }

    fn im2col<R: Real>(&self, g: &Geometry, image: &[R], columns: &mut [R]) {
        columns.fill(R::zero());
        self.runs(g, |column, pixel, run| {
            let columns = &mut columns[column..column + run];
            if self.stride == 1 {
                columns.copy_from_slice(&image[pixel..pixel + run]);
            } else {
                columns.iter_mut().zip(image[pixel..].iter().step_by(self.stride)).for_each(|(c, x)| *c = *x);
            }
        });
    }

    fn col2im<R: Real>(&self, g: &Geometry, columns: &[R], image: &mut [R]) {
        self.runs(g, |column, pixel, run| {
            let pixels = image[pixel..].iter_mut().step_by(self.stride);
            pixels.zip(&columns[column..column + run]).for_each(|(x, c)| *x += *c);
        });
    }
}

impl Kernel for Conv2d {
    const NAME: &'static str = "conv2d";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        match (dims[0], dims[1]) {
            ([b, c, h, w], [o, channels, kh, kw])
                if c == channels
                    && (dims[2] == [*o] || dims[2] == [*b, *o])
                    && self.stride > 0
                    && h + 2 * self.padding >= *kh
                    && w + 2 * self.padding >= *kw =>
            {
                let g = self.geometry(dims[0], dims[1]);
                Ok(vec![*b, *o, g.out_height, g.out_width])
            }
            _ => candle_core::bail!("conv2d: input {:?}, weight {:?}, bias {:?}", dims[0], dims[1], dims[2]),
        }
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let g = self.geometry(inputs[0].dims, inputs[1].dims);
        if let Some(tiling) = self.tiling(&g) {
            let kernels = Kernels::new(inputs[1].data, g.outs, g.channels);
            return tiling.convolve(&kernels, inputs[0].data, Some(inputs[2].data), output);
        }
        let bias = |image: usize| bias_of(inputs[2].data, g.outs, image);
        let (weight, pixels) = ((inputs[1].data, Matrix::dense(g.outs, g.patch())), g.pixels());
        let threads = g.threads();
        let images = inputs[0].data.par_chunks(g.input()).enumerate();
        output.par_chunks_mut(g.outs * pixels).zip(images).for_each_init(
            || self.scratch(&g),
            |columns, (out, (i, image))| {
                out.chunks_mut(pixels).zip(bias(i)).for_each(|(plane, b)| plane.fill(*b));
                let columns = (self.columns(&g, image, columns), Matrix::dense(g.patch(), pixels));
                matmul((out, Matrix::dense(g.outs, pixels)), weight, columns, R::one(), true, threads);
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
        let g = self.geometry(inputs[0].dims, inputs[1].dims);
        let tiling = self.tiling(&g);
        let dx = wanted[0].then(|| match &tiling {
            Some(tiling) => {
                let mut dx = vec![R::zero(); g.batch * g.input()];
                let kernels = Kernels::turned(inputs[1].data, g.channels, g.outs);
                tiling.convolve(&kernels, grad, None, &mut dx);
                dx
            }
            None => self.input_grad(&g, inputs[1].data, grad),
        });
        let d_weight = wanted[1].then(|| match &tiling {
            Some(tiling) => tiling.weight_grad([g.outs, g.channels], inputs[0].data, grad),
            None => self.weight_grad(&g, inputs[0].data, grad),
        });
        let d_bias = wanted[2].then(|| {
            let sum = |plane: &[R]| vector::sum([plane, plane], |g, _| [g])[0];
            let planes: Vec<R> = grad.par_chunks(g.pixels()).map(sum).collect();
            if inputs[2].dims.len() == 2 {
                return planes;
            }
            let mut d_bias = vec![R::zero(); g.outs];
            for image in planes.chunks(g.outs) {
                d_bias.iter_mut().zip(image).for_each(|(d, plane)| *d += *plane);
            }
            d_bias
        });
        vec![dx, d_weight, d_bias]
    }

    #[expect(clippy::disallowed_methods, reason = "other devices have no kernel of ours")]
    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (x, weight) = (inputs[0].contiguous()?, inputs[1].contiguous()?);
        let y = x.conv2d(&weight, self.padding, self.stride, 1, 1)?;
        y.broadcast_add(&inputs[2].reshape(((), y.dim(1)?, 1, 1))?)
    }
}

/// An image's bias, of those of all images or of one that they share.
fn bias_of<R>(bias: &[R], outs: usize, image: usize) -> &[R] {
    if bias.len() == outs { bias } else { &bias[image * outs..(image + 1) * outs] }
}

impl Conv2d {
    fn input_grad<R: Real>(&self, g: &Geometry, weight: &[R], grad: &[R]) -> Vec<R> {
        let pixels = g.pixels();
        let weight = (weight, Matrix::dense(g.outs, g.patch()).t());
        let threads = g.threads();
        let mut dx = vec![R::zero(); g.batch * g.input()];
        dx.par_chunks_mut(g.input()).zip(grad.par_chunks(g.outs * pixels)).for_each_init(
            || self.scratch(g),
            |columns, (dx, grad)| {
                let (grad, shape) = ((grad, Matrix::dense(g.outs, pixels)), Matrix::dense(g.patch(), pixels));
                self.add_columns(g, columns, dx, |columns| {
                    matmul((columns, shape), weight, grad, R::one(), false, threads);
                });
            },
        );
        dx
    }

    fn weight_grad<R: Real>(&self, g: &Geometry, x: &[R], grad: &[R]) -> Vec<R> {
        let pixels = g.pixels();
        let images = g.batch.div_ceil(PARTS).max(1);
        let threads = g.threads();
        let parts: Vec<Vec<R>> =
            (x.par_chunks(images * g.input()), grad.par_chunks(images * g.outs * pixels))
                .into_par_iter()
                .map(|(x, grad)| {
                    let mut d_weight = vec![R::zero(); g.outs * g.patch()];
                    let mut columns = self.scratch(g);
                    for (image, grad) in x.chunks(g.input()).zip(grad.chunks(g.outs * pixels)) {
                        let columns = self.columns(g, image, &mut columns);
                        matmul(
                            (&mut d_weight, Matrix::dense(g.outs, g.patch())),
                            (grad, Matrix::dense(g.outs, pixels)),
                            (columns, Matrix::dense(g.patch(), pixels).t()),
                            R::one(),
                            true,
                            threads,
                        );
                    }
                    d_weight
                })
                .collect();
        let mut parts = parts.into_iter();
        let mut sum = parts.next().unwrap_or_else(|| vec![R::zero(); g.outs * g.patch()]);
        parts.for_each(|part| sum.iter_mut().zip(part).for_each(|(s, p)| *s += p));
        sum
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{gradient_error, sample_tensor, tests::check};
    use crate::ops::add_to_channels;
    use candle_core::{DType, Var, WithDType};

    #[test]
    fn gradients() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
        check(Conv2d { stride: 1, padding: 1 }, &[t(&[3, 2, 4, 5], 1), t(&[3, 2, 3, 3], 2), t(&[3], 3)]);
        check(Conv2d { stride: 2, padding: 1 }, &[t(&[2, 2, 4, 6], 1), t(&[3, 2, 3, 3], 2), t(&[3], 3)]);
        check(Conv2d { stride: 1, padding: 0 }, &[t(&[5, 3, 2, 3], 1), t(&[2, 3, 1, 1], 2), t(&[2], 3)]);
        check(Conv2d { stride: 2, padding: 0 }, &[t(&[1, 2, 5, 5], 1), t(&[2, 2, 3, 3], 2), t(&[2], 3)]);
        check(Conv2d { stride: 1, padding: 1 }, &[t(&[3, 2, 4, 5], 1), t(&[3, 2, 3, 3], 2), t(&[3, 3], 3)]);
        assert!(conv2d(&t(&[2, 2, 4, 4], 1), &t(&[3, 2, 3, 3], 2), &t(&[1, 3], 3), 1, 1).is_err());
    }

    #[test]
    fn a_bias_of_each_image_is_a_number_added_to_its_channels() {
        // By definition, and in tiles.
        for (channels, side) in [(3, 5), (16, 8)] {
            let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
            let (x, weight) = (t(&[2, channels, side, side], 1), t(&[channels, channels, 3, 3], 2));
            let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let run = |apart: bool| {
                let bias = Var::from_tensor(&t(&[2, channels], 3)).unwrap();
                let y = match apart {
                    false => conv2d(&x, &weight, bias.as_tensor(), 1, 1).unwrap(),
                    true => {
                        let zero = Tensor::zeros(channels, DType::F64, x.device()).unwrap();
                        let y = conv2d(&x, &weight, &zero, 1, 1).unwrap();
                        add_to_channels(&y, bias.as_tensor()).unwrap()
                    }
                };
                let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                (numbers(&y), numbers(grads.get(&bias).unwrap()))
            };
            let (together, apart) = (run(false), run(true));
            for (a, b) in together.0.iter().zip(&apart.0).chain(together.1.iter().zip(&apart.1)) {
                assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }

    /// The product of the definition, by im2col.
    fn by_definition<R: Real>(x: &Tensor, weight: &Tensor, bias: &Tensor, grad: &[R]) -> [Vec<R>; 3] {
        let conv = Conv2d { stride: 1, padding: 1 };
        let g = conv.geometry(x.dims(), weight.dims());
        let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<R>().unwrap();
        let (x, w, b) = (numbers(x), numbers(weight), numbers(bias));
        let mut out = vec![R::zero(); g.batch * g.outs * g.pixels()];
        let mut scratch = conv.scratch(&g);
        for (out, image) in out.chunks_mut(g.outs * g.pixels()).zip(x.chunks(g.input())) {
            out.chunks_mut(g.pixels()).zip(&b).for_each(|(plane, b)| plane.fill(*b));
            let columns = (conv.columns(&g, image, &mut scratch), Matrix::dense(g.patch(), g.pixels()));
            let weight = (&*w, Matrix::dense(g.outs, g.patch()));
            matmul((out, Matrix::dense(g.outs, g.pixels())), weight, columns, R::one(), true, Threads::One);
        }
        [out, conv.input_grad(&g, &w, grad), conv.weight_grad(&g, &x, grad)]
    }

    fn worst<R: Real>(batch: usize, [outs, channels]: [usize; 2], [h, w]: [usize; 2]) -> [f64; 3] {
        let tensor = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap().to_dtype(R::DTYPE).unwrap();
        let (x, weight) = (tensor(&[batch, channels, h, w], 1), tensor(&[outs, channels, 3, 3], 2));
        let (bias, grad) = (tensor(&[outs], 3), tensor(&[batch, outs, h, w], 4));
        let grad = grad.flatten_all().unwrap().to_vec1::<R>().unwrap();
        let expected = by_definition::<R>(&x, &weight, &bias, &grad);
        let conv = Conv2d { stride: 1, padding: 1 };
        assert!(conv.tiling(&conv.geometry(x.dims(), weight.dims())).is_some(), "in tiles");
        let numbers = [&x, &weight, &bias].map(|t| t.flatten_all().unwrap().to_vec1::<R>().unwrap());
        let dims = [x.dims(), weight.dims(), bias.dims()];
        let views: Vec<View<R>> = numbers.iter().zip(dims).map(|(data, dims)| View { data, dims }).collect();
        let mut out = vec![R::zero(); expected[0].len()];
        conv.forward(&views, &mut out);
        let grads = conv.backward(&views, &out, &grad, &[true, true, false]);
        let found = [Some(out), grads[0].clone(), grads[1].clone()];
        std::array::from_fn(|i| {
            let largest = expected[i].iter().map(|e| WithDType::to_f64(*e).abs()).fold(0.0, f64::max);
            let apart = expected[i]
                .iter()
                .zip(found[i].as_ref().unwrap())
                .map(|(e, f)| WithDType::to_f64(*e - *f).abs());
            apart.fold(0.0, f64::max) / largest
        })
    }

    #[test]
    fn tiles_give_what_the_definition_does() {
        for (batch, channels, size) in [
            (2, [16, 17], [16, 16]),
            (1, [18, 16], [32, 32]),
            (3, [20, 33], [15, 17]),
            (1, [16, 24], [40, 13]),
            (2, [23, 16], [21, 50]),
            (1, [16, 16], [2, 130]),
            (21, [16, 18], [8, 8]),
            (7, [24, 16], [7, 9]),
            (2, [30, 31], [10, 8]),
        ] {
            let exact = worst::<f64>(batch, channels, size);
            assert!(exact.iter().all(|error| *error < 1e-14), "{channels:?} {size:?}: {exact:?}");
            let single = worst::<f32>(batch, channels, size);
            assert!(single.iter().all(|error| *error < 2e-6), "{channels:?} {size:?}: {single:?}");
        }
    }

    #[test]
    fn an_image_comes_out_bit_for_bit_the_same_among_any_others() {
        let numbers =
            |shape: &[usize], salt| sample_tensor(shape, salt).unwrap().to_dtype(DType::F32).unwrap();
        for (channels, size) in [(20, 8), (17, 20), (6, 9)] {
            let x = numbers(&[11, channels, size, size], 1);
            let (weight, bias) = (numbers(&[19, channels, 3, 3], 2), numbers(&[19], 3));
            let all = conv2d(&x, &weight, &bias, 1, 1).unwrap();
            for image in [0, 5, 10] {
                let alone = conv2d(&x.narrow(0, image, 1).unwrap(), &weight, &bias, 1, 1).unwrap();
                let among = all.narrow(0, image, 1).unwrap();
                let bits = |y: &Tensor| y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(bits(&alone), bits(&among), "{channels} channels, {size}×{size}, image {image}");
            }
        }
    }

    #[test]
    fn sizes_of_different_parity() {
        // candle 0.11.1's own backward fails here: "shape mismatch in add".
        let inputs = [
            sample_tensor(&[2, 2, 5, 8], 1).unwrap(),
            sample_tensor(&[3, 2, 3, 3], 2).unwrap(),
            sample_tensor(&[3], 3).unwrap(),
        ];
        let error = gradient_error(&inputs, |x| conv2d(&x[0], &x[1], &x[2], 2, 1)).unwrap();
        assert!(error < 1e-7, "{error}");
    }
}
