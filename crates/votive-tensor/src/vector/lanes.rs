//! Eight numbers at a time, by name: for loops in which a compiler does not find the vectors.

#[cfg(target_arch = "x86_64")]
use super::wide::machine;
use super::wide::{Array, Wide};
use super::{LANES, Loop, fetch};
use crate::kernel::Real;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps};

/// A vector of eight numbers, which may change places. `#[inline(always)]` on every method, as on everything that a [`LanesLoop`] calls.
pub(crate) trait Lanes<R>: Wide<R> {
    /// `a₀ b₀ a₁ b₁ …`, in two.
    fn interleave(self, other: Self) -> [Self; 2];
    /// Numbers of even and of odd place of sixteen.
    fn deinterleave(self, next: Self) -> [Self; 2];
}

/// The first numbers of a slice, 0 if there are too few.
#[inline(always)]
pub(crate) fn load_all<R: Real, L: Lanes<R>>(from: &[R]) -> L {
    match from.first_chunk::<LANES>() {
        Some(from) => L::load(from),
        None => L::same(R::zero()),
    }
}

/// Stores numbers at the beginning of a slice, if there is room.
#[inline(always)]
pub(crate) fn store_all<R: Real, L: Lanes<R>>(values: L, to: &mut [R]) {
    if let Some(to) = to.first_chunk_mut::<LANES>() {
        values.store(to);
    }
}

/// Eight columns of eight rows that lie `stride` apart.
#[inline(always)]
pub(crate) fn columns<R: Real, L: Lanes<R>>(rows: &[R], stride: usize) -> [L; LANES] {
    transposed([
        load_all(rows),
        load_all(&rows[stride..]),
        load_all(&rows[2 * stride..]),
        load_all(&rows[3 * stride..]),
        load_all(&rows[4 * stride..]),
        load_all(&rows[5 * stride..]),
        load_all(&rows[6 * stride..]),
        load_all(&rows[7 * stride..]),
    ])
}

/// Columns of a matrix, whose rows lie `stride` apart, become the rows of `out`, of `height` numbers. Both counts are multiples of [`LANES`].
pub(crate) fn transpose<R: Real>((from, stride): (&[R], usize), (out, height): (&mut [R], usize)) {
    run_lanes(Transpose { from, stride, out, height });
}

struct Transpose<'a, R> {
    from: &'a [R],
    stride: usize,
    out: &'a mut [R],
    height: usize,
}

impl<R: Real> LanesLoop<R> for Transpose<'_, R> {
    #[inline(always)]
    fn run<L: Lanes<R>, const FUSED: bool>(self) {
        /// Rows that are asked for before they are needed: they may lie too far apart for a processor's own foresight.
        const AHEAD: usize = 2 * LANES;
        let Self { from, stride, out, height } = self;
        let width = out.len() / height.max(1);
        for row in (0..height).step_by(LANES) {
            let coming = (row + AHEAD).min(height)..(row + AHEAD + LANES).min(height);
            coming.for_each(|row| fetch(&from[row * stride..row * stride + width]));
            for (block, out) in out.chunks_exact_mut(LANES * height).enumerate() {
                let from = &from[row * stride + block * LANES..];
                let columns = columns::<R, L>(from, stride);
                for (column, out) in columns.into_iter().zip(out.chunks_exact_mut(height)) {
                    store_all(column, &mut out[row..]);
                }
            }
        }
    }
}

/// Rows become columns.
#[inline(always)]
fn transposed<R, L: Lanes<R>>(rows: [L; LANES]) -> [L; LANES] {
    // Each round turns the six binary digits of row and column around by one place.
    turned(turned(turned(rows)))
}

#[inline(always)]
fn turned<R, L: Lanes<R>>([a, b, c, d, e, f, g, h]: [L; LANES]) -> [L; LANES] {
    let ([a, e], [b, f]) = (a.interleave(e), b.interleave(f));
    let ([c, g], [d, h]) = (c.interleave(g), d.interleave(h));
    [a, e, b, f, c, g, d, h]
}

/// A loop over [`Lanes`].
pub(crate) trait LanesLoop<R: Real> {
    /// Runs the loop, with the machine's vectors if they are compiled for.
    fn run<L: Lanes<R>, const FUSED: bool>(self);
}

