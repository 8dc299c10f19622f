//! Loops compiled a second time for wide vectors with fused multiply-add, where the machine has them.
//!
//! Programs are built for the oldest x86-64, which has neither; products that are not left to the matrix library go
//! through here, and so does what is done number by number.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
mod wide;

use crate::kernel::Real;
pub(crate) use lanes::{Lanes, LanesLoop, columns, load_all, run_lanes, store_all, transpose};
pub(crate) use wide::{MOST, Wide, WideLoop, run_wide};

/// A loop over slices. `run` must be `#[inline(always)]`, and so must everything it calls, or it is compiled only once.
pub(crate) trait Loop {
    /// Runs the loop; with `FUSED` the machine multiplies and adds in one instruction.
    fn run<const FUSED: bool>(self);
}

/// Runs a loop with the widest vectors of this machine.
pub(crate) fn run(job: impl Loop) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has what the function is compiled for.
        unsafe { run_avx2(job) };
        return;
    }
    job.run::<{ cfg!(target_arch = "aarch64") }>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(job: impl Loop) {
    job.run::<true>();
}

/// `out[i] = function(x[i])`.
pub(crate) fn map<R: Real>(out: &mut [R], x: &[R], function: impl Fn(R) -> R) {
    struct Map<'a, R, F>(&'a mut [R], &'a [R], F);
    impl<R: Real, F: Fn(R) -> R> Loop for Map<'_, R, F> {
        #[inline(always)]
        fn run<const FUSED: bool>(self) {
            let Self(out, x, function) = self;
            out.iter_mut().zip(x).for_each(|(out, x)| *out = function(*x));
        }
    }
    run(Map(out, x, function));
}

/// `out[i] = function(x[i], y[i])`.
pub(crate) fn zip_map<R: Real>(out: &mut [R], [x, y]: [&[R]; 2], function: impl Fn(R, R) -> R) {
    struct ZipMap<'a, R, F>(&'a mut [R], [&'a [R]; 2], F);
    impl<R: Real, F: Fn(R, R) -> R> Loop for ZipMap<'_, R, F> {
        #[inline(always)]
        fn run<const FUSED: bool>(self) {
            let Self(out, [x, y], function) = self;
            out.iter_mut().zip(x).zip(y).for_each(|((out, x), y)| *out = function(*x, *y));
        }
    }
    run(ZipMap(out, [x, y], function));
}

/// `out[i] = function(out[i], x[i])`.
pub(crate) fn update<R: Real>(out: &mut [R], x: &[R], function: impl Fn(R, R) -> R) {
    struct Update<'a, R, F>(&'a mut [R], &'a [R], F);
    impl<R: Real, F: Fn(R, R) -> R> Loop for Update<'_, R, F> {
        #[inline(always)]
        fn run<const FUSED: bool>(self) {
            let Self(out, x, function) = self;
            out.iter_mut().zip(x).for_each(|(out, x)| *out = function(*out, *x));
        }
    }
    run(Update(out, x, function));
}

/// `Σ function(x[i], y[i])`, in an order that the length alone decides.
pub(crate) fn sum<R: Real, const N: usize>([x, y]: [&[R]; 2], function: impl Fn(R, R) -> [R; N]) -> [R; N] {
    struct Sum<'a, R, F, const N: usize>([&'a [R]; 2], F, &'a mut [R; N]);
    impl<R: Real, F: Fn(R, R) -> [R; N], const N: usize> Loop for Sum<'_, R, F, N> {
        #[inline(always)]
        fn run<const FUSED: bool>(self) {
            let Self([x, y], function, result) = self;
            let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
            let mut sums = [[R::zero(); LANES]; N];
            for (x, y) in xs.iter().zip(ys) {
                for lane in 0..LANES {
                    let values = function(x[lane], y[lane]);
                    (0..N).for_each(|n| sums[n][lane] += values[n]);
                }
            }
            for (lane, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
                let values = function(*x, *y);
                (0..N).for_each(|n| sums[n][lane] += values[n]);
            }
            *result = sums.map(|lanes| lanes.into_iter().sum());
        }
    }
    let mut result = [R::zero(); N];
    run(Sum([x, y], function, &mut result));
    result
}

