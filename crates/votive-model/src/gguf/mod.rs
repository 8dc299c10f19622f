//! GGUF: the single file in which llama.cpp keeps a model and its tokenizer.
//!
//! Source: the format's specification, version 3 (ggml, docs/gguf.md): a header, named values, a table of tensors, and the
//! tensors' bytes, each at a multiple of 32.

mod block;
mod llama;

pub use block::Quantization;
pub use llama::{metadata, tensors};

use crate::error::{ModelError, Result};
use crate::files;
use candle_core::Tensor;
use std::io::{self, Write};
use std::path::Path;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// A value in a file's header.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    U32(u32),
    /// A number.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Whole numbers.
    I32s(Vec<i32>),
    /// Numbers.
    F32s(Vec<f32>),
}

/// Names and values of a header, in the order in which they are written.
pub type Metadata = Vec<(String, Value)>;

/// A tensor as it goes into a file.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// llama.cpp's name of it.
    pub name: String,
    /// One or two dimensions, outermost first.
    pub tensor: Tensor,
    /// How its numbers are stored.
    pub stored: Quantization,
}

/// Writes a file: a temporary one beside it, synced, then renamed.
///
/// # Errors
/// If the file cannot be written, or a tensor's rows cannot be stored as asked.
pub fn write(path: &Path, metadata: &Metadata, tensors: &[GgufTensor]) -> Result<()> {
    if let Some(wrong) = tensors.iter().find(|t| !t.stored.fits(t.tensor.dims())) {
        let (found, stored) = (wrong.tensor.dims(), wrong.stored);
        return Err(ModelError::Shape {
            what: format!("{} as {stored:?}", wrong.name),
            expected: format!("rows of a multiple of {}", stored.block()),
            found: format!("{found:?}"),
        });
    }
    files::write_with(path, |file| {
        let mut file = io::BufWriter::new(file);
        let header = header(metadata, tensors);
        file.write_all(&header)?;
        file.write_all(&padding(header.len() as u64))?;
        for tensor in tensors {
            // One tensor at a time: the file may be larger than the memory that is left.
            let bytes = tensor.stored.encode(&tensor.tensor).map_err(io::Error::other)?;
            file.write_all(&bytes)?;
            file.write_all(&padding(bytes.len() as u64))?;
        }
        file.flush()
    })
}

fn padding(length: u64) -> Vec<u8> {
    vec![0; (length.next_multiple_of(ALIGNMENT) - length) as usize]
}

fn header(metadata: &Metadata, tensors: &[GgufTensor]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (name, value) in metadata {
        put_text(&mut bytes, name);
        put_value(&mut bytes, value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&mut bytes, &tensor.name);
        let dims = tensor.tensor.dims();
        bytes.extend((dims.len() as u32).to_le_bytes());
        // Innermost first.
        dims.iter().rev().for_each(|size| bytes.extend((*size as u64).to_le_bytes()));
        bytes.extend(tensor.stored.id().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += tensor.stored.bytes(dims).next_multiple_of(ALIGNMENT);
    }
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    let kind = |bytes: &mut Vec<u8>, id: u32| bytes.extend(id.to_le_bytes());
    let list = |bytes: &mut Vec<u8>, id: u32, length: usize| {
        kind(bytes, ARRAY);
        kind(bytes, id);
        bytes.extend((length as u64).to_le_bytes());
    };
    match value {
        Value::U32(number) => {
            kind(bytes, U32);
            bytes.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            kind(bytes, F32);
            bytes.extend(number.to_le_bytes());
        }
        Value::Bool(yes) => {
            kind(bytes, BOOL);
            bytes.push(u8::from(*yes));
        }
        Value::Text(text) => {
            kind(bytes, TEXT);
            put_text(bytes, text);
        }
        Value::Texts(texts) => {
            list(bytes, TEXT, texts.len());
            texts.iter().for_each(|text| put_text(bytes, text));
        }
        Value::I32s(numbers) => {
            list(bytes, I32, numbers.len());
            numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        Value::F32s(numbers) => {
            list(bytes, F32, numbers.len());
            numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
    }
}

/// The format's numbers of its types.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::quantized::gguf_file::{Content, Value as Read};
    use candle_core::{DType, Device};

    /// candle's own reader finds what was written.
    #[test]
    fn another_reader_finds_values_and_tensors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let numbers: Vec<f32> = (0..3 * 64).map(|i| ((i * 37) % 101) as f32 / 13.0 - 3.0).collect();
        let tensor = Tensor::from_vec(numbers.clone(), (3, 64), &Device::Cpu).unwrap();
        let stored = [Quantization::F32, Quantization::F16, Quantization::Bf16, Quantization::Q8_0];
        let tensors: Vec<GgufTensor> = stored
            .iter()
            .map(|stored| GgufTensor { name: format!("{stored:?}"), tensor: tensor.clone(), stored: *stored })
            .collect();
        let metadata = vec![
            ("a.number".to_owned(), Value::U32(7)),
            ("a.share".to_owned(), Value::F32(0.5)),
            ("a.flag".to_owned(), Value::Bool(true)),
            ("a.text".to_owned(), Value::Text("né".to_owned())),
            ("a.texts".to_owned(), Value::Texts(vec!["x".to_owned(), String::new()])),
            ("a.ids".to_owned(), Value::I32s(vec![-1, 3])),
            ("a.scores".to_owned(), Value::F32s(vec![-0.5])),
        ];
        write(&path, &metadata, &tensors).unwrap();
        let mut file = std::fs::File::open(&path).unwrap();
        let content = Content::read(&mut file).unwrap();
        assert_eq!(content.metadata["a.number"].to_u32().unwrap(), 7);
        assert_eq!(content.metadata["a.share"].to_f32().unwrap(), 0.5);
        assert!(content.metadata["a.flag"].to_bool().unwrap());
        assert_eq!(content.metadata["a.text"].to_string().unwrap(), "né");
        let ids: &Vec<Read> = content.metadata["a.ids"].to_vec().unwrap();
        assert_eq!(ids.iter().map(|id| id.to_i32().unwrap()).collect::<Vec<_>>(), [-1, 3]);
        for (stored, tolerance) in stored.into_iter().zip([0.0, 2e-3, 2e-2, 3e-2]) {
            let found = content.tensor(&mut file, &format!("{stored:?}"), &Device::Cpu).unwrap();
            let found = found.dequantize(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            assert_eq!(found.dims(), [3, 64]);
            let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let off = found.iter().zip(&numbers).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off <= tolerance, "{stored:?}: off by {off}");
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_are_refused() {
        let tensor = Tensor::zeros((2, 40), DType::F32, &Device::Cpu).unwrap();
        let tensors = [GgufTensor { name: "x".to_owned(), tensor, stored: Quantization::Q8_0 }];
        let folder = tempfile::tempdir().unwrap();
        let message = write(&folder.path().join("x.gguf"), &Vec::new(), &tensors).unwrap_err().to_string();
        assert!(message.contains("multiple of 32"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
