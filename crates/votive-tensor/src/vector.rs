//! Loops compiled a second time for wide vectors with fused multiply-add, where the machine has them.
//!
//! Programs are built for the oldest x86-64, which has neither; products that are not left to the matrix library go
//! through here, and so does what is done number by number.

use crate::kernel::Real;

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

/// Numbers that are summed apart from each other, so that one addition need not wait for the one before.
const LANES: usize = 8;

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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _MM_HINT_T0, _mm_add_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_prefetch, _mm_storeu_ps,
        _mm_unpackhi_ps, _mm_unpacklo_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_setzero_ps,
    };

    /// Numbers in a vector, and in a line of a cache.
    const LANES: usize = 8;
    const LINE: usize = 16;

    /// As [`super::dots`].
    ///
    /// # Safety
    /// Every pointer must lead to `length` numbers.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn dots<const H: usize, const W: usize, const AHEAD: usize>(
        x: [*const f32; H],
        y: [*const f32; W],
        length: usize,
    ) -> [[f32; H]; W] {
        let mut sums = [[_mm256_setzero_ps(); H]; W];
        let whole = length / LANES * LANES;
        let mut at = 0;
        while at < whole {
            // SAFETY: `at + LANES` is at most `length`.
            let x: [__m256; H] = std::array::from_fn(|h| unsafe { _mm256_loadu_ps(x[h].add(at)) });
            for w in 0..W {
                // SAFETY: as above.
                if AHEAD > 0 && at.is_multiple_of(LINE) {
                    // A hint reads nothing, so it may point behind the end.
                    _mm_prefetch::<_MM_HINT_T0>(y[w].wrapping_add(at + AHEAD).cast());
                }
                let y = unsafe { _mm256_loadu_ps(y[w].add(at)) };
                for h in 0..H {
                    sums[w][h] = _mm256_fmadd_ps(x[h], y, sums[w][h]);
                }
            }
            at += LANES;
        }
        let mut result = [[0.0; H]; W];
        // Four vectors at a time: their sums take as long as one vector's.
        for first in (0..W * H).step_by(4) {
            let four = std::array::from_fn(|i| match first + i {
                at if at < W * H => sums[at / H][at % H],
                _ => _mm256_setzero_ps(),
            });
            for (i, sum) in totals(four).into_iter().enumerate().take(W * H - first) {
                result[(first + i) / H][(first + i) % H] = sum;
            }
        }
        for at in whole..length {
            for w in 0..W {
                for h in 0..H {
                    // SAFETY: `at` is below `length`.
                    result[w][h] = unsafe { (*x[h].add(at)).mul_add(*y[w].add(at), result[w][h]) };
                }
            }
        }
        result
    }

    /// The sums of four vectors `(a … h)`, each in the order `((a + e) + (c + g)) + ((b + f) + (d + h))`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn totals(vectors: [__m256; 4]) -> [f32; 4] {
        // The upper half on the lower, for each vector.
        let [x, y, z, t] =
            vectors.map(|v| _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)));
        // Rows to columns.
        let (low, high) = (_mm_unpacklo_ps(x, y), _mm_unpackhi_ps(x, y));
        let (other_low, other_high) = (_mm_unpacklo_ps(z, t), _mm_unpackhi_ps(z, t));
        let columns = [
            _mm_movelh_ps(low, other_low),
            _mm_movehl_ps(other_low, low),
            _mm_movelh_ps(high, other_high),
            _mm_movehl_ps(other_high, high),
        ];
        let sums = _mm_add_ps(_mm_add_ps(columns[0], columns[2]), _mm_add_ps(columns[1], columns[3]));
        let mut result = [0f32; 4];
        // SAFETY: the array has room for a vector.
        unsafe { _mm_storeu_ps(result.as_mut_ptr(), sums) };
        result
    }
}
