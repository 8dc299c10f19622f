//! As many numbers as a vector of the machine holds, by name: for loops whose lanes have nothing to do with each other.

use super::{LANES, Loop};
use crate::kernel::Real;

/// A vector. `#[inline(always)]` on every method, as on everything that a [`WideLoop`] calls.
pub(crate) trait Wide<R>: Copy {
    /// Numbers of a vector, at most [`MOST`].
    const COUNT: usize;

    /// The first numbers of a slice, which must have as many.
    fn load(from: &[R]) -> Self;
    fn store(self, to: &mut [R]);
    fn same(value: R) -> Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// `self · factor + addend`.
    fn times_plus(self, factor: Self, addend: Self) -> Self;
    /// The larger ones; `other` where one of them is not a number.
    fn or_larger(self, other: Self) -> Self;
    /// Whether any number is above its counterpart.
    fn is_above(self, other: Self) -> bool;
    /// These numbers, but `instead` where one is above another.
    fn replaced_where(self, one: Self, is_above: Self, instead: Self) -> Self;
    /// eˣ for numbers that are not far above 0, which −∞ is not either.
    fn exponential(self) -> Self;
}

/// Numbers of the longest vector of any machine.
pub(crate) const MOST: usize = 16;

/// A loop over [`Wide`] vectors.
pub(crate) trait WideLoop<R: Real> {
    /// Runs the loop.
    fn run<W: Wide<R>>(self);
}

/// Runs a loop with the longest vectors of this machine.
pub(crate) fn run_wide<R: Real>(job: impl WideLoop<R>) {
    #[cfg(target_arch = "x86_64")]
    if R::DTYPE == candle_core::DType::F32 && super::avx512::is_here() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { machine::run_sixteen(job) };
    }
    super::run(Eight(job, std::marker::PhantomData));
}

/// A loop over vectors of eight numbers.
struct Eight<J, R>(J, std::marker::PhantomData<R>);

impl<R: Real, J: WideLoop<R>> Loop for Eight<J, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        #[cfg(target_arch = "x86_64")]
        if FUSED && R::DTYPE == candle_core::DType::F32 {
            return self.0.run::<machine::Eight>();
        }
        self.0.run::<Array<R, FUSED>>();
    }
}

/// Numbers that compilers may find vectors for.
#[derive(Clone, Copy)]
pub(super) struct Array<R, const FUSED: bool>(pub(super) [R; LANES]);

impl<R: Real, const FUSED: bool> Wide<R> for Array<R, FUSED> {
    const COUNT: usize = LANES;

    #[inline(always)]
    fn load(from: &[R]) -> Self {
        Self(std::array::from_fn(|i| from[i]))
    }

    #[inline(always)]
    fn store(self, to: &mut [R]) {
        to[..LANES].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn same(value: R) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        let at = |i: usize| super::multiply_add::<R, FUSED>(self.0[i], factor.0[i], addend.0[i]);
        Self(std::array::from_fn(at))
    }

