//! Loops in AVX2 with fused multiply-add whose vectors compilers do not find by themselves.

use super::POWER_OF_TWO;
use std::arch::x86_64::{
    __m256, _CMP_LT_OQ, _MM_HINT_T0, _mm_add_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_prefetch, _mm_storeu_ps,
    _mm_unpackhi_ps, _mm_unpacklo_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_andnot_ps, _mm256_broadcast_ss,
    _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_fmsub_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
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

/// As [`super::products`].
///
/// # Safety
/// `out` must have `H` rows of `length` numbers, a multiple of eight, `x` as many rows of `depth`, and `y` `depth` rows of
/// `length` that lie `stride` apart.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn products<const H: usize>(
    out: *mut f32,
    length: usize,
    x: *const f32,
    depth: usize,
    (y, stride): (*const f32, usize),
) {
    let mut at = 0;
    while at < length {
        // SAFETY: every address is a row and a place below the lengths that were promised.
        unsafe {
            // More sums than that, beside what they are made of, are more than the sixteen registers.
            if H <= 6 && at + 2 * LANES <= length {
                product_block::<H, 2>(out.add(at), length, x, depth, (y.add(at), stride));
                at += 2 * LANES;
            } else {
                product_block::<H, 1>(out.add(at), length, x, depth, (y.add(at), stride));
                at += LANES;
            }
        }
    }
}

/// `V` vectors of each row of [`products`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn product_block<const H: usize, const V: usize>(
    out: *mut f32,
    length: usize,
    x: *const f32,
    depth: usize,
    (y, stride): (*const f32, usize),
) {
    let mut sums = [[_mm256_setzero_ps(); V]; H];
    for d in 0..depth {
        // SAFETY: `d` is below the number of rows of `y` and the length of those of `x`.
        let y: [__m256; V] =
            std::array::from_fn(|v| unsafe { _mm256_loadu_ps(y.add(d * stride + v * LANES)) });
        for (h, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let x = _mm256_broadcast_ss(unsafe { &*x.add(h * depth + d) });
            for v in 0..V {
                sums[v] = _mm256_fmadd_ps(x, y[v], sums[v]);
            }
        }
    }
    for (h, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: row `h` of `out` has room for `V` vectors from here.
            unsafe { _mm256_storeu_ps(out.add(h * length + v * LANES), sum) };
        }
    }
}

/// As [`super::accumulate`].
///
/// # Safety
/// `out` must have `W` rows of `length` numbers, a multiple of eight, that lie `stride` apart, and `x` `H` rows of `length`.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn accumulate<const H: usize, const W: usize>(
    (out, stride): (*mut f32, usize),
    factors: [[f32; H]; W],
    x: *const f32,
    length: usize,
) {
    const ROWS: usize = 4;
    // Four rows of `x` at a time: their factors stay in registers.
    for first in (0..H).step_by(ROWS) {
        let mut same = [[_mm256_setzero_ps(); ROWS]; W];
        for (same, factors) in same.iter_mut().zip(&factors) {
            for (same, factor) in same.iter_mut().zip(&factors[first..]) {
                *same = _mm256_broadcast_ss(factor);
            }
        }
        for at in (0..length).step_by(LANES) {
            // SAFETY: `at + LANES` is at most `length`, for every row.
            unsafe {
                let mut sums = [_mm256_setzero_ps(); W];
                for (w, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(out.add(w * stride + at));
                }
                for row in 0..ROWS.min(H - first) {
                    let x = _mm256_loadu_ps(x.add((first + row) * length + at));
                    for (sum, same) in sums.iter_mut().zip(&same) {
                        *sum = _mm256_fmadd_ps(same[row], x, *sum);
                    }
                }
                for (w, sum) in sums.into_iter().enumerate() {
                    _mm256_storeu_ps(out.add(w * stride + at), sum);
                }
            }
        }
    }
}

/// As [`super::add_weighted_rows`].
///
/// # Safety
/// `out` must have eight rows of `width` numbers, a multiple of eight, `x` eight rows of at least `count` that lie `stride` apart, and `y`
/// `count` rows of `width`.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn add_weighted_rows(
    (out, width): (*mut f32, usize),
    (x, stride): (*const f32, usize),
    (y, count): (*const f32, usize),
) {
    for d in (0..width).step_by(LANES) {
        // SAFETY: `d + LANES` is at most `width`, and `i` is below the numbers of rows and of weights.
        unsafe {
            let mut sums = [_mm256_setzero_ps(); LANES];
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(out.add(row * width + d));
            }
            for i in 0..count {
                let y = _mm256_loadu_ps(y.add(i * width + d));
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_fmadd_ps(_mm256_broadcast_ss(&*x.add(row * stride + i)), y, *sum);
                }
            }
            for (row, sum) in sums.into_iter().enumerate() {
                _mm256_storeu_ps(out.add(row * width + d), sum);
            }
        }
    }
}

/// The sum of [`super::exponentials`] of whole vectors.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn exponentials_and_sum(values: &mut [[f32; LANES]], most: f32) -> f32 {
    let mut strands = [0.0; LANES];
    // SAFETY: the array is a vector long.
    unsafe { _mm256_storeu_ps(strands.as_mut_ptr(), exponentials(values, most)) };
    strands.iter().sum()
}

/// As [`super::exponentials`], for whole vectors alone; the sum is that of the numbers of the result.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exponentials(values: &mut [[f32; LANES]], most: f32) -> __m256 {
    let (most, mut sum) = (_mm256_set1_ps(most), _mm256_setzero_ps());
    for values in values {
        // SAFETY: the array is a vector long.
        let value = exponential(_mm256_sub_ps(unsafe { _mm256_loadu_ps(values.as_ptr()) }, most));
        sum = _mm256_add_ps(sum, value);
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), value) };
    }
    sum
}

/// eˣ of numbers that are not far above 0.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn exponential(x: __m256) -> __m256 {
    // As in `super::avx512`, and rounded as in `Real::exp_in`; nothing is far above 0 here, so that only what is far below needs care.
    let same = |value: f32| _mm256_set1_ps(value);
    let (log2_e, round) = (same(std::f32::consts::LOG2_E), same(12_582_912.0));
    let n = _mm256_fmadd_ps(x, log2_e, round);
    let scale = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
    let scale = _mm256_castsi256_ps(_mm256_add_epi32(scale, _mm256_set1_epi32(0x3f80_0000)));
    let f = _mm256_fmsub_ps(x, log2_e, _mm256_sub_ps(n, round));
    let mut value = same(POWER_OF_TWO[0]);
    for coefficient in &POWER_OF_TWO[1..] {
        value = _mm256_fmadd_ps(value, f, same(*coefficient));
    }
    let value = _mm256_mul_ps(value, scale);
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, same(-87.3)), value)
}

/// The sums of four vectors `(a … h)`, each in the order `((a + e) + (c + g)) + ((b + f) + (d + h))`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn totals(vectors: [__m256; 4]) -> [f32; 4] {
    // The upper half on the lower, for each vector.
    let [x, y, z, t] = vectors.map(|v| _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)));
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
