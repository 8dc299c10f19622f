//! Safetensors files, whole or sharded, and JSON beside them.

mod index;

pub use index::TensorIndex;

use crate::error::{ModelError, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Tensors of a file by name, and the strings in its header.
#[derive(Debug)]
pub struct TensorFile {
    /// The tensors, converted to f32 (integers stay what they are).
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> ModelError + '_ {
    move |source| ModelError::File { path: path.into(), source }
}

/// Reads a safetensors file; floating tensors become f32.
///
/// # Errors
/// If the file is missing, truncated or malformed, or holds a type that cannot be converted.
pub fn read(path: &Path, device: &Device) -> Result<TensorFile> {
    let mut tensors = BTreeMap::new();
    let metadata = read_each(path, device, &mut |name, tensor| {
        tensors.insert(name, tensor);
        Ok(())
    })?;
    Ok(TensorFile { tensors, metadata })
}

/// What takes the tensors of a file, one after another.
type Take<'a> = &'a mut dyn FnMut(String, Tensor) -> Result<()>;

/// Reads one tensor after another, so that no more than one is in memory twice; returns the file's metadata.
fn read_each(path: &Path, device: &Device, take: Take) -> Result<BTreeMap<String, String>> {
    let malformed = |reason: String| ModelError::Safetensors { path: path.into(), reason };
    let mut file = File::open(path).map_err(file_error(path))?;
    let header = header(path, &mut file)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| malformed(e.to_string()))?;
    let expected = (LENGTH + header.len() + metadata.data_len()) as u64;
    let found = file.metadata().map_err(file_error(path))?.len();
    if found != expected {
        return Err(malformed(format!("{found} bytes, but its header tells of {expected}")));
    }
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        file.read_exact(&mut bytes).map_err(file_error(path))?;
        let view =
            TensorView::new(info.dtype, info.shape.clone(), &bytes).map_err(|e| malformed(e.to_string()))?;
        let tensor =
            convert(&view, device).map_err(|reason| malformed(format!("tensor `{name}`: {reason}")))?;
        take(name, tensor)?;
    }
    Ok(metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// Bytes of the number that tells the length of the header.
const LENGTH: usize = 8;

/// The header of a safetensors file, after which `file` stands at its numbers.
fn header(path: &Path, file: &mut File) -> Result<Vec<u8>> {
    /// safetensors refuses longer headers.
    const MOST: u64 = 100_000_000;
    let malformed = |reason: &str| ModelError::Safetensors { path: path.into(), reason: reason.to_owned() };
    let mut length = [0; LENGTH];
    file.read_exact(&mut length).map_err(|_| malformed("no header"))?;
    let length = u64::from_le_bytes(length);
    if length > MOST {
        return Err(malformed("the header is longer than a header may be"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(file_error(path))?;
    if header.len() as u64 != length {
        return Err(malformed("the header is cut short"));
    }
    Ok(header)
}

fn convert(view: &TensorView, device: &Device) -> std::result::Result<Tensor, String> {
    fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        // The length is a multiple of N: safetensors checked it against the shape.
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    let (bytes, shape) = (view.data(), view.shape());
    let tensor = match view.dtype() {
        Dtype::F32 => Tensor::from_vec(numbers(bytes, f32::from_le_bytes), shape, device),
        Dtype::F16 => Tensor::from_vec(numbers(bytes, |b| f16::from_le_bytes(b).to_f32()), shape, device),
        Dtype::BF16 => Tensor::from_vec(numbers(bytes, |b| bf16::from_le_bytes(b).to_f32()), shape, device),
        Dtype::F64 => Tensor::from_vec(numbers(bytes, f64::from_le_bytes), shape, device),
        Dtype::I64 => Tensor::from_vec(numbers(bytes, i64::from_le_bytes), shape, device),
        Dtype::I32 => Tensor::from_vec(numbers(bytes, |b| i64::from(i32::from_le_bytes(b))), shape, device),
        Dtype::U32 => Tensor::from_vec(numbers(bytes, u32::from_le_bytes), shape, device),
        Dtype::U8 | Dtype::BOOL => Tensor::from_vec(bytes.to_vec(), shape, device),
        other => return Err(format!("type {other:?} is not supported")),
    };
    tensor.map_err(|e| e.to_string())
}

/// Reads `stem.safetensors`, or the shards that `stem.safetensors.index.json` names, or `stem.fp16.safetensors`.
///
/// # Errors
/// If none is there, a shard is missing or malformed, or the index and the shards disagree.
pub fn read_folder(folder: &Path, stem: &str, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    read_folder_each(folder, stem, device, &mut |name, tensor| {
        tensors.insert(name, tensor);
        Ok(())
    })?;
    Ok(tensors)
}

/// The same, one tensor after another.
///
/// # Errors
/// Those of [`read_folder`], and those of `take`.
pub(crate) fn read_folder_each(folder: &Path, stem: &str, device: &Device, take: Take) -> Result<()> {
    let whole = folder.join(format!("{stem}.safetensors"));
    let index = folder.join(format!("{stem}.safetensors.index.json"));
    let half = folder.join(format!("{stem}.fp16.safetensors"));
    if whole.exists() {
        return read_each(&whole, device, take).map(|_| ());
    }
    if index.exists() {
        return read_shards(folder, &index, device, take);
    }
    if half.exists() {
        return read_each(&half, device, take).map(|_| ());
    }
    let names = [&whole, &index, &half]
        .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    Err(ModelError::NotFound { folder: folder.into(), expected: names.join(", ") })
}

/// The type that most floating numbers of a checkpoint are stored in, without reading the numbers: F32, F16 or BF16
/// (what is stored in f64 counts as F32). The files are those of [`read_folder`].
///
/// # Errors
/// If there is no checkpoint, or a header is not one of safetensors.
pub fn stored_float(folder: &Path, stem: &str) -> Result<DType> {
    let is_weight = |name: &str| name.starts_with(stem) && name.ends_with(".safetensors");
    let mut numbers = [(DType::F32, 0), (DType::F16, 0), (DType::BF16, 0)];
    let mut found = false;
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = entry.map_err(file_error(folder))?.path();
        if path.file_name().is_some_and(|name| is_weight(&name.to_string_lossy())) {
            found = true;
            for (place, count) in floats(&path)? {
                numbers[place].1 += count;
            }
        }
    }
    match numbers.iter().max_by_key(|(_, count)| *count) {
        Some((float, _)) if found => Ok(*float),
        _ => Err(ModelError::NotFound { folder: folder.into(), expected: format!("{stem}.safetensors") }),
    }
}

/// How many numbers of a file are f32 or f64 (0), f16 (1) and bf16 (2), tensor by tensor, from its header alone.
fn floats(path: &Path) -> Result<Vec<(usize, usize)>> {
    let header = header(path, &mut File::open(path).map_err(file_error(path))?)?;
    let header: Value =
        serde_json::from_slice(&header).map_err(|source| ModelError::Json { path: path.into(), source })?;
    let tensor = |entry: &Value| {
        let place = match entry.get("dtype")?.as_str()? {
            "F32" | "F64" => 0,
            "F16" => 1,
            "BF16" => 2,
            _ => return None,
        };
        let sizes = entry.get("shape")?.as_array()?.iter().map(Value::as_u64);
        Some((place, usize::try_from(sizes.flatten().product::<u64>()).ok()?))
    };
    Ok(header.as_object().into_iter().flat_map(|header| header.values().filter_map(tensor)).collect())
}

fn read_shards(folder: &Path, index: &Path, device: &Device, take: Take) -> Result<()> {
    let file = crate::config::ConfigFile::read(index)?;
    let wrong = |found: &str| ModelError::Field {
        path: index.into(),
        field: "weight_map".into(),
        expected: "an object from tensor names to file names in the same folder".into(),
        found: found.into(),
    };
    let map =
        file.get("weight_map").and_then(Value::as_object).ok_or_else(|| wrong("nothing of the kind"))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, shard) in map {
        // A shard outside the folder is a mistake or an attack.
        let shard = shard.as_str().filter(|s| Path::new(s).components().count() == 1 && *s != "..");
        shards.entry(shard.ok_or_else(|| wrong(name))?).or_default().push(name);
    }
    for (shard, names) in shards {
        let mut missing: BTreeSet<&str> = names.into_iter().collect();
        read_each(&folder.join(shard), device, &mut |name, tensor| match missing.remove(name.as_str()) {
            true => take(name, tensor),
            // The index leads to another shard for it, or to none.
            false => Ok(()),
        })?;
        if let Some(name) = missing.first() {
            return Err(wrong(&format!("`{name}`, which {shard} lacks")));
        }
    }
    Ok(())
}

struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl safetensors::View for &Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn encode(tensor: &Tensor, float: DType) -> candle_core::Result<Bytes> {
    let shape = tensor.dims().to_vec();
    let tensor = if tensor.dtype().is_float() && float != DType::F64 {
        tensor.to_dtype(DType::F32)?
    } else {
        tensor.clone()
    };
    let tensor = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    let (storage, layout) = tensor.storage_and_layout();
    let range = layout.start_offset()..layout.start_offset() + tensor.elem_count();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("expected a tensor on the CPU") };
    let (dtype, bytes) = match (storage, float) {
        (CpuStorage::F32(v), DType::F16) => {
            (Dtype::F16, v[range].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect())
        }
        (CpuStorage::F32(v), DType::BF16) => {
            (Dtype::BF16, v[range].iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect())
        }
        (CpuStorage::F32(v), _) => (Dtype::F32, v[range].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (CpuStorage::F64(v), _) => (Dtype::F64, v[range].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (CpuStorage::I64(v), _) => (Dtype::I64, v[range].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (CpuStorage::U32(v), _) => (Dtype::U32, v[range].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (CpuStorage::U8(v), _) => (Dtype::U8, v[range].to_vec()),
        (other, _) => candle_core::bail!(
            "tensors of type {:?} are not written",
            candle_core::backend::BackendStorage::dtype(other)
        ),
    };
    Ok(Bytes { dtype, shape, bytes })
}

/// Writes a safetensors file in one go: a temporary file, synced, then renamed.
///
/// `float` is the type that floating tensors are stored in.
///
/// # Errors
/// If the file cannot be written.
pub fn write(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    float: DType,
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    let encoded = tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name, encode(&tensor, float)?)))
        .collect::<candle_core::Result<BTreeMap<_, _>>>()?;
    let mut metadata: std::collections::HashMap<String, String> = metadata.into_iter().collect();
    // transformers refuses files that do not say which framework's layout they have.
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    let mut bytes = safetensors::serialize(encoded.iter(), Some(metadata))
        .map_err(|e| ModelError::Safetensors { path: path.into(), reason: e.to_string() })?;
    sort_metadata(&mut bytes).map_err(|source| ModelError::Json { path: path.into(), source })?;
    write_bytes(path, &bytes)
}

/// SHA-256 of what [`write`] puts behind the header of a file of these tensors: `0x` and hexadecimal digits.
///
/// # Errors
/// If a tensor has a type that is not written.
pub(crate) fn data_sha256(tensors: &BTreeMap<String, Tensor>, float: DType) -> Result<String> {
    let encoded = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, encode(tensor, float)?)))
        .collect::<candle_core::Result<BTreeMap<_, _>>>()?;
    let malformed = |reason| ModelError::Safetensors { path: PathBuf::new(), reason };
    let bytes = safetensors::serialize(encoded.iter(), None).map_err(|e| malformed(e.to_string()))?;
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)) as usize;
    let data = bytes.get(LENGTH + header..).unwrap_or_default();
    let digits: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("0x{digits}"))
}

