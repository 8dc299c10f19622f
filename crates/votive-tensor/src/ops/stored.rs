//! Frozen matrices that are kept in fewer bytes than f32, and turned back tile by tile as a product reads them.
//!
//! Source: int8 by the largest number of each group, Dettmers et al., arXiv:2208.07339, Sec. 2; NF4, Dettmers et al.,
//! arXiv:2305.14314, Sec. 3 and App. E. bf16 is the upper half of an f32.
//! Departures: scales are f32 and not quantized again.

use super::few_rows;
use super::linear::start_with;
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use candle_core::{Device, Result, Tensor};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// How the numbers of a matrix are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// bf16: what most checkpoints hold, so nothing is lost of those.
    BFloat16,
    /// Whole numbers from −127 to 127, times a scale for every 64 of a row.
    Int8,
    /// 16 levels that are quantiles of a normal distribution, times a scale for every 64 of a row.
    Nf4,
}

/// A frozen matrix `(outs, ins)`; cloning it shares the numbers, which nothing can change.
#[derive(Clone, Debug)]
pub struct StoredMatrix {
    dims: [usize; 2],
    codes: Arc<Codes>,
    device: Device,
}

/// The weight of a linear map, `(outs, ins)`.
#[derive(Clone, Debug)]
pub enum Weight {
    /// As a tensor.
    Whole(Tensor),
    /// Frozen, in fewer bytes.
    Stored(StoredMatrix),
}

impl Weight {
    /// The weight as a tensor.
    ///
    /// # Errors
    /// Those of candle.
    pub fn full(&self) -> Result<Tensor> {
        match self {
            Self::Whole(weight) => Ok(weight.clone()),
            Self::Stored(weight) => weight.to_tensor(),
        }
    }
}

#[derive(Debug)]
enum Codes {
    BFloat16(Vec<bf16>),
    Int8 {
        codes: Vec<i8>,
        scales: Vec<f32>,
    },
    /// Two in a byte, the first in its lower half; rows begin with a byte.
    Nf4 {
        codes: Vec<u8>,
        scales: Vec<f32>,
    },
}

/// Numbers of a row that share a scale.
const GROUP: usize = 64;

/// Rows that are turned back at the same time.
const TILE: usize = 256;

/// The levels of NF4, as its authors give them.
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

impl StoredMatrix {
    /// Keeps a matrix `(outs, ins)`, which must be f32.
    ///
    /// # Errors
    /// If it is not a matrix of f32.
    pub fn new(matrix: &Tensor, storage: Storage) -> Result<Self> {
        let (outs, ins) = matrix.dims2()?;
        let numbers = matrix.flatten_all()?.to_vec1::<f32>()?;
        let rows = || numbers.par_chunks(ins.max(1));
        let most = |group: &[f32]| group.iter().fold(0f32, |most, x| most.max(x.abs()));
        let scales = |top: f32| -> Vec<f32> {
            rows().flat_map_iter(|row| row.chunks(GROUP).map(move |group| most(group) / top)).collect()
        };
        // Of a group of zeros the scale is 0, and so is every code.
        let inverse = |scale: f32| if scale > 0.0 { scale.recip() } else { 0.0 };
        let per_row = ins.div_ceil(GROUP);
        let scaled = |scales: &[f32]| -> Vec<f32> {
            let of_row = rows().zip(scales.par_chunks(per_row.max(1)));
            of_row
                .flat_map_iter(|(row, scales)| {
                    row.iter().enumerate().map(move |(i, x)| x * inverse(scales[i / GROUP]))
                })
                .collect()
        };
        let codes = match storage {
            Storage::BFloat16 => Codes::BFloat16(numbers.iter().map(|x| bf16::from_f32(*x)).collect()),
            Storage::Int8 => {
                let scales = scales(127.0);
                let codes = scaled(&scales).into_iter().map(|x| x.round() as i8).collect();
                Codes::Int8 { codes, scales }
            }
            Storage::Nf4 => {
                let scales = scales(1.0);
                let levels: Vec<u8> = scaled(&scales).into_par_iter().map(nearest_level).collect();
                let pair = |pair: &[u8]| pair[0] | pair.get(1).unwrap_or(&0) << 4;
                let codes = levels.chunks(ins.max(1)).flat_map(|row| row.chunks(2).map(pair)).collect();
                Codes::Nf4 { codes, scales }
            }
        };
        Ok(Self { dims: [outs, ins], codes: Arc::new(codes), device: matrix.device().clone() })
    }

    /// `[outs, ins]`.
    #[must_use]
    pub fn dims(&self) -> [usize; 2] {
        self.dims
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &*self.codes {
            Codes::BFloat16(codes) => 2 * codes.len(),
            Codes::Int8 { codes, scales } => codes.len() + 4 * scales.len(),
            Codes::Nf4 { codes, scales } => codes.len() + 4 * scales.len(),
        }
    }

