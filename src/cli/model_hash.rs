//! Which weights an image was made with: the beginning of their SHA-256, as other programs show it.

use crate::cli::{Failure, Outcome};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Digits that are shown.
const DIGITS: usize = 10;

/// The hash of a folder's U-Net: of its one file of weights, or of its shards one after another.
///
/// # Errors
/// If the files cannot be read.
pub(crate) fn of_unet(model: &Path) -> Outcome<String> {
    let folder = model.join("unet");
    let mut digest = Sha256::new();
    for path in weights(&folder)? {
        let mut file = File::open(&path).map_err(|error| Failure::file(&path, error))?;
        let mut block = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut block).map_err(|error| Failure::file(&path, error))?;
            if read == 0 {
                break;
            }
            digest.update(&block[..read]);
        }
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hex[..DIGITS].to_owned())
}

/// The files that a U-Net is read from: the whole one, else the shards in order, else the one in half precision.
fn weights(folder: &Path) -> Outcome<Vec<PathBuf>> {
    const STEM: &str = "diffusion_pytorch_model";
    let whole = folder.join(format!("{STEM}.safetensors"));
    if whole.exists() {
        return Ok(vec![whole]);
    }
    if !folder.join(format!("{STEM}.safetensors.index.json")).exists() {
        return Ok(vec![folder.join(format!("{STEM}.fp16.safetensors"))]);
    }
    let entries = std::fs::read_dir(folder).map_err(|error| Failure::file(folder, error))?;
    let is_shard = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{STEM}-")) && name.ends_with(".safetensors")
    };
    let mut shards: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_shard).collect();
    shards.sort();
    Ok(shards)
}