/// Orders the strings in a file's header: safetensors keeps them in a hash map, whose order differs from one time to
/// the next, and the same contents must be the same bytes.
fn sort_metadata(file: &mut [u8]) -> serde_json::Result<()> {
    let Some((length, rest)) = file.split_first_chunk_mut() else { return Ok(()) };
    let length = u64::from_le_bytes(*length) as usize;
    let Some(header) = rest.get_mut(..length) else { return Ok(()) };
    let mut entries: serde_json::Map<String, Value> = serde_json::from_slice(header)?;
    if let Some(Value::Object(strings)) = entries.get_mut("__metadata__") {
        strings.sort_keys();
    }
    // The same characters in another order, so the same length.
    serde_json::to_writer(header, &entries)
}

/// Writes indented JSON in one go.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|source| ModelError::Json { path: path.into(), source })?;
    text.push(b'\n');
    write_bytes(path, &text)
}

/// Writes a file through a temporary one beside it, so that a reader never sees half of it.
///
/// A device or a pipe is written to as it is, and a link leads to what is written: neither is replaced.
///
/// # Errors
/// If the file cannot be written; the temporary file is removed.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write_bytes`], with the contents written part by part.
///
/// # Errors
/// If the file cannot be written, or `fill` fails; the temporary file is removed.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let write = || match replaceable(path) {
        Some(target) => replace(&target, fill),
        None => fill(&mut File::create(path)?),
    };
    write().map_err(file_error(path))
}

