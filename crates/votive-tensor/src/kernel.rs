//! What an operation is: a forward and a backward on slices, and the same thing composed of candle's own ops.
//!
//! [`apply`] runs the slice version on the CPU and the composition on every other device, so an operation works
//! wherever candle works and is fast where it was written to be.

use crate::recorder::hand_over;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Storage, Tensor,
    WithDType,
};
use num_traits::{Float, NumAssign};

/// The two types that operations are computed in: f32 to train, f64 to check gradients.
pub trait Real: WithDType + Float + NumAssign + std::iter::Sum {
    /// The error function, in f32 by instructions that compilers turn into vectors; relative error below 2·10⁻⁷.
    fn erf_in<const FUSED: bool>(self) -> Self;

    /// eˣ, in f32 by a polynomial that compilers turn into vector instructions; relative error below 2·10⁻⁷.
    #[inline(always)]
    fn fast_exp(self) -> Self {
        self.exp_in::<false>()
    }

    /// The same in loops for machines that multiply and add in one instruction.
    fn exp_in<const FUSED: bool>(self) -> Self;

    /// The hyperbolic tangent, in f32 by instructions that compilers turn into vectors; relative error below 4·10⁻⁷.
    fn fast_tanh(self) -> Self;

    /// The largest of `values`, −∞ if there are none, in strands that compilers turn into vector instructions, more than one of which
    /// is compared at a time.
    #[inline(always)]
    fn largest(values: &[Self]) -> Self {
        let larger = |most: Self, value: Self| if value > most { value } else { most };
        let mut strands = [Self::neg_infinity(); 32];
        let (chunks, rest) = values.as_chunks::<32>();
        for chunk in chunks {
            strands.iter_mut().zip(chunk).for_each(|(strand, value)| *strand = larger(*strand, *value));
        }
        strands.iter().chain(rest).fold(Self::neg_infinity(), |most, value| larger(most, *value))
    }

    /// The sum of `values`, in eight strands that compilers turn into vector instructions.
    #[inline(always)]
    fn total(values: &[Self]) -> Self {
        let mut strands = [Self::zero(); 8];
        let (eights, rest) = values.as_chunks::<8>();
        for eight in eights {
            strands.iter_mut().zip(eight).for_each(|(strand, value)| *strand += *value);
        }
        strands.iter().chain(rest).fold(Self::zero(), |sum, value| sum + *value)
    }

    /// `value` in this type.
    fn of(value: f64) -> Self {
        <Self as WithDType>::from_f64(value)
    }
}

impl Real for f32 {
    #[inline(always)]
    fn erf_in<const FUSED: bool>(self) -> Self {
        // Near 0 x + x·P(x²), farther out 1 − exp(−t − t·Q(t)) with t = |x|, up to where 1 is the nearest number. Both
        // polynomials are least in their largest relative error, found by reweighted least squares in f64
        // (docs/log.md); both are computed, so that compilers find vectors.
        const NEAR: [f32; 6] =
            [-5.999_532e-4, 4.994_86e-3, -2.676_774_6e-2, 0.112_818_47, -0.376_124_98, 0.128_379_15];
        const FAR: [f32; 7] = [
            1.123_146_6e-5,
            -3.228_054e-4,
            3.642_465e-3,
            -2.376_207_5e-2,
            0.106_236_89,
            0.635_151_3,
            0.128_648_49,
        ];
        let add = |a: f32, b: f32, c: f32| if FUSED { a.mul_add(b, c) } else { a * b + c };
        let (x, t) = (self, self.abs());
        let capped = if t > 4.0 { 4.0 } else { t };
        let mut near = NEAR[0];
        for coefficient in &NEAR[1..] {
            near = add(near, x * x, *coefficient);
        }
        let mut far = FAR[0];
        for coefficient in &FAR[1..] {
            far = add(far, capped, *coefficient);
        }
        let far = (1.0 - add(-capped, far, -capped).exp_in::<FUSED>()).copysign(x);
        if t < 0.92 { add(x, near, x) } else { far }
    }