    /// The matrix in f32.
    ///
    /// # Errors
    /// Those of candle.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let [outs, ins] = self.dims;
        let mut numbers = vec![0f32; outs * ins];
        self.decode(0..outs, &mut numbers);
        Tensor::from_vec(numbers, (outs, ins), &self.device)
    }

    /// Some rows in full.
    fn decode<R: Real>(&self, rows: Range<usize>, out: &mut [R]) {
        let ins = self.dims[1];
        let per_row = ins.div_ceil(GROUP);
        let number = |x: f32| R::of(f64::from(x));
        out.par_chunks_mut(ins).zip(rows).for_each(|(out, row)| match &*self.codes {
            Codes::BFloat16(codes) => {
                out.iter_mut().zip(&codes[row * ins..]).for_each(|(out, x)| *out = number(x.to_f32()));
            }
            Codes::Int8 { codes, scales } => {
                let groups = out.chunks_mut(GROUP).zip(codes[row * ins..(row + 1) * ins].chunks(GROUP));
                for ((out, codes), scale) in groups.zip(&scales[row * per_row..]) {
                    out.iter_mut().zip(codes).for_each(|(out, code)| *out = number(f32::from(*code) * scale));
                }
            }
            Codes::Nf4 { codes, scales } => {
                let bytes = ins.div_ceil(2);
                let codes = &codes[row * bytes..(row + 1) * bytes];
                for (i, out) in out.iter_mut().enumerate() {
                    let level = codes[i / 2] >> (4 * (i % 2)) & 15;
                    *out = number(LEVELS[usize::from(level)] * scales[row * per_row + i / GROUP]);
                }
            }
        });
    }

    /// Tiles of rows in full, one after another.
    fn each_tile<R: Real>(&self, mut visit: impl FnMut(usize, &[R])) {
        let [outs, ins] = self.dims;
        let mut tile = vec![R::zero(); TILE.min(outs) * ins];
        for start in (0..outs).step_by(TILE) {
            let rows = start..(start + TILE).min(outs);
            let tile = &mut tile[..rows.len() * ins];
            self.decode(rows, tile);
            visit(start, tile);
        }
    }

    /// `x (rows, ins) · Wᵀ (+ bias)`, into `out (rows, outs)` of zeros.
    pub(super) fn product<R: Real>(&self, x: &[R], bias: Option<&View<R>>, out: &mut [R]) {
        start_with(bias, out);
        let [outs, ins] = self.dims;
        let rows = x.len() / ins;
        self.each_tile(|start, tile| {
            let width = tile.len() / ins;
            if rows <= few_rows::MOST {
                let mut part = vec![R::zero(); rows * width];
                few_rows::add_product(x, tile, ins, &mut part);
                for (out, part) in out.chunks_mut(outs).zip(part.chunks(width)) {
                    out[start..start + width].iter_mut().zip(part).for_each(|(out, part)| *out += *part);
                }
                return;
            }
            let out = (&mut out[start..], Matrix::strided(rows, width, outs));
            let tile = (tile, Matrix::dense(width, ins).t());
            matmul(out, (x, Matrix::dense(rows, ins)), tile, R::one(), true, Threads::All);
        });
    }

    /// Adds `dy (rows, outs) · W` to `dx (rows, ins)`.
    pub(super) fn add_back_product<R: Real>(&self, dy: &[R], dx: &mut [R]) {
        let [outs, ins] = self.dims;
        let rows = dx.len() / ins;
        self.each_tile(|start, tile| {
            let dy = (&dy[start..], Matrix::strided(rows, tile.len() / ins, outs));
            let tile = (tile, Matrix::dense(tile.len() / ins, ins));
            matmul((&mut *dx, Matrix::dense(rows, ins)), dy, tile, R::one(), true, Threads::All);
        });
    }
}

fn nearest_level(x: f32) -> u8 {
    let above = LEVELS.iter().position(|level| *level >= x).unwrap_or(LEVELS.len() - 1);
    let below = above.saturating_sub(1);
    if x - LEVELS[below] < LEVELS[above] - x { below as u8 } else { above as u8 }
}

/// A linear map over the last dimension by a stored weight.
///
/// # Shapes
/// `x (…, I)`, `weight (O, I)`, `bias (O,)` → `(…, O)`.
/// # Gradient
/// Flows to `x` alone.
/// # Errors
/// If the sizes don't fit.
pub fn stored_linear(x: &Tensor, weight: &StoredMatrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let bias = bias.map(Tensor::detach).into_iter().collect();
    apply(StoredLinear { weight: weight.clone(), bias }, &[x])
}

#[derive(Clone)]
struct StoredLinear {
    weight: StoredMatrix,
    /// One or none.
    bias: Vec<Tensor>,
}

