//! `model_index.json`: which pipeline a folder holds, and of what parts.

use super::component::Component;
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::files;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A pipeline of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineClass {
    /// Stable Diffusion 1 and 2.
    StableDiffusion,
    /// Stable Diffusion XL, the base model.
    StableDiffusionXl,
}

impl PipelineClass {
    const ALL: [Self; 2] = [Self::StableDiffusion, Self::StableDiffusionXl];

    /// Its name in diffusers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StableDiffusion => "StableDiffusionPipeline",
            Self::StableDiffusionXl => "StableDiffusionXLPipeline",
        }
    }

    /// The networks that it has.
    #[must_use]
    pub fn components(self) -> &'static [Component] {
        use Component::{TextEncoder, TextEncoder2, UNet, Vae};
        match self {
            Self::StableDiffusion => &[UNet, Vae, TextEncoder],
            Self::StableDiffusionXl => &[UNet, Vae, TextEncoder, TextEncoder2],
        }
    }

    /// The folders of its tokenizers, in the order of the text encoders.
    #[must_use]
    pub fn tokenizers(self) -> &'static [&'static str] {
        match self {
            Self::StableDiffusion => &["tokenizer"],
            Self::StableDiffusionXl => &["tokenizer", "tokenizer_2"],
        }
    }

    /// Parts that it may have and that nothing here reads.
    fn idle(self) -> &'static [&'static str] {
        match self {
            Self::StableDiffusion => &["safety_checker", "feature_extractor", "image_encoder"],
            Self::StableDiffusionXl => &["feature_extractor", "image_encoder"],
        }
    }
}

const ZEROS: &str = "force_zeros_for_empty_prompt";
const REFINER: &str = "requires_aesthetics_score";
/// Switches that say nothing about what is computed here.
const HARMLESS: [&str; 2] = ["requires_safety_checker", "add_watermarker"];

/// A `model_index.json` that has been read.
#[derive(Clone, Debug)]
pub(super) struct ModelIndex {
    file: ConfigFile,
    class: PipelineClass,
}

impl ModelIndex {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let file = ConfigFile::read(&root.join("model_index.json"))?;
        file.only(REFINER, &[json!(false)]).map_err(|_| {
            file.unsupported(
                REFINER,
                "the refiner of SDXL, which is told an aesthetic score, is not supported",
            )
        })?;
        file.only("_class_name", &PipelineClass::ALL.map(|class| json!(class.name())))?;
        let named = file.maybe_str("_class_name")?.unwrap_or_default();
        let class = PipelineClass::ALL.into_iter().find(|class| class.name() == named);
        let class = class.unwrap_or(PipelineClass::StableDiffusion);
        for component in class.components() {
            file.only(component.folder(), &[json!(component.class())])?;
        }
        Ok(Self { file, class })
    }

    pub(super) fn class(&self) -> PipelineClass {
        self.class
    }

    /// Whether zeros stand for a negative prompt that is not given, and not the empty prompt.
    pub(super) fn forces_zeros(&self) -> Result<bool> {
        match self.class {
            PipelineClass::StableDiffusion => Ok(false),
            PipelineClass::StableDiffusionXl => self.file.bool_or(ZEROS, true),
        }
    }

    /// Parts and settings of the folder that nothing here reads.
    pub(super) fn unused(&self) -> Vec<String> {
        let folders = self.class.components().iter().map(|component| component.folder());
        let known: Vec<&str> = folders
            .chain(self.class.tokenizers().iter().copied())
            .chain(HARMLESS)
            .chain(["scheduler", ZEROS, REFINER])
            .collect();
        let is_absent = |value: &Value| match value {
            Value::Array(parts) => parts.iter().all(Value::is_null),
            value => value.is_null(),
        };
        let fields = self.file.value().as_object().into_iter().flatten();
        fields
            .filter(|(name, value)| {
                !name.starts_with('_') && !known.contains(&name.as_str()) && !is_absent(value)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Writes the index of the same pipeline without the parts that nothing here reads.
    pub(super) fn save(&self, root: &Path) -> Result<()> {
        let entry = |part: &str| self.file.get(part).cloned();
        let tokenizers = self.class.tokenizers().iter().map(|name| {
            ((*name).to_owned(), entry(name).unwrap_or_else(|| json!(["transformers", "CLIPTokenizer"])))
        });
        let scheduler = entry("scheduler").unwrap_or_else(|| json!(["diffusers", "DDIMScheduler"]));
        let mut index = index(self.class, tokenizers.collect(), scheduler);
        if self.class == PipelineClass::StableDiffusionXl {
            index.insert(ZEROS.to_owned(), json!(self.forces_zeros()?));
        }
        write(root, index)
    }
}

/// Writes `model_index.json` for a Stable Diffusion folder with a CLIP tokenizer and a scheduler of the given diffusers
/// class, for example `DDIMScheduler`.
///
/// # Errors
/// If the file cannot be written.
pub fn save_index(root: &Path, scheduler_class: &str) -> Result<()> {
    let tokenizer = ("tokenizer".to_owned(), json!(["transformers", "CLIPTokenizer"]));
    let scheduler = json!(["diffusers", scheduler_class]);
    write(root, index(PipelineClass::StableDiffusion, vec![tokenizer], scheduler))
}

fn index(class: PipelineClass, tokenizers: Vec<(String, Value)>, scheduler: Value) -> Map<String, Value> {
    let mut index = Map::new();
    index.insert("_class_name".to_owned(), json!(class.name()));
    index.insert("_diffusers_version".to_owned(), json!(super::DIFFUSERS_VERSION));
    index.extend(class.idle().iter().map(|part| ((*part).to_owned(), json!([null, null]))));
    if class == PipelineClass::StableDiffusion {
        index.insert("requires_safety_checker".to_owned(), json!(false));
    }
    index.extend(class.components().iter().map(|part| (part.folder().to_owned(), json!(part.class()))));
    index.extend(tokenizers);
    index.insert("scheduler".to_owned(), scheduler);
    index.sort_keys();
    index
}

fn write(root: &Path, index: Map<String, Value>) -> Result<(), ModelError> {
    files::write_json(&root.join("model_index.json"), &Value::Object(index))
}