    #[inline(always)]
    fn exp_in<const FUSED: bool>(self) -> Self {
        // eˣ = 2ⁿ·eʳ with n = round(x/ln 2) and |r| ≤ ln 2/2. Adding 1.5·2²³ rounds, without a call that baseline
        // x86-64 lacks an instruction for; ln 2 comes in two parts so that n·ln 2 loses nothing.
        const ROUND: f32 = 12_582_912.0;
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let add = |a: f32, b: f32, c: f32| if FUSED { a.mul_add(b, c) } else { a * b + c };
        let x = self;
        let n = add(x, std::f32::consts::LOG2_E, ROUND);
        let scale = f32::from_bits((n.to_bits() << 23).wrapping_add(0x3f80_0000));
        let n = n - ROUND;
        let r = add(-n, LN2_LOW, add(-n, LN2_HIGH, x));
        let p = add(1.987_569_2e-4, r, 1.398_2e-3);
        let p = add(p, r, 8.333_452e-3);
        let p = add(p, r, 4.166_579_6e-2);
        let p = add(p, r, 0.166_666_66);
        let p = add(p, r, 0.5);
        let value = (add(p, r * r, r) + 1.0) * scale;
        // Near the ends of f32 the scale is not a normal number: 0 below, infinite above. NaN stays NaN.
        let value = if x < -87.3 { 0.0 } else { value };
        if x > 88.3 { f32::INFINITY } else { value }
    }

    fn fast_tanh(self) -> Self {
        // (1 − e)/(1 + e) with e = exp(−2|x|) loses digits near 0, where five terms of the series have them.
        let (x, square) = (self, self * self);
        let e = (-2.0 * x.abs()).fast_exp();
        let far = ((1.0 - e) / (1.0 + e)).copysign(x);
        let p = 2.186_949e-2 * square - 5.396_825_4e-2;
        let p = p * square + 0.133_333_33;
        let p = p * square - 0.333_333_33;
        let near = x + x * square * p;
        if x.abs() < 0.3 { near } else { far }
    }
}

impl Real for f64 {
    #[inline(always)]
    fn erf_in<const FUSED: bool>(self) -> Self {
        libm::erf(self)
    }

    #[inline(always)]
    fn exp_in<const FUSED: bool>(self) -> Self {
        self.exp()
    }

    fn fast_tanh(self) -> Self {
        self.tanh()
    }
}

/// A contiguous argument of a kernel: its numbers in row-major order, and its shape.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, R> {
    /// The numbers.
    pub data: &'a [R],
    /// The shape.
    pub dims: &'a [usize],
}

impl<R> View<'_, R> {
    /// Size of the last dimension.
    pub fn last(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }
}

/// An operation on one to three tensors of one floating type.
pub trait Kernel: Clone + Send + Sync + 'static {
    /// Name in error messages.
    const NAME: &'static str;

    /// Tensors that the operation reads but that get no gradient; their views follow those of the arguments.
    fn constants(&self) -> &[Tensor] {
        &[]
    }

    /// Shape of the result, by the shapes of the arguments.
    ///
    /// # Errors
    /// If the shapes of the arguments and constants don't fit together.
    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>>;

    /// Computes the result, whose numbers are zero at first.
    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]);

    /// Gradients of the arguments that are `wanted`, each with the number of elements of its argument.
    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        output: &[R],
        output_grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>>;

    /// The same function, composed of candle ops that have a right backward.
    ///
    /// # Errors
    /// Those of candle.
    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor>;
}

/// Applies a kernel to one, two or three tensors.
///
/// # Errors
/// If the shapes don't fit, the number types differ, or candle fails.
pub fn apply<K: Kernel>(kernel: K, inputs: &[&Tensor]) -> Result<Tensor> {
    let dims: Vec<&[usize]> = inputs.iter().map(|tensor| tensor.dims()).collect();
    kernel.shape(&dims)?;
    let dtype = inputs[0].dtype();
    let fused = inputs.iter().copied().chain(kernel.constants()).all(|tensor| {
        tensor.device().is_cpu() && tensor.dtype() == dtype && matches!(dtype, DType::F32 | DType::F64)
    });
    if !fused || kernel.constants().iter().any(|tensor| !tensor.is_contiguous()) {
        return kernel.composed(inputs);
    }
    let inputs = inputs.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
    match inputs.as_slice() {
        [a] => a.apply_op1(Fused(kernel)),
        [a, b] => a.apply_op2(b, Fused(kernel)),
        [a, b, c] => a.apply_op3(b, c, Fused(kernel)),
        _ => candle_core::bail!("{}: takes one to three tensors", K::NAME),
    }
}

