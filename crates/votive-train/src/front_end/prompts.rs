//! From prompts to what a U-Net is told: the tokenizers and frozen text encoders of a Stable Diffusion folder.

use crate::error::Result;
use candle_core::{Device, Tensor};
use votive_data::ClipTokenizer;
use votive_diffusion::Conditioning;
use votive_model::PipelineLora;
use votive_model::stable_diffusion::{StableDiffusionFolder, TextEncoders};

/// The tokenizers of a folder, each with its text encoder.
#[derive(Debug)]
pub struct PromptEncoder {
    tokenizers: Vec<ClipTokenizer>,
    encoders: TextEncoders,
    forces_zeros: bool,
    device: Device,
}

/// Prompts as the text encoders see them.
#[derive(Debug)]
pub struct EncodedPrompts {
    /// One prompt a row; sizes are not among it.
    pub conditioning: Conditioning,
    /// For each prompt the tokens that no encoder saw, because they did not fit.
    pub truncated_tokens: Vec<usize>,
}

impl PromptEncoder {
    /// Reads the tokenizers of a folder and its text encoders, under their adapters.
    ///
    /// # Errors
    /// If a file is missing or malformed, or a tokenizer is larger than its encoder's vocabulary.
    pub fn open(folder: &StableDiffusionFolder, adapters: &PipelineLora, device: &Device) -> Result<Self> {
        let encoders = folder.read_text_encoders(adapters, device)?;
        let load = |(folder, vocab_size)| -> Result<ClipTokenizer> {
            let tokenizer = ClipTokenizer::load(folder)?;
            tokenizer.check_model_vocabulary(vocab_size)?;
            Ok(tokenizer)
        };
        let folders = folder.tokenizers();
        let sizes = encoders.configs().into_iter().map(|config| config.vocab_size);
        let tokenizers = folders.iter().map(AsRef::as_ref).zip(sizes).map(load).collect::<Result<_>>()?;
        let forces_zeros = folder.forces_zeros_for_no_prompt();
        Ok(Self { tokenizers, encoders, forces_zeros, device: device.clone() })
    }

    /// The ids of a prompt, those of every tokenizer one after another: what decides how it is encoded.
    ///
    /// # Errors
    /// If a tokenizer fails.
    pub(super) fn ids(&self, prompt: &str) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        for tokenizer in &self.tokenizers {
            all.extend(tokenizer.encode(prompt)?.ids);
        }
        Ok(all)
    }

    /// Whether prompts come in one vector, too.
    pub(super) fn has_pooled(&self) -> bool {
        self.tokenizers.len() > 1
    }

    /// Encodes prompts, one a row.
    ///
    /// # Errors
    /// If a tokenizer or an encoder fails.
    pub fn encode<S: AsRef<str>>(&self, prompts: &[S]) -> Result<EncodedPrompts> {
        let mut truncated_tokens = vec![0; prompts.len()];
        let mut ids = Vec::with_capacity(self.tokenizers.len());
        for tokenizer in &self.tokenizers {
            let mut own = Vec::with_capacity(prompts.len() * tokenizer.positions());
            for (prompt, truncated) in prompts.iter().zip(&mut truncated_tokens) {
                let encoded = tokenizer.encode(prompt.as_ref())?;
                *truncated = encoded.truncated_tokens.max(*truncated);
                own.extend(encoded.ids);
            }
            ids.push(Tensor::from_vec(own, (prompts.len(), tokenizer.positions()), &self.device)?);
        }
        Ok(EncodedPrompts { conditioning: self.encoders.encode(&ids)?.detach(), truncated_tokens })
    }

    /// What stands for a negative prompt that is not given, in one row: the empty prompt, or zeros if the folder says so.
    ///
    /// # Errors
    /// As [`PromptEncoder::encode`].
    pub fn no_prompt(&self) -> Result<Conditioning> {
        let empty = self.encode(&[""])?.conditioning;
        Ok(if self.forces_zeros { empty.zeros_like()? } else { empty })
    }
}
