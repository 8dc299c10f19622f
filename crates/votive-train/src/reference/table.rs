//! Log-probabilities of the reference, computed once for every row, and a file that keeps them for other runs.
//!
//! An entry's key is the SHA-256 of everything that decides the number: the reference's configuration and every one of
//! its weights, the token ids and the completion among them, and the kind of device. So an entry that does not belong
//! to a run is never found, and one file may serve many models and data sets.

use crate::checkpoint::at;
use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Sample};
use candle_core::{DType, Tensor};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use votive_model::{Params, files};

type Key = [u8; 32];

/// What a file's numbers may differ by from those computed now: other processors round differently.
pub(super) const TOLERANCE: f64 = 1e-4;

/// Rows of a file that are computed again to see whether it is right.
const CHECKED: usize = 4;

const KEYS: &str = "keys";
const LOGPS: &str = "logps";

/// For every row the log-probabilities of its sequences: chosen and rejected, the one completion, or those of a list.
pub(super) struct Table {
    pub(super) rows: Vec<Vec<f32>>,
    /// Rows that came from a file.
    pub(super) found: usize,
}

/// Computes the log-probabilities of all rows, those held out last, under `policy` as it is, but for those that lie in `file`, to which it
/// adds what was missing.
///
/// # Errors
/// If the file is damaged, holds numbers that are not the model's, or cannot be written.
pub(super) fn tabulate<F: FrontEnd>(
    front: &F,
    policy: &Params,
    batch_size: usize,
    file: Option<&Path>,
    progress: impl Fn(usize, usize),
) -> Result<Table> {
    let network = front.network(&policy.untracked()?)?;
    let all = front.rows() + front.held_out();
    let Some(file) = file else {
        let rows = compute(front, &network, &(0..all).collect::<Vec<_>>(), batch_size, progress)?;
        return Ok(Table { rows, found: 0 });
    };
    let mut entries = read(file)?;
    let keys = keys(front, policy)?;
    let known = |row: &usize| keys[*row].iter().all(|key| entries.contains_key(key));
    let (found, missing): (Vec<usize>, Vec<usize>) = (0..all).partition(known);
    verify(front, &network, file, &found, |row| keys[row].iter().map(|key| entries[key]).collect())?;
    let computed = compute(front, &network, &missing, batch_size, progress)?;
    for (row, logps) in missing.iter().zip(computed) {
        entries.extend(keys[*row].iter().copied().zip(logps));
    }
    if !missing.is_empty() {
        write(file, &entries)?;
    }
    let rows = keys.iter().map(|keys| keys.iter().map(|key| entries[key]).collect()).collect();
    Ok(Table { rows, found: found.len() })
}

fn compute<F: FrontEnd>(
    front: &F,
    network: &F::Network,
    rows: &[usize],
    batch_size: usize,
    progress: impl Fn(usize, usize),
) -> Result<Vec<Vec<f32>>> {
    let mut table = Vec::with_capacity(rows.len());
    let alike = rows.chunk_by(|a, b| front.bucket(*a) == front.bucket(*b));
    for group in alike.flat_map(|rows| rows.chunks(batch_size.max(1))) {
        let batch = front.batch(0, &samples(group))?;
        let logps = front.logps(network, &batch)?.to_vec1::<f32>()?;
        let sides = logps.len() / group.len();
        table
            .extend((0..group.len()).map(|i| (0..sides).map(|side| logps[side * group.len() + i]).collect()));
        progress(table.len(), rows.len());
    }
    Ok(table)
}

fn samples(rows: &[usize]) -> Vec<Sample> {
    rows.iter().map(|row| Sample { row: *row, position: *row }).collect()
}

/// The keys of every row's sequences.
fn keys<F: FrontEnd>(front: &F, policy: &Params) -> Result<Vec<Vec<Key>>> {
    let mut model = Sha256::new();
    model.update(front.network_identity());
    model.update(if policy.device().is_cpu() { "cpu" } else { "accelerator" });
    let below = policy.without_adapter();
    let adapter = policy.trainable();
    let mut hash = |name: &str, tensor: &Tensor| -> Result<()> {
        model.update(name);
        model.update(format!("{:?}", tensor.dims()));
        let values = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        model.update(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        Ok(())
    };
    below.iter().try_for_each(|(name, tensor)| hash(name, tensor))?;
    adapter.iter().try_for_each(|(name, tensor)| hash(name, tensor))?;
    below.stored().try_for_each(|(name, matrix)| hash(name, &matrix.to_tensor()?))?;
    let model = model.finalize();
    (0..front.rows() + front.held_out())
        .map(|row| {
            let batch = front.batch(0, &samples(&[row]))?;
            let key = |identity: Vec<u8>| Sha256::new().chain_update(model).chain_update(identity).finalize();
            Ok(front.sequence_identities(&batch).into_iter().map(|identity| key(identity).into()).collect())
        })
        .collect()
}

/// Computes some of the rows that were found, spread over all, again.
fn verify<F: FrontEnd>(
    front: &F,
    network: &F::Network,
    file: &Path,
    found: &[usize],
    saved: impl Fn(usize) -> Vec<f32>,
) -> Result<()> {
    let step = found.len().div_ceil(CHECKED).max(1);
    let rows: Vec<usize> = found.iter().step_by(step).copied().collect();
    let computed = compute(front, network, &rows, 1, |_, _| {})?;
    for (row, computed) in rows.iter().zip(computed) {
        for (saved, computed) in saved(*row).into_iter().zip(computed) {
            let distance = f64::from((saved - computed).abs());
            if distance.is_nan() || distance > TOLERANCE * f64::from(computed.abs()).max(1.0) {
                let reason = format!(
                    "data row {}: log-probability {saved}, but the model gives {computed}; the file is damaged, delete it",
                    front.source_row(*row)
                );
                return Err(TrainError::ReferenceFile { path: file.into(), reason });
            }
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<BTreeMap<Key, f32>> {
    if !file.exists() {
        return Ok(BTreeMap::new());
    }
    let broken = |reason: &str| TrainError::ReferenceFile { path: file.into(), reason: reason.to_owned() };
    let tensors = files::read(file, &candle_core::Device::Cpu)?.tensors;
    let (Some(keys), Some(logps)) = (tensors.get(KEYS), tensors.get(LOGPS)) else {
        return Err(broken("holds no `keys` and `logps`, so it is no file of reference log-probabilities"));
    };
    let keys = keys.to_vec2::<u8>().map_err(|_| broken("`keys` are no rows of bytes"))?;
    let logps = logps.to_vec1::<f32>().map_err(|_| broken("`logps` are no list of f32"))?;
    if keys.len() != logps.len() {
        return Err(broken("has not as many `logps` as `keys`"));
    }
    keys.into_iter()
        .zip(logps)
        .map(|(key, logp)| {
            Ok((Key::try_from(key).map_err(|_| broken("its `keys` are not 32 bytes long"))?, logp))
        })
        .collect()
}

fn write(file: &Path, entries: &BTreeMap<Key, f32>) -> Result<()> {
    let keys: Vec<u8> = entries.keys().flatten().copied().collect();
    let device = candle_core::Device::Cpu;
    let keys = Tensor::from_vec(keys, (entries.len(), size_of::<Key>()), &device)?;
    let logps = Tensor::from_vec(entries.values().copied().collect::<Vec<_>>(), entries.len(), &device)?;
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).map_err(at(parent))?;
    }
    let tensors = [(KEYS.to_owned(), keys), (LOGPS.to_owned(), logps)];
    Ok(files::write(file, tensors, DType::F32, BTreeMap::new())?)
}