/// Runs a loop with the vectors of this machine.
pub(crate) fn run_lanes<R: Real>(job: impl LanesLoop<R>) {
    struct Any<J, R>(J, std::marker::PhantomData<R>);
    impl<R: Real, J: LanesLoop<R>> Loop for Any<J, R> {
        #[inline(always)]
        fn run<const FUSED: bool>(self) {
            #[cfg(target_arch = "x86_64")]
            if FUSED && R::DTYPE == candle_core::DType::F32 {
                return self.0.run::<machine::Eight, FUSED>();
            }
            self.0.run::<Array<R, FUSED>, FUSED>();
        }
    }
    super::run(Any(job, std::marker::PhantomData));
}

impl<R: Real, const FUSED: bool> Lanes<R> for Array<R, FUSED> {
    #[inline(always)]
    fn interleave(self, other: Self) -> [Self; 2] {
        let at = |i: usize| if i.is_multiple_of(2) { self.0[i / 2] } else { other.0[i / 2] };
        [Self(std::array::from_fn(at)), Self(std::array::from_fn(|i| at(LANES + i)))]
    }

    #[inline(always)]
    fn deinterleave(self, next: Self) -> [Self; 2] {
        let at = |i: usize| if i < LANES { self.0[i] } else { next.0[i - LANES] };
        [Self(std::array::from_fn(|i| at(2 * i))), Self(std::array::from_fn(|i| at(2 * i + 1)))]
    }
}

#[cfg(target_arch = "x86_64")]
impl<R: Real> Lanes<R> for machine::Eight {
    #[inline(always)]
    fn interleave(self, other: Self) -> [Self; 2] {
        // SAFETY: see Eight.
        unsafe {
            let low = _mm256_unpacklo_ps(self.0, other.0);
            let high = _mm256_unpackhi_ps(self.0, other.0);
            [Self(_mm256_permute2f128_ps::<0x20>(low, high)), Self(_mm256_permute2f128_ps::<0x31>(low, high))]
        }
    }

    #[inline(always)]
    fn deinterleave(self, next: Self) -> [Self; 2] {
        // SAFETY: see Eight.
        unsafe {
            let low = _mm256_permute2f128_ps::<0x20>(self.0, next.0);
            let high = _mm256_permute2f128_ps::<0x31>(self.0, next.0);
            [
                Self(_mm256_shuffle_ps::<0b10_00_10_00>(low, high)),
                Self(_mm256_shuffle_ps::<0b11_01_11_01>(low, high)),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(a, b)` in other places, and back.
    struct Every<'a, R> {
        a: &'a [R; LANES],
        b: &'a [R; LANES],
        out: &'a mut Vec<[R; LANES]>,
    }

    impl<R: Real> LanesLoop<R> for Every<'_, R> {
        #[inline(always)]
        fn run<L: Lanes<R>, const FUSED: bool>(self) {
            let (a, b) = (L::load(self.a), L::load(self.b));
            let [even, odd] = a.deinterleave(b);
            let [first, second] = a.interleave(b);
            let [back, also] = even.interleave(odd);
            for result in [first, second, even, odd, back, also] {
                let mut numbers = [R::zero(); LANES];
                result.store(&mut numbers);
                self.out.push(numbers);
            }
        }
    }

    #[test]
    fn rows_become_columns() {
        let (height, width, stride) = (3 * LANES, 2 * LANES, 2 * LANES + 3);
        let rows: Vec<f32> = (0..height * stride).map(|at| at as f32).collect();
        let mut found = vec![0.0; width * height];
        transpose((&rows, stride), (&mut found, height));
        let expected = (0..width).flat_map(|x| (0..height).map(move |y| (y * stride + x) as f32));
        assert!(found.into_iter().eq(expected));
    }

    #[test]
    fn a_register_gives_what_an_array_does() {
        let [a, b]: [[f32; LANES]; 2] =
            [1.0, 1e3].map(|scale| std::array::from_fn(|i| scale * (1.0 + i as f32).sqrt()));
        let (mut found, mut expected) = (vec![], vec![]);
        run_lanes(Every { a: &a, b: &b, out: &mut found });
        Every { a: &a, b: &b, out: &mut expected }.run::<Array<f32, false>, false>();
        assert_eq!(found, expected);
        assert_eq!(found[4..], [a, b]);
    }
}
