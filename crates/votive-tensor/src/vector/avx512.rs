//! Loops in AVX-512, for processors that have it, which halve the instructions of those in [`super::avx2`].

use super::POWER_OF_TWO;
use std::arch::x86_64::{
    __m512, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm512_add_ps, _mm512_fmadd_ps, _mm512_fmsub_ps,
    _mm512_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

/// Numbers in a vector.
pub(super) const LANES: usize = 16;

/// Whether this processor has what the functions here are compiled for.
#[inline(always)]
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// As [`super::products`].
///
/// # Safety
/// `out` must have `H` rows of `length` numbers, a multiple of sixteen, `x` as many rows of `depth`, and `y` `depth` rows of
/// `length` that lie `stride` apart.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn products<const H: usize>(
    out: *mut f32,
    length: usize,
    x: *const f32,
    depth: usize,
    (y, stride): (*const f32, usize),
) {
    for at in (0..length).step_by(LANES) {
        let mut sums = [_mm512_setzero_ps(); H];
        for d in 0..depth {
            // SAFETY: `d` is below the number of rows of `y` and the length of those of `x`, `at + LANES` at most `length`.
            let y = unsafe { _mm512_loadu_ps(y.add(d * stride + at)) };
            for (h, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(unsafe { *x.add(h * depth + d) }), y, *sum);
            }
        }
        for (h, sum) in sums.into_iter().enumerate() {
            // SAFETY: row `h` of `out` has room for a vector from here.
            unsafe { _mm512_storeu_ps(out.add(h * length + at), sum) };
        }
    }
}

/// As [`super::accumulate`].
///
/// # Safety
/// `out` must have `W` rows of `length` numbers, a multiple of sixteen, that lie `stride` apart, and `x` `H` rows of `length`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn accumulate<const H: usize, const W: usize>(
    (out, stride): (*mut f32, usize),
    factors: [[f32; H]; W],
    x: *const f32,
    length: usize,
) {
    let mut same = [[_mm512_setzero_ps(); H]; W];
    for (same, factors) in same.iter_mut().zip(&factors) {
        for (same, factor) in same.iter_mut().zip(factors) {
            *same = _mm512_set1_ps(*factor);
        }
    }
    for at in (0..length).step_by(LANES) {
        // SAFETY: `at + LANES` is at most `length`, for every row.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); W];
            for (w, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(out.add(w * stride + at));
            }
            for h in 0..H {
                let x = _mm512_loadu_ps(x.add(h * length + at));
                for (sum, same) in sums.iter_mut().zip(&same) {
                    *sum = _mm512_fmadd_ps(same[h], x, *sum);
                }
            }
            for (w, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(out.add(w * stride + at), sum);
            }
        }
    }
}

/// As [`super::add_weighted_rows`].
///
/// # Safety
/// As [`super::avx2::add_weighted_rows`], with `width` a multiple of sixteen.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn add_weighted_rows(
    (out, width): (*mut f32, usize),
    (x, stride): (*const f32, usize),
    (y, count): (*const f32, usize),
) {
    for d in (0..width).step_by(LANES) {
        // SAFETY: `d + LANES` is at most `width`, and `i` is below the numbers of rows and of weights.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); super::LANES];
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(out.add(row * width + d));
            }
            for i in 0..count {
                let y = _mm512_loadu_ps(y.add(i * width + d));
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_fmadd_ps(_mm512_set1_ps(*x.add(row * stride + i)), y, *sum);
                }
            }
            for (row, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(out.add(row * width + d), sum);
            }
        }
    }
}

/// The sum of [`super::exponentials`] of whole vectors.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exponentials_and_sum(values: &mut [[f32; LANES]], most: f32) -> f32 {
    _mm512_reduce_add_ps(exponentials(values, most))
}

/// As [`super::exponentials`], for whole vectors alone; the sum is that of the numbers of the result.
#[inline]
#[target_feature(enable = "avx512f")]
fn exponentials(values: &mut [[f32; LANES]], most: f32) -> __m512 {
    let (most, mut sum) = (_mm512_set1_ps(most), _mm512_setzero_ps());
    for values in values {
        // SAFETY: the array is a vector long.
        let value = exponential(_mm512_sub_ps(unsafe { _mm512_loadu_ps(values.as_ptr()) }, most));
        sum = _mm512_add_ps(sum, value);
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), value) };
    }
    sum
}

/// eˣ of numbers that are not far above 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exponential(x: __m512) -> __m512 {
    // eˣ = 2ⁿ·2ᶠ with n + f = x/ln 2; the product is rounded once, after n is taken away. The instruction that scales by 2ⁿ ends
    // in 0 by itself.
    let same = |value: f32| _mm512_set1_ps(value);
    let log2_e = same(std::f32::consts::LOG2_E);
    // The second one is kept where one of them is not a number.
    let x = _mm512_max_ps(same(-110.0), x);
    let n = _mm512_mul_ps(x, log2_e);
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n);
    let f = _mm512_fmsub_ps(x, log2_e, n);
    let mut value = same(POWER_OF_TWO[0]);
    for coefficient in &POWER_OF_TWO[1..] {
        value = _mm512_fmadd_ps(value, f, same(*coefficient));
    }
    _mm512_scalef_ps(value, n)
}
