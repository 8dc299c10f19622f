//! Single tensors of a safetensors file, without the others.

use super::{LENGTH, convert, file_error, header};
use crate::error::{ModelError, Result};
use candle_core::{Device, Tensor};
use safetensors::tensor::{Metadata, TensorView};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What a safetensors file holds and where, as its header says; the numbers stay on disk.
#[derive(Debug)]
pub struct TensorIndex {
    path: PathBuf,
    /// Bytes before the numbers.
    start: u64,
    header: Metadata,
}

impl TensorIndex {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// If the file is missing or malformed, or is not as long as its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let malformed = |reason: String| ModelError::Safetensors { path: path.into(), reason };
        let mut file = File::open(path).map_err(file_error(path))?;
        let bytes = header(path, &mut file)?;
        let header: Metadata = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        let start = (LENGTH + bytes.len()) as u64;
        let expected = start + header.data_len() as u64;
        let found = file.metadata().map_err(file_error(path))?.len();
        if found != expected {
            return Err(malformed(format!("{found} bytes, but its header tells of {expected}")));
        }
        Ok(Self { path: path.into(), start, header })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, in the order of the file.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// A string of the header's `__metadata__`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Reads one tensor; floating numbers become f32.
    ///
    /// # Errors
    /// If there is none of this name, the file cannot be read, or the tensor is of a type that cannot be converted.
    pub fn read(&self, name: &str, device: &Device) -> Result<Tensor> {
        let malformed = |reason: String| ModelError::Safetensors { path: self.path.clone(), reason };
        let info = self.header.info(name).ok_or_else(|| malformed(format!("there is no tensor `{name}`")))?;
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        let mut file = File::open(&self.path).map_err(file_error(&self.path))?;
        file.seek(SeekFrom::Start(self.start + info.data_offsets.0 as u64))
            .map_err(file_error(&self.path))?;
        file.read_exact(&mut bytes).map_err(file_error(&self.path))?;
        let view =
            TensorView::new(info.dtype, info.shape.clone(), &bytes).map_err(|e| malformed(e.to_string()))?;
        convert(&view, device).map_err(|reason| malformed(format!("tensor `{name}`: {reason}")))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::DType;
    use std::collections::BTreeMap;

    #[test]
    fn one_tensor_is_read_without_the_others_and_a_cut_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.safetensors");
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let tensors = [("a", tensor(&[1.0, 2.0])), ("b", tensor(&[3.0]))];
        let metadata = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
        super::super::write(&path, tensors.map(|(name, t)| (name.to_owned(), t)), DType::F32, metadata)
            .unwrap();
        let index = TensorIndex::open(&path).unwrap();
        assert_eq!(
            (index.names(), index.metadata("key")),
            (vec!["a".to_owned(), "b".to_owned()], Some("value"))
        );
        assert_eq!(index.read("b", &Device::Cpu).unwrap().to_vec1::<f32>().unwrap(), [3.0]);
        assert!(index.read("c", &Device::Cpu).unwrap_err().to_string().contains("no tensor `c`"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(TensorIndex::open(&path).unwrap_err().to_string().contains("header tells of"));
    }
}
