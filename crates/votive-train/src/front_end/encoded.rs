//! What frozen networks make of images and prompts: computed once, kept in memory or in a folder for other runs.
//!
//! An entry's key is the SHA-256 of everything that decides its numbers: every weight of the network and its
//! configuration, the kind of device, and the input itself, the bytes of an image and how it is cut, or the ids of a
//! prompt. So an entry that does not belong to a run is never found, and one folder may serve many models and data sets.
//! Entries carry a checksum, and some of those that are found are computed again at the start.

use crate::checkpoint::at;
use crate::error::{Result, TrainError};
use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use votive_model::files::TensorIndex;
use votive_model::{Params, files};

/// What an entry is found by.
pub(super) type Key = [u8; 32];
/// The tensors of an entry, one for each part of its kind.
pub(super) type Entry = Vec<Tensor>;

/// Bytes of entries that are written to a file together.
const FILE_BYTES: usize = 64 << 20;
/// Found entries that are computed again to see whether they are right.
const CHECKED: usize = 4;
/// What found numbers may differ by from those computed now, relative to the largest: other processors round
/// differently.
const TOLERANCE: f64 = 1e-4;

/// How many images and prompts were encoded, and how many were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodedCounts {
    /// Images and prompts that were encoded.
    pub computed: [usize; 2],
    /// Images and prompts that an earlier run had encoded.
    pub found: [usize; 2],
}

impl fmt::Display for EncodedCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [images, prompts] = self.computed;
        write!(f, "encoded: {images} images, {prompts} prompts")?;
        match self.found {
            [0, 0] => Ok(()),
            [images, prompts] => write!(f, "; found encoded: {images} images, {prompts} prompts"),
        }
    }
}

/// Entries of one kind.
pub(super) struct Encoded {
    kind: &'static str,
    /// Names of an entry's tensors.
    parts: &'static [&'static str],
    entries: HashMap<Key, Place>,
    folder: Option<PathBuf>,
    files: Vec<TensorIndex>,
    /// Entries in memory that are to be written.
    unwritten: Vec<Key>,
    unwritten_bytes: usize,
    device: Device,
}

enum Place {
    Memory(Entry),
    /// Index of the file.
    File(usize),
}

