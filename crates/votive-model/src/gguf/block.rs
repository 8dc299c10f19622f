//! How a GGUF file stores numbers.

use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};

/// Numbers that share a scale in Q8_0.
const BLOCK: usize = 32;

/// A way to store numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// 32 bits.
    F32,
    /// 16 bits, 10 of them after the point.
    F16,
    /// 16 bits, 7 of them after the point.
    Bf16,
    /// 8 bits a number and a 16-bit scale for every 32, which is the largest of them divided by 127.
    Q8_0,
}

impl Quantization {
    /// ggml's number of the type.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// llama.cpp's number for a file that stores most tensors so (`general.file_type`).
    #[must_use]
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// Numbers that are stored together.
    #[must_use]
    pub fn block(self) -> usize {
        if self == Self::Q8_0 { BLOCK } else { 1 }
    }

    /// Whether a tensor of this shape has rows of whole blocks.
    #[must_use]
    pub fn fits(self, dims: &[usize]) -> bool {
        dims.last().is_some_and(|row| row.is_multiple_of(self.block()))
    }

    /// Bytes of a tensor of this shape.
    pub(super) fn bytes(self, dims: &[usize]) -> u64 {
        let count = dims.iter().product::<usize>() as u64;
        match self {
            Self::F32 => 4 * count,
            Self::F16 | Self::Bf16 => 2 * count,
            Self::Q8_0 => count / BLOCK as u64 * (BLOCK as u64 + 2),
        }
    }

    pub(super) fn encode(self, tensor: &Tensor) -> Result<Vec<u8>> {
        let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?;
        let numbers = tensor.to_vec1::<f32>()?;
        Ok(match self {
            Self::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Self::Bf16 => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            Self::Q8_0 => numbers.chunks(BLOCK).flat_map(eight_bits).collect(),
        })
    }
}

/// A block of Q8_0: the scale, then each number as a multiple of it.
fn eight_bits(block: &[f32]) -> Vec<u8> {
    let largest = block.iter().fold(0f32, |most, x| most.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
    let numbers = block.iter().map(|x| (x * inverse).round() as i8 as u8);
    f16::from_f32(scale).to_le_bytes().into_iter().chain(numbers).collect()
}
