//! How an image was made, as its file says it: for other programs, and as JSON.

use crate::cli::png::Parameters;
use serde_json::json;
use std::path::Path;
use votive_diffusion::SamplerKind;

/// All that an image depends on.
pub(crate) struct MadeWith<'a> {
    pub(crate) prompt: &'a str,
    /// Empty if none was given.
    pub(crate) negative_prompt: &'a str,
    pub(crate) model: &'a Path,
    pub(crate) weights: Weights<'a>,
    pub(crate) adapter: Option<&'a Path>,
    pub(crate) negative_model: Option<&'a Path>,
    pub(crate) sampler: SamplerKind,
    pub(crate) steps: usize,
    pub(crate) eta: f64,
    pub(crate) cfg: f64,
    pub(crate) seed: u64,
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// What was started from, and how much of it was made anew.
    pub(crate) image: Option<(&'a Path, f64)>,
    pub(crate) zero_terminal_snr: bool,
    /// Whether the noise was given, and not drawn from the seed.
    pub(crate) given_latents: bool,
}

/// Whose weights the U-Net has.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// Those of the model's file.
    File { hash: &'a str },
    /// Those that a run had reached, counted in its steps.
    Training { step: u64 },
}

impl MadeWith<'_> {
    /// The texts of a PNG file, under their keywords.
    pub(crate) fn texts(&self) -> [(&'static str, String); 2] {
        let (width, height) = self.size;
        let mut settings = vec![
            ("Steps", self.steps.to_string()),
            ("Sampler", shown(self.sampler).to_owned()),
            ("CFG scale", self.cfg.to_string()),
            ("Seed", self.seed.to_string()),
            ("Size", format!("{width}x{height}")),
        ];
        let (hash, step) = match self.weights {
            Weights::File { hash } => (Some(hash), None),
            Weights::Training { step } => (None, Some(step)),
        };
        settings.extend(hash.map(|hash| ("Model hash", hash.to_owned())));
        settings.push(("Model", name(self.model)));
        settings.extend(step.map(|step| ("Training step", step.to_string())));
        if self.eta != 0.0 {
            settings.push(("Eta", self.eta.to_string()));
        }
        let strength = self.image.map(|(_, strength)| strength);
        settings.extend(strength.map(|strength| ("Denoising strength", strength.to_string())));
        settings.push(("Version", format!("votive {}", env!("CARGO_PKG_VERSION"))));
        let (prompt, negative_prompt) = (self.prompt, self.negative_prompt);
        let parameters = Parameters { prompt, negative_prompt, settings };
        let json = json!({
            "version": env!("CARGO_PKG_VERSION"), "model": name(self.model), "model_hash": hash, "training_step": step,
            "adapter": self.adapter.map(name),
            "negative_model": self.negative_model.map(name),
            "prompt": prompt, "negative_prompt": negative_prompt, "sampler": self.sampler.name(),
            "steps": self.steps, "eta": self.eta, "cfg": self.cfg, "seed": self.seed, "width": width,
            "height": height, "image": self.image.map(|(image, _)| name(image)), "strength": strength,
            "zero_terminal_snr": self.zero_terminal_snr, "given_latents": self.given_latents,
        });
        [("parameters", parameters.to_text()), ("votive", json.to_string())]
    }
}

/// What other programs call a sampler.
fn shown(kind: SamplerKind) -> &'static str {
    match kind {
        SamplerKind::Ddim => "DDIM",
        SamplerKind::Ddpm => "DDPM",
        SamplerKind::Dpmpp => "DPM++ 2M",
        SamplerKind::Euler => "Euler",
        SamplerKind::EulerA => "Euler a",
        SamplerKind::Pndm => "PLMS",
    }
}

/// The last part of a path: where things lay on one machine is nobody else's business.
fn name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