impl Encoded {
    /// The entries that lie in a folder, or none; entries are of one `kind` and have `parts`.
    ///
    /// # Errors
    /// If a file of the folder is damaged, or the folder cannot be made.
    pub(super) fn open(
        folder: Option<&Path>,
        kind: &'static str,
        parts: &'static [&'static str],
        device: &Device,
    ) -> Result<Self> {
        let mut encoded = Self {
            kind,
            parts,
            entries: HashMap::new(),
            folder: folder.map(Path::to_owned),
            files: Vec::new(),
            unwritten: Vec::new(),
            unwritten_bytes: 0,
            device: device.clone(),
        };
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(at(folder))?;
            for path in files_of(folder, kind)? {
                encoded.take_file(TensorIndex::open(&path).map_err(|error| TrainError::Encoded {
                    path: path.clone(),
                    reason: format!("{error}; delete the file, and what it held is encoded again"),
                })?);
            }
        }
        Ok(encoded)
    }

    /// Makes the entries of a file known: those that have all parts.
    fn take_file(&mut self, file: TensorIndex) {
        let mut parts: HashMap<Key, usize> = HashMap::new();
        for name in file.names() {
            if let Some((key, part)) = name.split_once('.')
                && let Some(key) = from_hex(key)
                && self.parts.contains(&part)
            {
                *parts.entry(key).or_default() += 1;
            }
        }
        let whole = parts.into_iter().filter(|(_, found)| *found == self.parts.len());
        let place = self.files.len();
        self.entries.extend(whole.map(|(key, _)| (key, Place::File(place))));
        self.files.push(file);
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// Numbers of the entries in memory.
    pub(super) fn numbers_in_memory(&self) -> usize {
        let numbers = |place: &Place| match place {
            Place::Memory(entry) => entry.iter().map(Tensor::elem_count).sum(),
            Place::File(_) => 0,
        };
        self.entries.values().map(numbers).sum()
    }

    /// The tensors of an entry, in the order of the parts.
    ///
    /// # Errors
    /// If there is none, its file cannot be read, or its numbers are not those that were written.
    pub(super) fn get(&self, key: &Key) -> Result<Entry> {
        match self.entries.get(key) {
            Some(Place::Memory(entry)) => Ok(entry.clone()),
            Some(Place::File(place)) => self.read(&self.files[*place], key),
            None => Err(TrainError::Plan(format!("no {} were encoded for a row of the batch", self.kind))),
        }
    }

    fn read(&self, file: &TensorIndex, key: &Key) -> Result<Entry> {
        let key = hex(key);
        let read = |part: &&str| Ok(file.read(&format!("{key}.{part}"), &Device::Cpu)?);
        let entry = self.parts.iter().map(read).collect::<Result<Entry>>()?;
        if file.metadata(&key) != Some(&hex(&checksum(&entry)?)) {
            return Err(damaged(file.path(), "holds other numbers than were written to it"));
        }
        Ok(entry.iter().map(|tensor| tensor.to_device(&self.device)).collect::<candle_core::Result<_>>()?)
    }

    /// Adds an entry. With a folder, entries are written whenever a file of them is together.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) -> Result<()> {
        if self.folder.is_some() {
            self.unwritten.push(key);
            self.unwritten_bytes +=
                entry.iter().map(|tensor| tensor.elem_count() * size_of::<f32>()).sum::<usize>();
        }
        self.entries.insert(key, Place::Memory(entry));
        if self.unwritten_bytes >= FILE_BYTES { self.write() } else { Ok(()) }
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&mut self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let keys = std::mem::take(&mut self.unwritten);
        self.unwritten_bytes = 0;
        if keys.is_empty() {
            return Ok(());
        }
        let (mut tensors, mut checksums) = (Vec::new(), BTreeMap::new());
        for key in &keys {
            if let Some(Place::Memory(entry)) = self.entries.get(key) {
                checksums.insert(hex(key), hex(&checksum(entry)?));
                let named = self.parts.iter().zip(entry);
                tensors.extend(named.map(|(part, tensor)| (format!("{}.{part}", hex(key)), tensor.clone())));
            }
        }
        // Named by what it holds: two runs that write at the same time write different files, or the same.
        let name = hex(&Sha256::digest(keys.concat()).into());
        let path = folder.join(format!("{}-{}.safetensors", self.kind, &name[..16]));
        files::write(&path, tensors, DType::F32, checksums)?;
        self.take_file(TensorIndex::open(&path)?);
        Ok(())
    }

    /// Computes some of the entries that were found, spread over all, again.
    ///
    /// # Errors
    /// If one differs from what was found; those of `compute`.
    pub(super) fn verify<T>(&self, found: &[(Key, T)], compute: impl Fn(&T) -> Result<Entry>) -> Result<()> {
        for (key, input) in found.iter().step_by(found.len().div_ceil(CHECKED).max(1)) {
            let Some(Place::File(place)) = self.entries.get(key) else { continue };
            let (saved, computed) = (self.get(key)?, compute(input)?);
            for (saved, computed) in saved.iter().zip(&computed) {
                if !is_close(saved, computed)? {
                    let path = self.files[*place].path();
                    return Err(damaged(path, "holds other numbers than the model gives"));
                }
            }
        }
        Ok(())
    }
}

fn damaged(path: &Path, what: &str) -> TrainError {
    TrainError::Encoded {
        path: path.into(),
        reason: format!("{what}; delete the file, and they are encoded again"),
    }
}

fn is_close(saved: &Tensor, computed: &Tensor) -> Result<bool> {
    if saved.dims() != computed.dims() {
        return Ok(false);
    }
    let largest = |tensor: &Tensor| tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
    let distance = f64::from(largest(&(saved - computed)?)?);
    Ok(distance <= TOLERANCE * f64::from(largest(computed)?).max(1.0))
}

