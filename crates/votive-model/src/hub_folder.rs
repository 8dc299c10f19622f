//! Whole model folders in the hub's layout, made from another folder and other weights.
//!
//! Configuration, tokenizer and licence are the base's own files, so that what this program does not read is not lost.

use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::files;
use crate::language::{CausalLmConfig, with_dtype};
use crate::params::Params;
use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of a weight file beyond which weights are spread over several: the hub's own habit.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// What belongs to a language model beside its weights and `config.json`: names, or beginnings of names.
const COMPANIONS: [&str; 16] = [
    "tokenizer",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template",
    "additional_chat_templates",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "LICENSE",
    "LICENCE",
    "NOTICE",
    "USE_POLICY",
];

/// torch's name of a type that weights are stored in.
///
/// # Errors
/// If it is not F32, F16 or BF16.
pub fn torch_dtype(float: DType) -> Result<&'static str> {
    match float {
        DType::F32 => Ok("float32"),
        DType::F16 => Ok("float16"),
        DType::BF16 => Ok("bfloat16"),
        other => Err(ModelError::Tokens(format!("weights are stored as f32, f16 or bf16, not {other:?}"))),
    }
}

/// The type that a folder's `config.json` says its weights are stored in; F32 if it says nothing known.
///
/// # Errors
/// If the file is missing or malformed.
pub fn stored_dtype(folder: &Path) -> Result<DType> {
    let config = ConfigFile::read(&folder.join("config.json"))?;
    let named = config.get("torch_dtype").or_else(|| config.get("dtype")).and_then(Value::as_str);
    Ok(match named {
        Some("float16") => DType::F16,
        Some("bfloat16") => DType::BF16,
        _ => DType::F32,
    })
}

/// Makes a folder that appears only when `fill` has written all of it.
///
/// # Errors
/// Those of `fill`, and if files cannot be written, or `path` is there and not empty; nothing is left behind then.
pub fn write_folder<E: From<ModelError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let path = std::path::absolute(path).map_err(at(path))?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".partial-{}", std::process::id()));
    let partial = path.with_file_name(name);
    fs::create_dir_all(&partial).map_err(at(&partial))?;
    let written = fill(&partial).and_then(|()| {
        sync(&partial).map_err(at(&partial))?;
        Ok(fs::rename(&partial, &path).map_err(at(&path))?)
    });
    written.inspect_err(|_| {
        // Best effort: the error that matters is the one that led here.
        let _ = fs::remove_dir_all(&partial);
    })
}

fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync(&path)? } else { fs::File::open(&path)?.sync_all()? }
    }
    fs::File::open(folder)?.sync_all()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ModelError + '_ {
    move |source| ModelError::File { path: path.into(), source }
}

/// Copies what belongs to a language model beside its weights, and `config.json` with the type of the weights.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy_companions(base: &Path, folder: &Path, float: DType) -> Result<()> {
    let config = ConfigFile::read(&base.join("config.json"))?;
    files::write_json(&folder.join("config.json"), &with_dtype(config.value(), torch_dtype(float)?))?;
    copy_tokenizer(base, folder)
}

/// Copies tokenizer, chat templates, generation settings and licences.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy_tokenizer(base: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(base).map_err(at(base))? {
        let path = entry.map_err(at(base))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if COMPANIONS.iter().any(|start| name.starts_with(start)) {
            copy(&path, &folder.join(&name))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop).map_err(at(from));
    }
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let path = entry.map_err(at(from))?.path();
        copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Writes `model.safetensors` of a language model, or as many shards as `shard_bytes` asks for and their index.
///
/// # Errors
/// If a file cannot be written, or the parameters carry an adapter, which has files of its own.
pub fn write_weights(
    folder: &Path,
    (config, params): (&CausalLmConfig, &Params),
    float: DType,
    shard_bytes: u64,
) -> Result<()> {
    write_named(folder, (|name| config.name_in_files(name), params), float, shard_bytes)
}

/// The same of a reward model, whose tensors files call by their paths.
///
/// # Errors
/// Those of [`write_weights`].
pub fn write_reward_weights(folder: &Path, params: &Params, float: DType, shard_bytes: u64) -> Result<()> {
    write_named(folder, (str::to_owned, params), float, shard_bytes)
}

fn write_named(
    folder: &Path,
    (name_in_files, params): (impl Fn(&str) -> String, &Params),
    float: DType,
    shard_bytes: u64,
) -> Result<()> {
    if params.lora().is_some() {
        return Err(ModelError::Adapter(
            "merge it or save it by itself; a model folder holds whole weights".to_owned(),
        ));
    }
    let bytes = |tensor: &Tensor| (tensor.elem_count() * float.size_in_bytes()) as u64;
    let mut shards: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let (mut total, mut in_shard) = (0, 0);
    for (name, tensor) in params.iter() {
        let bytes = bytes(tensor);
        if in_shard > 0 && in_shard + bytes > shard_bytes {
            shards.push(Vec::new());
            in_shard = 0;
        }
        (total, in_shard) = (total + bytes, in_shard + bytes);
        if let Some(shard) = shards.last_mut() {
            shard.push((name_in_files(name), tensor.clone()));
        }
    }
    let count = shards.len();
    let mut map = Map::new();
    for (index, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => PathBuf::from("model.safetensors"),
            _ => PathBuf::from(format!("model-{:05}-of-{count:05}.safetensors", index + 1)),
        };
        map.extend(shard.iter().map(|(name, _)| (name.clone(), json!(file))));
        files::write(&folder.join(&file), shard, float, BTreeMap::new())?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        files::write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::language::llama::LlamaConfig;
    use candle_core::Device;

    #[test]
    fn weights_are_spread_over_shards_and_found_again() {
        let tensors: BTreeMap<String, Tensor> = (0..5)
            .map(|i| (format!("t{i}"), Tensor::full(i as f32, (2, 3), &Device::Cpu).unwrap()))
            .collect();
        let params = Params::new("test", tensors, &Device::Cpu);
        let config = LlamaConfig::llama(40, (32, 64), 2, (4, 2), 64).into();
        for (limit, expected) in [(1000, 1), (60, 3), (1, 5)] {
            let folder = tempfile::tempdir().unwrap();
            write_weights(folder.path(), (&config, &params), DType::F32, limit).unwrap();
            let is_weights = |name: &str| name.ends_with(".safetensors");
            let names =
                fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.filter(|name| is_weights(name)).count(), expected);
            let found = files::read_folder(folder.path(), "model", &Device::Cpu).unwrap();
            let values: Vec<f32> =
                found.values().map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]).collect();
            assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("made");
        let failed = write_folder(&target, |folder| {
            fs::write(folder.join("half"), "x").unwrap();
            Err(ModelError::Tokens("no".to_owned()))
        });
        assert!(failed.is_err() && fs::read_dir(parent.path()).unwrap().count() == 0);
        let write = || {
            write_folder(&target, |folder| {
                fs::create_dir(folder.join("inner")).unwrap();
                fs::write(folder.join("inner/file"), "x").unwrap();
                Ok::<_, ModelError>(())
            })
        };
        write().unwrap();
        assert_eq!(fs::read(target.join("inner/file")).unwrap(), b"x");
        assert!(write().is_err(), "what is there is not replaced");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
