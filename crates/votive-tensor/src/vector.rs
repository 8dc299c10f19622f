//! Loops compiled a second time for wide vectors with fused multiply-add, where the machine has them.
//!
//! Programs are built for the oldest x86-64, which has neither; products that are not left to the matrix library go
//! through here.

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

/// `a · b + c`. Unfused where the machine has no instruction for it: a call to the C library for each number is slow.
#[inline(always)]
pub(crate) fn multiply_add<R: Real, const FUSED: bool>(a: R, b: R, c: R) -> R {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The dot products of `H` rows with `W` other ones, all of one length; each is summed in an order that the length alone
/// decides.
#[inline(always)]
pub(crate) fn dots<R: Real, const FUSED: bool, const H: usize, const W: usize>(
    x: [&[R]; H],
    y: [&[R]; W],
) -> [[R; H]; W] {
    let length = x.iter().chain(&y).map(|row| row.len()).min().unwrap_or(0);
    #[cfg(target_arch = "x86_64")]
    if FUSED && R::DTYPE == candle_core::DType::F32 {
        // Compilers do not find the vectors of this loop by themselves.
        // SAFETY: R is f32, every row has `length` numbers, and the processor has AVX2 and FMA where FUSED is said.
        return unsafe {
            let sums = avx2::dots(x.map(|row| row.as_ptr().cast()), y.map(|row| row.as_ptr().cast()), length);
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
    use std::arch::x86_64::{__m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps};

    /// Numbers in a vector.
    const LANES: usize = 8;

    /// As [`super::dots`].
    ///
    /// # Safety
    /// Every pointer must lead to `length` numbers.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn dots<const H: usize, const W: usize>(
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
                let y = unsafe { _mm256_loadu_ps(y[w].add(at)) };
                for h in 0..H {
                    sums[w][h] = _mm256_fmadd_ps(x[h], y, sums[w][h]);
                }
            }
            at += LANES;
        }
        let mut result = [[0.0; H]; W];
        for w in 0..W {
            for h in 0..H {
                let mut lanes = [0f32; LANES];
                // SAFETY: the array has room for a vector.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums[w][h]) };
                let [a, b, c, d, e, f, g, i] = lanes;
                let mut sum = ((a + e) + (c + g)) + ((b + f) + (d + i));
                for at in whole..length {
                    // SAFETY: `at` is below `length`.
                    sum = unsafe { (*x[h].add(at)).mul_add(*y[w].add(at), sum) };
                }
                result[w][h] = sum;
            }
        }
        result
    }
}