/// The files of a kind in a folder, by name.
fn files_of(folder: &Path, kind: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(&format!("{kind}-")) && name.ends_with(".safetensors") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn checksum(entry: &[Tensor]) -> Result<Key> {
    let mut hasher = Sha256::new();
    for tensor in entry {
        update(&mut hasher, "", tensor)?;
    }
    Ok(hasher.finalize().into())
}

/// What identifies a network: its configuration, every weight, and the kind of device that it runs on.
///
/// # Errors
/// Those of candle.
pub(super) fn identity(config: &impl fmt::Debug, params: &Params) -> Result<Key> {
    let mut hasher = Sha256::new();
    hasher.update(format!("{config:?}"));
    hasher.update(if params.device().is_cpu() { "cpu" } else { "accelerator" });
    params.iter().try_for_each(|(name, tensor)| update(&mut hasher, name, tensor))?;
    Ok(hasher.finalize().into())
}

fn update(hasher: &mut Sha256, name: &str, tensor: &Tensor) -> Result<()> {
    hasher.update(name);
    hasher.update(format!("{:?}", tensor.dims()));
    let values = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    hasher.update(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    Ok(())
}

fn hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Key> {
    let mut key = Key::default();
    if text.len() != 2 * key.len() || !text.is_ascii() {
        return None;
    }
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const PARTS: &[&str] = &["a", "b"];

    fn entry(value: f32) -> Entry {
        vec![Tensor::new(&[value, 1.0], &Device::Cpu).unwrap(), Tensor::new(&[value], &Device::Cpu).unwrap()]
    }

    fn open(folder: &Path) -> Result<Encoded> {
        Encoded::open(Some(folder), "things", PARTS, &Device::Cpu)
    }

    fn numbers(entry: &Entry) -> Vec<Vec<f32>> {
        entry.iter().map(|tensor| tensor.to_vec1().unwrap()).collect()
    }

    #[test]
    fn entries_outlive_their_run_and_files_of_other_kinds_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("other-1.safetensors"), "not ours").unwrap();
        let mut first = open(folder.path()).unwrap();
        for key in 0..3u8 {
            first.insert([key; 32], entry(f32::from(key))).unwrap();
        }
        assert_eq!(first.numbers_in_memory(), 9);
        first.write().unwrap();
        assert_eq!(first.numbers_in_memory(), 0);
        let second = open(folder.path()).unwrap();
        for key in 0..3u8 {
            assert_eq!(numbers(&second.get(&[key; 32]).unwrap()), numbers(&entry(f32::from(key))));
        }
        assert!(!second.contains(&[3; 32]));
        let found = [([1; 32], 1.0f32), ([2; 32], 2.0)];
        second.verify(&found, |value| Ok(entry(*value))).unwrap();
        let error = second.verify(&found, |value| Ok(entry(value + 0.1))).unwrap_err().to_string();
        assert!(error.contains("other numbers than the model gives; delete the file"), "{error}");
    }

    #[test]
    fn no_flipped_byte_and_no_cut_goes_unnoticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = open(folder.path()).unwrap();
        first.insert([7; 32], entry(5.0)).unwrap();
        first.write().unwrap();
        let path = files_of(folder.path(), "things").unwrap().remove(0);
        let whole = std::fs::read(&path).unwrap();
        let is_right = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            // An entry that is not found is computed again, which is right too.
            let found =
                open(folder.path()).map(|encoded| encoded.contains(&[7; 32]).then(|| encoded.get(&[7; 32])));
            match found {
                Ok(Some(Ok(found))) => numbers(&found) == numbers(&entry(5.0)),
                Ok(None) | Ok(Some(Err(_))) | Err(_) => true,
            }
        };
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(is_right(&bytes), "byte {at}");
        }
        assert!((0..whole.len()).all(|length| is_right(&whole[..length])));
        // And a number that was changed is an error, with its file.
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = open(folder.path()).unwrap().get(&[7; 32]).unwrap_err().to_string();
        assert!(error.contains("things-") && error.contains("other numbers than were written"), "{error}");
    }
}