    #[inline(always)]
    fn or_larger(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] > other.0[i] { self.0[i] } else { other.0[i] }))
    }

    #[inline(always)]
    fn is_above(self, other: Self) -> bool {
        self.0.iter().zip(&other.0).any(|(this, other)| this > other)
    }

    #[inline(always)]
    fn replaced_where(self, one: Self, is_above: Self, instead: Self) -> Self {
        let at = |i: usize| if one.0[i] > is_above.0[i] { instead.0[i] } else { self.0[i] };
        Self(std::array::from_fn(at))
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].exp_in::<FUSED>()))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod machine {
    use super::super::{avx2, avx512};
    use super::{LANES, MOST, Wide, WideLoop};
    use crate::kernel::Real;
    use std::arch::x86_64::{
        __m256, __m512, _CMP_GT_OQ, _mm256_add_ps, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_max_ps, _mm256_movemask_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps,
        _mm256_sub_ps, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_mask_blend_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };

    #[target_feature(enable = "avx512f")]
    pub(super) fn run_sixteen<R: Real>(job: impl WideLoop<R>) {
        job.run::<Sixteen>();
    }

    /// f32 in a register. Only [`super::run_wide`] and `run_lanes` pick these two, for loops over f32 on processors that have AVX2 and FMA or AVX-512, which
    /// is what every unsafe block here relies on.
    #[derive(Clone, Copy)]
    pub(in crate::vector) struct Eight(pub(in crate::vector) __m256);

    #[derive(Clone, Copy)]
    pub(super) struct Sixteen(__m512);

    macro_rules! wide {
        ($name:ident, $count:expr, $exponential:path, $compare:ident, $any:expr, $replaced:expr,
         $load:ident, $store:ident, $same:ident, $plus:ident, $minus:ident, $times:ident, $times_plus:ident, $larger:ident) => {
            impl<R: Real> Wide<R> for $name {
                const COUNT: usize = $count;

                #[inline(always)]
                fn load(from: &[R]) -> Self {
                    // SAFETY: see Eight; the slice is long enough.
                    Self(unsafe { $load(from[..$count].as_ptr().cast()) })
                }

                #[inline(always)]
                fn store(self, to: &mut [R]) {
                    // SAFETY: as above.
                    unsafe { $store(to[..$count].as_mut_ptr().cast(), self.0) };
                }

                #[inline(always)]
                fn same(value: R) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $same(std::mem::transmute_copy(&value)) })
                }

                #[inline(always)]
                fn plus(self, other: Self) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $plus(self.0, other.0) })
                }

                #[inline(always)]
                fn minus(self, other: Self) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $minus(self.0, other.0) })
                }

                #[inline(always)]
                fn times(self, other: Self) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $times(self.0, other.0) })
                }

                #[inline(always)]
                fn times_plus(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $times_plus(self.0, factor.0, addend.0) })
                }

                #[inline(always)]
                fn or_larger(self, other: Self) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $larger(self.0, other.0) })
                }

                #[inline(always)]
                fn is_above(self, other: Self) -> bool {
                    // SAFETY: see Eight.
                    unsafe { $any($compare::<_CMP_GT_OQ>(self.0, other.0)) }
                }

                #[inline(always)]
                fn replaced_where(self, one: Self, is_above: Self, instead: Self) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $replaced(self.0, instead.0, $compare::<_CMP_GT_OQ>(one.0, is_above.0)) })
                }

                #[inline(always)]
                fn exponential(self) -> Self {
                    // SAFETY: see Eight.
                    Self(unsafe { $exponential(self.0) })
                }
            }
        };
    }

    wide!(
        Eight,
        LANES,
        avx2::exponential,
        _mm256_cmp_ps,
        |mask| _mm256_movemask_ps(mask) != 0,
        _mm256_blendv_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps
    );
    wide!(
        Sixteen,
        MOST,
        avx512::exponential,
        _mm512_cmp_ps_mask,
        |mask| mask != 0,
        |this, other, mask| _mm512_mask_blend_ps(mask, this, other),
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_max_ps
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method on sixteen pairs of numbers, lane by lane.
    struct Every<'a, R>([&'a [R]; 2], &'a mut Vec<Vec<R>>);

    impl<R: Real> WideLoop<R> for Every<'_, R> {
        #[inline(always)]
        fn run<W: Wide<R>>(self) {
            let Self([a, b], results) = self;
            let methods = [
                |a: W, b: W| a.plus(b),
                |a: W, b: W| a.minus(b),
                |a: W, b: W| a.times(b),
                |a: W, b: W| a.times_plus(b, W::same(R::of(0.5))),
                |a: W, b: W| a.or_larger(b),
                |a: W, b: W| a.replaced_where(a, b, W::same(R::of(7.0))),
                |a: W, _| a.exponential(),
                |a: W, b: W| W::same(if a.is_above(b) { R::one() } else { R::zero() }),
            ];
            for method in methods {
                let mut result = vec![R::zero(); MOST];
                for first in (0..MOST).step_by(W::COUNT) {
                    method(W::load(&a[first..]), W::load(&b[first..])).store(&mut result[first..]);
                }
                results.push(result);
            }
        }
    }

    #[test]
    fn a_register_gives_what_an_array_does() {
        let a: Vec<f32> = (0..MOST).map(|i| 6.0 - (i * i) as f32).collect();
        let b: Vec<f32> = (0..MOST).map(|i| 5.0 - 11.0 * i as f32).collect();
        // Above in one place of sixteen, and in none.
        let nearly: Vec<f32> =
            a.iter().enumerate().map(|(i, a)| if i == 13 { a - 1.0 } else { *a }).collect();
        for other in [&b, &a, &nearly] {
            let (mut found, mut arrays) = (vec![], vec![]);
            run_wide(Every([&a, other], &mut found));
            Every([&a, other], &mut arrays).run::<Array<f32, true>>();
            let mut eight = vec![];
            super::super::run(Eight(Every([&a, other], &mut eight), std::marker::PhantomData));
            for vectors in [&found, &eight] {
                // The last method depends on what lies in one vector. An exponential's error grows with its argument, which is divided by ln 2.
                for (method, (found, expected)) in vectors.iter().zip(&arrays).enumerate().take(7) {
                    for (found, expected) in found.iter().zip(expected) {
                        let far = expected.max(f32::MIN_POSITIVE).ln().min(0.0);
                        let most = if method == 6 { 3e-7 - 3e-8 * far } else { 2e-7 };
                        let error = (found - expected).abs();
                        assert!(error <= most * expected.abs() + f32::MIN_POSITIVE, "{found} for {expected}");
                    }
                }
                let any = |numbers: &Vec<Vec<f32>>| numbers[7].contains(&1.0);
                assert_eq!(any(vectors), any(&arrays));
            }
        }
    }

    #[test]
    fn exponentials_of_what_no_number_is() {
        let a = [f32::NEG_INFINITY, f32::NAN].repeat(MOST / 2);
        let mut results = vec![];
        run_wide(Every([&a, &a], &mut results));
        let exponentials = &results[6];
        assert!(exponentials.iter().step_by(2).all(|value| *value == 0.0));
        assert!(exponentials.iter().skip(1).step_by(2).all(|value| value.is_nan()));
    }
}