/// `a · b + c`. Unfused where the machine has no instruction for it: a call to the C library for each number is slow.
#[inline(always)]
pub(crate) fn multiply_add<R: Real, const FUSED: bool>(a: R, b: R, c: R) -> R {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The dot products of `H` rows with `W` other ones, all of one length; each is summed in an order that the length alone
/// decides. Memory is asked for the numbers that lie `AHEAD` behind those of the other rows, if that is above 0.
#[inline(always)]
pub(crate) fn dots<R: Real, const FUSED: bool, const H: usize, const W: usize, const AHEAD: usize>(
    x: [&[R]; H],
    y: [&[R]; W],
) -> [[R; H]; W] {
    let length = x.iter().chain(&y).map(|row| row.len()).min().unwrap_or(0);
    #[cfg(target_arch = "x86_64")]
    if FUSED && R::DTYPE == candle_core::DType::F32 {
        // Compilers do not find the vectors of this loop by themselves.
        // SAFETY: R is f32, every row has `length` numbers, and the processor has AVX2 and FMA where FUSED is said.
        return unsafe {
            let sums = avx2::dots::<H, W, AHEAD>(
                x.map(|row| row.as_ptr().cast()),
                y.map(|row| row.as_ptr().cast()),
                length,
            );
            std::mem::transmute_copy(&sums)
        };
    }
    let mut sums = [[R::zero(); H]; W];
    for (sums, y) in sums.iter_mut().zip(y) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = dot::<R, FUSED>(&x[..length], &y[..length]);
        }
    }
    sums
}

/// `out[h][i] = Σ_d x[h][d] · y[d][i]` for `H` rows, dense in `out` and `x`; the rows of `y` lie `stride` apart.
///
/// Rows of `out` have `length` numbers, a multiple of [`LANES`], those of `x` `depth`.
#[inline(always)]
pub(crate) fn products<R: Real, const FUSED: bool, const H: usize>(
    (out, length): (&mut [R], usize),
    (x, depth): (&[R], usize),
    (y, stride): (&[R], usize),
) {
    let (out, x) = (&mut out[..H * length], &x[..H * depth]);
    assert!(
        length.is_multiple_of(LANES) && (depth == 0 || (depth - 1) * stride + length <= y.len()),
        "products"
    );
    #[cfg(target_arch = "x86_64")]
    if FUSED && R::DTYPE == candle_core::DType::F32 {
        let (out, x, y) = (out.as_mut_ptr().cast(), x.as_ptr().cast(), (y.as_ptr().cast(), stride));
        // SAFETY: R is f32, the lengths were checked above, and the processor has AVX2 and FMA where FUSED is said.
        unsafe {
            match length.is_multiple_of(avx512::LANES) && avx512::is_here() {
                true => avx512::products::<H>(out, length, x, depth, y),
                false => avx2::products::<H>(out, length, x, depth, y),
            }
        }
        return;
    }
    out.fill(R::zero());
    for (out, x) in out.chunks_mut(length.max(1)).zip(x.chunks(depth.max(1))) {
        for (d, x) in x.iter().enumerate() {
            let y = &y[d * stride..d * stride + length];
            out.iter_mut().zip(y).for_each(|(out, y)| *out = multiply_add::<R, FUSED>(*x, *y, *out));
        }
    }
}

/// `out[w][i] += Σ_h factors[w][h] · x[h][i]` for `W` rows of `out`, which lie `stride` apart; `x` has `H` dense rows of
/// `length` numbers, a multiple of [`LANES`].
#[inline(always)]
pub(crate) fn accumulate<R: Real, const FUSED: bool, const H: usize, const W: usize>(
    (out, stride): (&mut [R], usize),
    factors: [[R; H]; W],
    (x, length): (&[R], usize),
) {
    let x = &x[..H * length];
    assert!(length.is_multiple_of(LANES) && (W - 1) * stride + length <= out.len(), "accumulate");
    #[cfg(target_arch = "x86_64")]
    if FUSED && R::DTYPE == candle_core::DType::F32 {
        // SAFETY: R is f32, the lengths were checked above, and the processor has AVX2 and FMA where FUSED is said.
        unsafe {
            let factors: [[f32; H]; W] = std::mem::transmute_copy(&factors);
            let (out, x) = ((out.as_mut_ptr().cast(), stride), x.as_ptr().cast());
            match length.is_multiple_of(avx512::LANES) && avx512::is_here() {
                true => avx512::accumulate::<H, W>(out, factors, x, length),
                false => avx2::accumulate::<H, W>(out, factors, x, length),
            }
        }
        return;
    }
    for (w, factors) in factors.into_iter().enumerate() {
        let out = &mut out[w * stride..w * stride + length];
        for (x, factor) in x.chunks(length.max(1)).zip(factors) {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = multiply_add::<R, FUSED>(factor, *x, *out));
        }
    }
}