impl Kernel for StoredLinear {
    const NAME: &'static str = "stored linear";

    fn constants(&self) -> &[Tensor] {
        &self.bias
    }

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let ([outs, ins], x) = (self.weight.dims, dims[0]);
        if x.last() != Some(&ins) || self.bias.first().is_some_and(|bias| bias.dims() != [outs]) {
            candle_core::bail!("stored linear: input {x:?}, weight {:?}", self.weight.dims);
        }
        Ok([&x[..x.len() - 1], &[outs]].concat())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        self.weight.product(inputs[0].data, inputs.get(1), output);
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        _: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        vec![wanted[0].then(|| {
            let mut dx = vec![R::zero(); inputs[0].data.len()];
            self.weight.add_back_product(grad, &mut dx);
            dx
        })]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let weight = self.weight.to_tensor()?.to_dtype(inputs[0].dtype())?;
        super::linear(inputs[0], &weight, self.bias.first())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};
    use candle_core::DType;

    /// Rows that end within a group and, for two numbers in a byte, within a byte; more rows than a tile.
    const SHAPES: [[usize; 2]; 4] = [[5, 7], [3, 64], [2, 131], [TILE + 3, 5]];

    fn matrix(shape: &[usize]) -> Tensor {
        sample_tensor(shape, 3).unwrap().to_dtype(DType::F32).unwrap()
    }

    fn largest(tensor: &Tensor) -> f64 {
        tensor.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn what_is_kept_is_near_what_was_given() {
        // Half a step of the coarsest scale: 2⁻⁸ of a number in bf16, 1/254 of the largest in int8; NF4's widest gap is
        // 0.304, between its first two levels.
        for (storage, share) in
            [(Storage::BFloat16, 2f64.powi(-8)), (Storage::Int8, 1.0 / 254.0), (Storage::Nf4, 0.152)]
        {
            for shape in SHAPES {
                let matrix = matrix(&shape);
                let stored = StoredMatrix::new(&matrix, storage).unwrap();
                let distance = largest(&(stored.to_tensor().unwrap() - &matrix).unwrap());
                assert!(distance <= 1.0001 * share * largest(&matrix), "{storage:?} {shape:?}: {distance}");
                assert_eq!(stored.dims(), shape);
            }
        }
    }

    #[test]
    fn what_it_can_hold_is_kept_as_it_is() {
        let held = Tensor::new(&[[1f32, -0.5, 0.0, 127.0, -127.0, 64.0], [0.0; 6]], &Device::Cpu).unwrap();
        let levels = Tensor::new(&[LEVELS.map(|level| 3.0 * level)], &Device::Cpu).unwrap();
        let whole = (&held * 2.0).unwrap().floor().unwrap().clamp(-127f32, 127.0).unwrap();
        for (storage, matrix) in [(Storage::BFloat16, held), (Storage::Int8, whole), (Storage::Nf4, levels)] {
            let stored = StoredMatrix::new(&matrix, storage).unwrap().to_tensor().unwrap();
            assert_eq!(stored.to_vec2::<f32>().unwrap(), matrix.to_vec2::<f32>().unwrap(), "{storage:?}");
        }
    }

    #[test]
    fn a_map_is_that_of_the_matrix_it_stands_for() {
        for storage in [Storage::BFloat16, Storage::Int8, Storage::Nf4] {
            for shape in SHAPES {
                let weight = StoredMatrix::new(&matrix(&shape), storage).unwrap();
                let full = weight.to_tensor().unwrap();
                let bias = matrix(&shape[..1]);
                for rows in [1, few_rows::MOST + 3] {
                    let x = matrix(&[rows, shape[1]]);
                    let found = stored_linear(&x, &weight, Some(&bias)).unwrap();
                    let expected = super::super::linear(&x, &full, Some(&bias)).unwrap();
                    assert!(largest(&(found - expected).unwrap()) < 1e-4, "{storage:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn gradients() {
        for shape in [[5, 7], [TILE + 3, 5]] {
            let weight = StoredMatrix::new(&matrix(&shape), Storage::Int8).unwrap();
            for bias in [vec![], vec![sample_tensor(&shape[..1], 4).unwrap()]] {
                check(
                    StoredLinear { weight: weight.clone(), bias },
                    &[sample_tensor(&[2, 3, shape[1]], 1).unwrap()],
                );
            }
        }
    }

    #[test]
    fn fewer_bytes() {
        let matrix = matrix(&[4, 128]);
        let bytes = |storage| StoredMatrix::new(&matrix, storage).unwrap().bytes();
        let numbers = 4 * 128;
        assert_eq!(bytes(Storage::BFloat16), 2 * numbers);
        assert_eq!(bytes(Storage::Int8), numbers + 4 * numbers / GROUP);
        assert_eq!(bytes(Storage::Nf4), numbers / 2 + 4 * numbers / GROUP);
    }
}
