//! `scheduler_config.json`, the file in which diffusers describes a schedule and a sampler.
//!
//! Every scheduler class of diffusers reads the same file and takes what it knows, with its own default where a
//! field is absent; so the fields stay as they were written and each reader asks for them with its default.
//! Checked against: diffusers 0.42.1, `ConfigMixin.extract_init_dict`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{DiffusionError, Result};

/// Classes whose configuration describes a variance-preserving schedule, and so serves every sampler here.
const CLASSES: &[&str] = &[
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
];

/// Every constructor argument of [`CLASSES`]. A field outside this list could mean anything and is refused.
const FIELDS: &[&str] = &[
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// The fields of one `scheduler_config.json`, as written.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    origin: String,
    fields: Map<String, Value>,
}

impl SchedulerConfig {
    /// The scheduler of a Stable Diffusion folder, set up as diffusers' `StableDiffusionPipeline` does it.
    ///
    /// The pipeline makes two corrections when it loads a folder, which files from before they were standard need:
    /// `steps_offset` is 1, and `clip_sample` is false because latents are not confined to [−1, 1].
    ///
    /// # Errors
    /// As [`SchedulerConfig::read`].
    pub fn from_model_folder(folder: &Path) -> Result<Self> {
        let mut config = Self::read(&folder.join("scheduler").join("scheduler_config.json"))?;
        config.fields.insert("steps_offset".to_owned(), json!(1));
        config.fields.insert("clip_sample".to_owned(), json!(false));
        Ok(config)
    }

    /// Reads a file, with no correction.
    ///
    /// # Errors
    /// [`DiffusionError::Read`], or as [`SchedulerConfig::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| DiffusionError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Parses the text of a file; `origin` names it in errors.
    ///
    /// # Errors
    /// [`DiffusionError::Parse`], [`DiffusionError::Class`] for a scheduler of another kind (flow matching, EDM,
    /// consistency models), [`DiffusionError::UnknownField`].
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let origin = origin.to_owned();
        let fields: Map<String, Value> = serde_json::from_str(&without_infinities(text))
            .map_err(|source| DiffusionError::Parse { origin: origin.clone(), source })?;
        if let Some(class) = fields.get("_class_name").filter(|class| !is_supported(class)) {
            let found = class.as_str().map_or_else(|| class.to_string(), str::to_owned);
            return Err(DiffusionError::Class { origin, found, supported: CLASSES.join(", ") });
        }
        if let Some(field) =
            fields.keys().find(|field| !field.starts_with('_') && !FIELDS.contains(&field.as_str()))
        {
            return Err(DiffusionError::UnknownField { field: field.clone(), origin });
        }
        Ok(Self { origin, fields })
    }

    /// The schedule of Stable Diffusion 1.x, as its pipeline samples from it with DDIM.
    #[must_use]
    pub fn stable_diffusion() -> Self {
        let fields = [
            ("_class_name", json!("DDIMScheduler")),
            ("beta_end", json!(0.012)),
            ("beta_schedule", json!("scaled_linear")),
            ("beta_start", json!(0.00085)),
            ("clip_sample", json!(false)),
            ("num_train_timesteps", json!(1000)),
            ("prediction_type", json!("epsilon")),
            ("set_alpha_to_one", json!(false)),
            ("steps_offset", json!(1)),
            ("timestep_spacing", json!("leading")),
            ("trained_betas", Value::Null),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        Self { origin: "Stable Diffusion's schedule".to_owned(), fields }
    }

    /// The same schedule, rescaled so that nothing of the latents is left at the last timestep (Lin et al. 2023,
    /// arXiv:2305.08891, algorithm 1), whatever the file says.
    #[must_use]
    pub fn with_zero_terminal_snr(mut self) -> Self {
        self.fields.insert("rescale_betas_zero_snr".to_owned(), json!(true));
        self
    }

    /// The text of the file, fields in the order in which they were read.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.fields.clone()))
    }

    /// A field that is present and not null.
    fn value(&self, field: &'static str) -> Option<&Value> {
        debug_assert!(FIELDS.contains(&field), "{field} is missing in FIELDS");
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// The error for a field that is present but will not do.
    pub(crate) fn refuse(&self, field: &'static str, expected: impl Into<String>) -> DiffusionError {
        let found = self.fields.get(field).map_or_else(|| "absent".to_owned(), Value::to_string);
        DiffusionError::Field { origin: self.origin.clone(), field, expected: expected.into(), found }
    }

    pub(crate) fn flag(&self, field: &'static str, default: bool) -> Result<bool> {
        match self.value(field) {
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(field, "true or false")),
            None => Ok(default),
        }
    }

    pub(crate) fn count(&self, field: &'static str, default: usize) -> Result<usize> {
        match self.value(field) {
            Some(value) => value
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .ok_or_else(|| self.refuse(field, "a whole number, not negative")),
            None => Ok(default),
        }
    }

    pub(crate) fn number(&self, field: &'static str, default: f64) -> Result<f64> {
        match self.value(field) {
            Some(value) => value.as_f64().ok_or_else(|| self.refuse(field, "a number")),
            None => Ok(default),
        }
    }

    pub(crate) fn numbers(&self, field: &'static str) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let numbers =
            value.as_array().and_then(|items| items.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
        numbers.map(Some).ok_or_else(|| self.refuse(field, "a list of numbers"))
    }

    /// One of several names.
    pub(crate) fn choice<T: Copy>(&self, field: &'static str, names: &[(&str, T)], default: T) -> Result<T> {
        let Some(value) = self.value(field) else { return Ok(default) };
        let chosen = value.as_str().and_then(|found| names.iter().find(|(name, _)| *name == found));
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.refuse(field, names.join(" or "))
        })
    }

    /// Refuses a switch that changes the maths in a way that no sampler here follows.
    pub(crate) fn must_be_off(&self, fields: &[&'static str]) -> Result<()> {
        for field in fields {
            if self.flag(field, false)? {
                return Err(self.refuse(field, "false (this variant is not implemented)"));
            }
        }
        Ok(())
    }
}