/// A kernel as candle's custom op.
struct Fused<K>(K);

fn slice<'a, R: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [R]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "fused kernel" })?;
    Ok(&R::cpu_storage_as_slice(storage)?[start..end])
}

fn on_cpu<K: Kernel>(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => candle_core::bail!("{}: the fused kernel runs on the CPU", K::NAME),
    }
}

impl<K: Kernel> Fused<K> {
    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        match inputs[0].0 {
            CpuStorage::F32(_) => self.forward_in::<f32>(inputs),
            _ => self.forward_in::<f64>(inputs),
        }
    }

    fn forward_in<R: Real>(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let dims: Vec<&[usize]> = inputs.iter().map(|(_, layout)| layout.dims()).collect();
        let shape = Shape::from(self.0.shape(&dims)?);
        let constants: Vec<_> = self.0.constants().iter().map(Tensor::storage_and_layout).collect();
        let constants = constants.iter().map(|(storage, layout)| Ok((on_cpu::<K>(storage)?, *layout)));
        let views = inputs
            .iter()
            .map(|(storage, layout)| Ok((*storage, *layout)))
            .chain(constants)
            .map(|read: Result<_>| {
                let (storage, layout) = read?;
                Ok(View { data: slice::<R>(storage, layout)?, dims: layout.dims() })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut output = vec![R::zero(); shape.elem_count()];
        self.0.forward(&views, &mut output);
        Ok((R::to_cpu_storage_owned(output), shape))
    }

    fn backward(&self, inputs: &[&Tensor], output: &Tensor, grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        match inputs[0].dtype() {
            DType::F32 => self.backward_in::<f32>(inputs, output, grad),
            _ => self.backward_in::<f64>(inputs, output, grad),
        }
    }

    fn backward_in<R: Real>(
        &self,
        inputs: &[&Tensor],
        output: &Tensor,
        grad: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let wanted: Vec<bool> = inputs.iter().map(|tensor| tensor.track_op()).collect();
        let grad = grad.contiguous()?;
        let views = inputs.iter().copied().chain(self.0.constants());
        let read: Vec<_> = views.chain([output, &grad]).map(Tensor::storage_and_layout).collect();
        let views = read
            .iter()
            .map(|(storage, layout)| {
                Ok(View { data: slice::<R>(on_cpu::<K>(storage)?, layout)?, dims: layout.dims() })
            })
            .collect::<Result<Vec<View<R>>>>()?;
        let (views, results) = views.split_at(views.len() - 2);
        let grads = self.0.backward(views, results[0].data, results[1].data, &wanted);
        let hand_over = |(grad, input): (Option<Vec<R>>, &&Tensor)| match grad {
            Some(data) if input.track_op() => {
                hand_over(input, Tensor::from_vec(data, input.shape(), input.device())?)
            }
            _ => Ok(None),
        };
        grads.into_iter().zip(inputs).map(hand_over).collect()
    }
}

impl<K: Kernel> CustomOp1 for Fused<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(s, l)])
    }

    fn bwd(&self, arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backward(&[arg], res, grad)?.swap_remove(0))
    }
}

impl<K: Kernel> CustomOp2 for Fused<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[a, b], res, grad)?.into_iter();
        Ok((grads.next().flatten(), grads.next().flatten()))
    }
}

impl<K: Kernel> CustomOp3 for Fused<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2), (s3, l3)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[a, b, c], res, grad)?.into_iter();
        Ok((grads.next().flatten(), grads.next().flatten(), grads.next().flatten()))
    }
}