/// `out[r][d] += Σ_i x[r][i] · y[i][d]` for [`LANES`] rows of `out`, dense, of `width` numbers, a multiple of [`LANES`]; those of `x` lie `stride`
/// apart, and `y` has `count` dense rows.
#[inline(always)]
pub(crate) fn add_weighted_rows<R: Real, const FUSED: bool>(
    (out, width): (&mut [R], usize),
    (x, stride): (&[R], usize),
    (y, count): (&[R], usize),
) {
    let (out, y) = (&mut out[..LANES * width], &y[..count * width]);
    assert!(
        width.is_multiple_of(LANES) && count <= stride && (LANES - 1) * stride + count <= x.len(),
        "add_weighted_rows"
    );
    #[cfg(target_arch = "x86_64")]
    if FUSED && R::DTYPE == candle_core::DType::F32 {
        let (out, x, y) = (out.as_mut_ptr().cast(), x.as_ptr().cast(), y.as_ptr().cast());
        // SAFETY: R is f32, the lengths were checked above, and the processor has AVX2 and FMA where FUSED is said.
        unsafe {
            match width.is_multiple_of(avx512::LANES) && avx512::is_here() {
                true => avx512::add_weighted_rows((out, width), (x, stride), (y, count)),
                false => avx2::add_weighted_rows((out, width), (x, stride), (y, count)),
            }
        }
        return;
    }
    for (out, x) in out.chunks_mut(width.max(1)).zip(x.chunks(stride.max(1))) {
        for (y, x) in y.chunks(width.max(1)).zip(x) {
            out.iter_mut().zip(y).for_each(|(out, y)| *out = multiply_add::<R, FUSED>(*x, *y, *out));
        }
    }
}

/// Coefficients of 2ᶠ for |f| ≤ ½, from f⁵ down, where its largest relative error is least, 2·10⁻⁷ in f32 (found by reweighted least
/// squares, docs/log.md).
#[cfg(target_arch = "x86_64")]
const POWER_OF_TWO: [f32; 6] =
    [1.330_026_4e-3, 9.669_708e-3, 5.550_56e-2, 0.240_222_81, std::f32::consts::LN_2, 1.0];

/// `values[i] = exp(values[i] − most)`, none of which is above `most`; gives their sum, in an order that the length alone
/// decides.
#[inline(always)]
pub(crate) fn exponentials<R: Real, const FUSED: bool>(values: &mut [R], most: R) -> R {
    let (mut sum, mut rest) = (R::zero(), values);
    #[cfg(target_arch = "x86_64")]
    if FUSED && R::DTYPE == candle_core::DType::F32 {
        // Compilers vectorize a loop that exponentiates and sums only in part.
        // SAFETY: R is f32, and the processor has AVX2 and FMA where FUSED is said.
        unsafe {
            let most = std::mem::transmute_copy(&most);
            let in_r = |sum: f32| R::of(f64::from(sum));
            if avx512::is_here() {
                let (whole, behind) = rest.as_chunks_mut::<{ avx512::LANES }>();
                let whole = std::slice::from_raw_parts_mut(whole.as_mut_ptr().cast(), whole.len());
                (sum, rest) = (in_r(avx512::exponentials_and_sum(whole, most)), behind);
            }
            let (whole, behind) = rest.as_chunks_mut::<LANES>();
            let whole = std::slice::from_raw_parts_mut(whole.as_mut_ptr().cast(), whole.len());
            (sum, rest) = (sum + in_r(avx2::exponentials_and_sum(whole, most)), behind);
        }
    }
    rest.iter_mut().for_each(|value| *value = (*value - most).exp_in::<FUSED>());
    sum + R::total(rest)
}