/// What a new file may take the place of: nothing yet, or a regular file, at the end of a link if `path` is one.
fn replaceable(path: &Path) -> Option<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => fs::canonicalize(path).ok().filter(|target| target.is_file()),
        _ => Some(path.to_owned()),
    }
}

fn replace(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // Best effort: the error that matters is the one that led here.
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_truncation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensor = Tensor::new(&[[1.0f32, 2.5], [-3.0, 4.0]], &Device::Cpu).unwrap();
        for float in [DType::F32, DType::F16, DType::BF16] {
            write(&path, [("a".to_owned(), tensor.clone())], float, BTreeMap::new()).unwrap();
            let read = read(&path, &Device::Cpu).unwrap();
            assert_eq!(read.tensors["a"].to_vec2::<f32>().unwrap(), tensor.to_vec2::<f32>().unwrap());
            assert_eq!(read.metadata["format"], "pt");
            assert_eq!(stored_float(folder.path(), "x").unwrap(), float);
        }
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(stored_float(folder.path(), "y").is_err());
        let message = read(&path, &Device::Cpu).unwrap_err().to_string();
        assert!(
            message.contains("x.safetensors") && message.contains("not a whole safetensors file"),
            "{message}"
        );
    }

    #[test]
    fn the_same_contents_are_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let metadata =
            BTreeMap::from(["c", "a", "\u{e9}\"", "b"].map(|key| (key.to_owned(), format!("{key}\n"))));
        let tensors =
            || ["z", "y"].map(|name| (name.to_owned(), Tensor::new(&[1.0f32], &Device::Cpu).unwrap()));
        let bytes = || {
            write(&path, tensors(), DType::F32, metadata.clone()).unwrap();
            fs::read(&path).unwrap()
        };
        let first = bytes();
        assert!((0..10).all(|_| bytes() == first));
        let file = read(&path, &Device::Cpu).unwrap();
        assert_eq!(file.tensors.len(), 2);
        assert_eq!(metadata.iter().find(|(key, value)| file.metadata.get(*key) != Some(value)), None);
    }

    /// What a link leads to is written; a device and a folder stay what they are.
    #[cfg(target_os = "linux")]
    #[test]
    fn only_a_regular_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (link, target) in [("file", "real"), ("full", "/dev/full"), ("folder", "."), ("new", "later")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        fs::write(at("real"), "old").unwrap();
        write_bytes(&at("file"), b"bytes").unwrap();
        write_bytes(&at("new"), b"bytes").unwrap();
        assert_eq!(["real", "later"].map(|name| fs::read(at(name)).unwrap()), [b"bytes", b"bytes"]);
        let message = |path: PathBuf| write_bytes(&path, b"bytes").unwrap_err().to_string();
        assert!(message(at("full")).contains("No space left"), "{}", message(at("full")));
        assert!(message(at("folder")).contains("directory"), "{}", message(at("folder")));
        assert!(message(folder.path().to_owned()).contains("directory"));
        assert!(["file", "full", "folder", "new"].iter().all(|link| at(link).is_symlink()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
    }

    #[test]
    fn a_missing_checkpoint_names_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let message = read_folder(folder.path(), "model", &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("model.safetensors.index.json"), "{message}");
    }
}