/// A matrix inside a slice: rows, columns and the distances between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl Matrix {
    /// A dense row-major matrix.
    pub(crate) fn dense(rows: usize, cols: usize) -> Self {
        Self::strided(rows, cols, cols)
    }

    /// A row-major matrix whose rows lie `row_stride` apart.
    pub(crate) fn strided(rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, on the same numbers.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn extent(self) -> usize {
        match (self.rows, self.cols) {
            (0, _) | (_, 0) => 0,
            (rows, cols) => (rows - 1) * self.row_stride + (cols - 1) * self.col_stride + 1,
        }
    }
}

/// Whether a product may use all threads, or is itself one of many that run in parallel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    All,
    One,
}

/// `out = alpha · a · b`, or `out += alpha · a · b` if `add`.
pub(crate) fn matmul<R: Real>(
    out: (&mut [R], Matrix),
    a: (&[R], Matrix),
    b: (&[R], Matrix),
    alpha: R,
    add: bool,
    threads: Threads,
) {
    let ((out, om), (a, am), (b, bm)) = (out, a, b);
    assert!(
        am.cols == bm.rows && om.rows == am.rows && om.cols == bm.cols,
        "matmul: {om:?} = {am:?} · {bm:?}"
    );
    assert!(
        om.extent() <= out.len() && am.extent() <= a.len() && bm.extent() <= b.len(),
        "matmul: slice too short"
    );
    let parallelism = match threads {
        Threads::All => gemm::Parallelism::Rayon(0),
        Threads::One => gemm::Parallelism::None,
    };
    // SAFETY: every index that the product touches was checked above to lie inside its slice, and `out` is borrowed
    // mutably, so it does not overlap `a` or `b`.
    unsafe {
        gemm::gemm(
            om.rows,
            om.cols,
            am.cols,
            out.as_mut_ptr(),
            om.col_stride as isize,
            om.row_stride as isize,
            add,
            a.as_ptr(),
            am.col_stride as isize,
            am.row_stride as isize,
            b.as_ptr(),
            bm.col_stride as isize,
            bm.row_stride as isize,
            R::one(),
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_exponential_is_as_good_as_f32_can_be() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            for found in [x.fast_exp(), x.exp_in::<true>()] {
                worst = worst.max((f64::from(found) - exact).abs() / exact);
            }
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!(0f32.fast_exp(), 1.0);
        assert_eq!((-200f32).fast_exp(), 0.0);
        assert_eq!(f32::NEG_INFINITY.fast_exp(), 0.0);
        assert_eq!(100f32.fast_exp(), f32::INFINITY);
        assert_eq!(f32::INFINITY.fast_exp(), f32::INFINITY);
        assert!(f32::NAN.fast_exp().is_nan());
    }

    #[test]
    fn the_error_function_is_as_good_as_f32_can_be() {
        let mut worst = 0.0f64;
        for i in -1_200_000i32..=1_200_000 {
            let x = i as f32 * 5e-6;
            let exact = libm::erf(f64::from(x));
            for found in [x.erf_in::<false>(), x.erf_in::<true>()] {
                worst = worst.max((f64::from(found) - exact).abs() / exact.abs().max(1e-30));
            }
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!([0f32, 100.0, f32::NEG_INFINITY].map(Real::erf_in::<false>), [0.0, 1.0, -1.0]);
        assert_eq!(1e-30f32.erf_in::<false>(), 1e-30 * (1.0 + 0.128_379_15));
        assert!(f32::NAN.erf_in::<false>().is_nan());
    }

    #[test]
    fn the_fast_tangent_is_as_good_as_f32_can_be() {
        let mut worst = 0.0f64;
        for i in -200_000i32..=200_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).tanh();
            worst = worst.max((f64::from(x.fast_tanh()) - exact).abs() / exact.abs().max(1e-30));
        }
        assert!(worst < 4e-7, "{worst}");
        assert_eq!([0f32, 100.0, f32::NEG_INFINITY].map(Real::fast_tanh), [0.0, 1.0, -1.0]);
        assert!(f32::NAN.fast_tanh().is_nan());
    }
}