fn is_supported(class: &Value) -> bool {
    class.as_str().is_some_and(|name| CLASSES.contains(&name))
}

/// Python writes `-Infinity` for the default of `lambda_min_clipped`, which is no JSON; null means the default too.
fn without_infinities(text: &str) -> String {
    let mut in_string = false;
    let pieces = text.split_inclusive('"').map(|piece| {
        let outside = !in_string;
        in_string = !in_string;
        if outside { piece.replace("-Infinity", "null") } else { piece.to_owned() }
    });
    pieces.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SchedulerConfig> {
        SchedulerConfig::parse(text, "scheduler_config.json")
    }

    #[test]
    fn a_scheduler_of_another_kind_is_named() {
        let error = parse(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#).unwrap_err();
        assert!(
            error.to_string().contains("unsupported scheduler class `FlowMatchEulerDiscreteScheduler`"),
            "{error}"
        );
        let error = parse(r#"{"_class_name": "DDIMScheduler", "shift": 3.0}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `shift`"), "{error}");
        let error = parse("[1, 2").unwrap_err();
        assert!(error.to_string().starts_with("scheduler_config.json: not a JSON object"), "{error}");
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named_with_its_value() {
        let config = parse(r#"{"steps_offset": -1, "clip_sample": "no"}"#).unwrap();
        let error = config.count("steps_offset", 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "scheduler_config.json: field `steps_offset` is -1, expected a whole number, not negative"
        );
        assert!(
            config.flag("clip_sample", true).unwrap_err().to_string().contains("`clip_sample` is \"no\"")
        );
    }

    #[test]
    fn null_and_minus_infinity_mean_the_default() {
        let config =
            parse(r#"{"trained_betas": null, "lambda_min_clipped": -Infinity, "solver_type": "-Infinity"}"#);
        let config = config.unwrap();
        assert_eq!(config.numbers("trained_betas").unwrap(), None);
        assert_eq!(config.number("lambda_min_clipped", f64::NEG_INFINITY).unwrap(), f64::NEG_INFINITY);
        assert_eq!(config.fields["solver_type"], json!("-Infinity"));
    }

    #[test]
    fn the_text_of_a_configuration_reads_back() {
        let config = SchedulerConfig::stable_diffusion();
        assert_eq!(parse(&config.to_json()).unwrap().fields, config.fields);
    }

    #[test]
    fn a_model_folder_is_read_as_the_pipeline_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = SchedulerConfig::from_model_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("scheduler_config.json"), "{error}");

        std::fs::create_dir(folder.path().join("scheduler")).unwrap();
        let old = r#"{"_class_name": "PNDMScheduler", "skip_prk_steps": true}"#;
        std::fs::write(folder.path().join("scheduler/scheduler_config.json"), old).unwrap();
        let config = SchedulerConfig::from_model_folder(folder.path()).unwrap();
        assert_eq!(config.count("steps_offset", 0).unwrap(), 1);
        assert!(!config.flag("clip_sample", true).unwrap());
    }
}