/// Asks the memory for the beginning of a slice that is read next, while something else is computed: a processor's own
/// foresight ends with the row it is in.
#[inline(always)]
pub(crate) fn fetch<R>(next: &[R]) {
    /// A part of the nearest cache.
    const MOST_BYTES: usize = 1 << 13;
    const LINE: usize = 64;
    #[cfg(target_arch = "x86_64")]
    for line in next.iter().step_by(LINE / size_of::<R>()).take(MOST_BYTES / LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint reads nothing, and the address is that of a number.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (next, MOST_BYTES, LINE);
}

/// Numbers of a vector: they are summed apart from each other, so that one addition need not wait for the one before.
pub(crate) const LANES: usize = 8;

#[inline(always)]
fn dot<R: Real, const FUSED: bool>(x: &[R], y: &[R]) -> R {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = [R::zero(); LANES];
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            sums[lane] = multiply_add::<R, FUSED>(x[lane], y[lane], sums[lane]);
        }
    }
    let rest = x_rest.iter().zip(y_rest);
    let sum = sums.into_iter().sum();
    rest.fold(sum, |sum, (x, y)| multiply_add::<R, FUSED>(*x, *y, sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::WithDType;

    /// Numbers around 0, of a kind for every `salt`.
    fn numbers<R: Real>(count: usize, salt: u64) -> Vec<R> {
        let draw = |i: u64| ((i * 2_654_435_761 + salt * 40_503) % 10_007) as f64 / 5_003.5 - 1.0;
        (0..count as u64).map(|i| <R as WithDType>::from_f64(draw(i))).collect()
    }

    /// What the loops here make of some numbers, one after the other.
    struct Loops<'a, R>(&'a mut Vec<R>);

    impl<R: Real> Loop for Loops<'_, R> {
        #[inline(always)]
        fn run<const FUSED: bool>(self) {
            for length in [LANES, 2 * LANES, 5 * LANES] {
                for depth in [1, 3, 8, 33] {
                    let (x, y) = (numbers(6 * depth, 1), numbers(depth * (length + 5), 2));
                    let mut out = vec![R::one(); 6 * length];
                    products::<R, FUSED, 6>((&mut out, length), (&x, depth), (&y, length + 5));
                    self.0.extend(&out);
                    products::<R, FUSED, 1>((&mut out, length), (&x, depth), (&y, length + 5));
                    self.0.extend(&out[..length]);
                }
                let factors =
                    std::array::from_fn(|w| std::array::from_fn(|h| R::of((w + 2 * h) as f64 / 7.0)));
                let mut out = numbers(2 * (length + 3), 4);
                accumulate::<R, FUSED, 4, 2>(
                    (&mut out, length + 3),
                    factors,
                    (&numbers(4 * length, 5), length),
                );
                self.0.extend(out);
                for width in [LANES, 2 * LANES, 3 * LANES] {
                    let mut out = numbers(LANES * width, 6);
                    let (x, y) = (numbers(LANES * length, 7), numbers((length - 3) * width, 8));
                    add_weighted_rows::<R, FUSED>((&mut out, width), (&x, length), (&y, length - 3));
                    self.0.extend(out);
                }
            }
            for length in [1, 7, 8, 9, 40, 1021] {
                let (x, y): ([Vec<R>; 4], [Vec<R>; 2]) = (
                    std::array::from_fn(|i| numbers(length, i as u64)),
                    std::array::from_fn(|i| numbers(length, 9 + i as u64)),
                );
                let sums = dots::<R, FUSED, 4, 2, 0>(
                    x.each_ref().map(Vec::as_slice),
                    y.each_ref().map(Vec::as_slice),
                );
                self.0.extend(sums.as_flattened());
                let mut values: Vec<R> =
                    numbers(length, 3).into_iter().map(|value: R| value * R::of(50.0)).collect();
                let sum = exponentials::<R, FUSED>(&mut values, R::of(50.0));
                self.0.extend(values);
                self.0.push(sum);
            }
        }
    }

    #[test]
    fn single_precision_on_this_machine_is_double_precision_but_for_rounding() {
        let (mut single, mut double): (Vec<f32>, Vec<f64>) = (vec![], vec![]);
        run(Loops(&mut single));
        run(Loops(&mut double));
        assert_eq!(single.len(), double.len());
        for (i, (found, expected)) in single.iter().zip(&double).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(error < 4e-6 * expected.abs().max(1.0), "number {i}: {found} for {expected}");
        }
    }

    #[test]
    fn exponentials_of_what_no_number_is() {
        struct Odd<'a>(&'a mut [f32], &'a mut f32);
        impl Loop for Odd<'_> {
            #[inline(always)]
            fn run<const FUSED: bool>(self) {
                *self.1 = exponentials::<f32, FUSED>(self.0, 0.0);
            }
        }
        let mut sum = 0.0;
        let mut values = [f32::NEG_INFINITY; 19];
        (values[2], values[18]) = (0.0, -0.0);
        run(Odd(&mut values, &mut sum));
        assert_eq!((sum, values[2], values[18], values[3]), (2.0, 1.0, 1.0, 0.0));
        values[5] = f32::NAN;
        run(Odd(&mut values, &mut sum));
        assert!(sum.is_nan() && values[5].is_nan());
    }
}
