//! What a recipe says of noise and times.

use crate::error::Result;
use crate::front_end::BetaConvention;
use crate::recipe::{Resolver, Setting, from_whole_numbers, number, whole_numbers};
use std::collections::BTreeSet;
use std::path::Path;
use toml_edit::{InlineTable, Value};
use votive_diffusion::{
    InversionBy, InversionPlan, LossWeight, NoisePolicy, TimestepPolicy, TimestepSharing,
};

/// Noise and times.
#[derive(Clone, Debug)]
pub struct DiffusionPlan {
    /// What β multiplies.
    pub beta_convention: BetaConvention,
    /// Which times are drawn.
    pub timesteps: TimestepPolicy,
    /// Whether the sides of a pair share their time.
    pub timestep_sharing: TimestepSharing,
    /// Whether the sides of a pair share their noise.
    pub noise: NoisePolicy,
    /// What the error at each time counts.
    pub weight: LossWeight,
    /// Whether the schedule is rescaled to end without signal, whatever the model's folder says.
    pub zero_terminal_snr: bool,
    /// Share of captions that are emptied.
    pub caption_dropout: f64,
    /// Pixels along a side; 0 for the model's own.
    pub resolution: u32,
}

const TIMESTEPS: &str = "Times to draw from: all of the schedule, some, bins with probability ∝ γ^k counted from the \
                         noisy end (Rethinking-DPO), or the schedule's length times the sigmoid of a normal number.";
const ZERO_TERMINAL_SNR: &str =
    "Rescale the schedule so that its last time is pure noise; final/ says so if it holds whole weights.";

/// Some choices have keys of their own; those of the others are refused.
pub(super) fn diffusion(r: &mut Resolver) -> DiffusionPlan {
    let beta_convention = r.named(
        "diffusion.beta_convention",
        &[(BetaConvention::Paper, "paper"), (BetaConvention::Diffusers, "diffusers")],
        BetaConvention::Paper,
        "What β multiplies: half the margin (the paper) or the margin (the script in diffusers).",
    );
    let timesteps = r.shaped(
        "diffusion.timesteps",
        "\"uniform\" | a list of whole numbers ≥ 0 | { bins, gamma } | { mean, std }",
        TimestepPolicy::Uniform,
        TIMESTEPS,
        (read_timesteps, show_timesteps),
    );
    let timestep_sharing = r.named(
        "diffusion.timestep_sharing",
        &[(TimestepSharing::Pair, "pair"), (TimestepSharing::Independent, "independent")],
        TimestepSharing::Pair,
        "Whether the sides of a pair share their time.",
    );
    let noise = noise(r);
    let weight = weight(r);
    let zero_terminal_snr = zero_terminal_snr(r);
    let dropout = r
        .float("diffusion.caption_dropout", 0.0, Some(0.0), "Share of captions that are emptied.")
        .unwrap_or(0.0);
    if dropout > 1.0 {
        r.mistake("diffusion.caption_dropout", "must be at most 1");
    }
    let resolution = resolution(r);
    DiffusionPlan {
        beta_convention,
        timesteps,
        timestep_sharing,
        noise,
        weight,
        zero_terminal_snr,
        caption_dropout: dropout,
        resolution,
    }
}

/// What is left to say where the policy draws itself: times and noise are those of its chains.
pub(super) fn of_rollouts(r: &mut Resolver) -> DiffusionPlan {
    DiffusionPlan {
        beta_convention: BetaConvention::Paper,
        timesteps: TimestepPolicy::Uniform,
        timestep_sharing: TimestepSharing::Pair,
        noise: NoisePolicy::Shared,
        weight: LossWeight::None,
        zero_terminal_snr: zero_terminal_snr(r),
        caption_dropout: 0.0,
        resolution: resolution(r),
    }
}

fn zero_terminal_snr(r: &mut Resolver) -> bool {
    r.flag("diffusion.zero_terminal_snr", false, ZERO_TERMINAL_SNR)
}

fn resolution(r: &mut Resolver) -> u32 {
    let doc = "Pixels along a side; 0 for the model's own.";
    let resolution = r.whole("diffusion.resolution", 0, Some(0), doc);
    u32::try_from(resolution.unwrap_or(0)).unwrap_or(u32::MAX)
}

fn read_timesteps(value: &Value) -> Option<TimestepPolicy> {
    if value.as_str() == Some("uniform") {
        return Some(TimestepPolicy::Uniform);
    }
    if let Some(list) = whole_numbers(value) {
        return Some(TimestepPolicy::List(list.into_iter().map(|t| t as usize).collect()));
    }
    let table = value.as_inline_table().filter(|table| table.len() == 2)?;
    let whole = |value: &Value| value.as_integer().and_then(|n| usize::try_from(n).ok());
    if let (Some(bins), Some(gamma)) = (table.get("bins"), table.get("gamma")) {
        return Some(TimestepPolicy::Bins { bins: whole(bins)?, gamma: number(gamma)? });
    }
    let (mean, std) = (table.get("mean")?, table.get("std")?);
    Some(TimestepPolicy::LogitNormal { mean: number(mean)?, std: number(std)? })
}

fn show_timesteps(policy: &TimestepPolicy) -> Value {
    let table = |pairs: [(&str, Value); 2]| Value::InlineTable(InlineTable::from_iter(pairs));
    match policy {
        TimestepPolicy::Uniform => Value::from("uniform"),
        TimestepPolicy::List(list) => from_whole_numbers(&list.iter().map(|t| *t as u64).collect::<Vec<_>>()),
        TimestepPolicy::Bins { bins, gamma } => {
            let bins = i64::try_from(*bins).unwrap_or(i64::MAX);
            table([("bins", bins.into()), ("gamma", (*gamma).into())])
        }
        TimestepPolicy::LogitNormal { mean, std } => {
            table([("mean", (*mean).into()), ("std", (*std).into())])
        }
    }
}

fn noise(r: &mut Resolver) -> NoisePolicy {
    let kind = r.choice(
        "diffusion.noise",
        &["shared", "independent", "inversion"],
        "shared",
        "Noise of the sides of a pair: the same, each its own, or what DDIM run backwards finds (InPO, SmPO).",
    );
    match kind.as_str() {
        "independent" => NoisePolicy::Independent,
        "inversion" => NoisePolicy::Inversion(inversion(r)),
        _ => NoisePolicy::Shared,
    }
}

/// The defaults are InPO's.
fn inversion(r: &mut Resolver) -> InversionPlan {
    let by = r.named(
        "diffusion.inversion_by",
        &[(InversionBy::Policy, "policy"), (InversionBy::Reference, "reference")],
        InversionBy::Policy,
        "Whose predictions lead from an image to its noise (`inversion`).",
    );
    let steps = "Steps from an image to its time (`inversion`); 0 keeps shared noise.";
    let perturbation =
        "Noise after each step, as a share of the step's standard deviation under η = 1 (`inversion`).";
    let refinements =
        "Times that a step is taken again with the mean of its last two estimates (`inversion`); SmPO has 1.";
    InversionPlan {
        by,
        steps: r.whole("diffusion.inversion_steps", 0, Some(10), steps).unwrap_or(10) as usize,
        perturbation: r
            .float("diffusion.inversion_perturbation", 0.0, Some(0.1), perturbation)
            .unwrap_or(0.1),
        refinements: r.whole("diffusion.inversion_refinements", 0, Some(0), refinements).unwrap_or(0)
            as usize,
    }
}

fn weight(r: &mut Resolver) -> LossWeight {
    let kind = r.choice(
        "diffusion.weight",
        &["none", "min_snr", "debiased", "rethinking"],
        "none",
        "What the error at each time counts: 1, min(SNR, γ)/SNR, 1/√SNR, or 1 to 2 towards the noisy end (for models \
         that predict noise).",
    );
    match kind.as_str() {
        "min_snr" => {
            let doc = "γ of the weight (`min_snr`), above 0.";
            let gamma = r.float("diffusion.weight_gamma", 0.0, Some(5.0), doc).unwrap_or(5.0);
            if gamma == 0.0 {
                r.mistake("diffusion.weight_gamma", "must be above 0, or no error counts");
            }
            LossWeight::MinSnr { gamma }
        }
        "debiased" => LossWeight::Debiased,
        "rethinking" => LossWeight::Rethinking,
        _ => LossWeight::None,
    }
}

/// Every key, those that belong to one choice or another included, once each.
pub(super) fn keys() -> Result<Vec<Setting>> {
    let mut keys: Vec<Setting> = Vec::new();
    for text in ["", "[diffusion]\nnoise = \"inversion\"\nweight = \"min_snr\"\n"] {
        let mut r = Resolver::parse(Path::new("reference"), text, &[])?;
        diffusion(&mut r);
        keys.extend(r.settings().iter().cloned());
    }
    let mut seen = BTreeSet::new();
    keys.retain(|setting| seen.insert(setting.key.clone()));
    Ok(keys)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::recipe::to_toml;

    fn resolved(text: &str) -> (DiffusionPlan, Result<Vec<Setting>>) {
        let text = format!("[diffusion]\n{text}\n");
        let mut r = Resolver::parse(Path::new("r.toml"), &text, &[]).unwrap();
        (diffusion(&mut r), r.finish())
    }

    #[test]
    fn times_of_every_shape_resolve_to_themselves() {
        for (text, policy) in [
            ("resolution = 0", TimestepPolicy::Uniform),
            ("timesteps = \"uniform\"", TimestepPolicy::Uniform),
            ("timesteps = [249, 999]", TimestepPolicy::List(vec![249, 999])),
            ("timesteps = { bins = 20, gamma = 0.9 }", TimestepPolicy::Bins { bins: 20, gamma: 0.9 }),
            ("timesteps.bins = 20\ntimesteps.gamma = 1", TimestepPolicy::Bins { bins: 20, gamma: 1.0 }),
            ("timesteps = { mean = -1, std = 0.5 }", TimestepPolicy::LogitNormal { mean: -1.0, std: 0.5 }),
        ] {
            let (plan, settings) = resolved(text);
            assert_eq!(plan.timesteps, policy, "{text}");
            let saved = to_toml(&settings.unwrap()).replace("[diffusion]\n", "");
            let (again, settings) = resolved(&saved);
            assert_eq!((again.timesteps, settings.is_ok()), (policy, true), "{saved}");
        }
    }

    #[test]
    fn an_override_replaces_a_whole_table_or_one_of_its_values() {
        let text = "[diffusion.timesteps]\nbins = 20\ngamma = 0.9\n";
        let of = |set: &str| {
            let mut r = Resolver::parse(Path::new("r.toml"), text, &[set.to_owned()]).unwrap();
            (diffusion(&mut r).timesteps, r.finish().is_ok())
        };
        assert_eq!(of("diffusion.timesteps=[5]"), (TimestepPolicy::List(vec![5]), true));
        assert_eq!(of("diffusion.timesteps=uniform"), (TimestepPolicy::Uniform, true));
        let bins = TimestepPolicy::Bins { bins: 4, gamma: 0.9 };
        assert_eq!(of("diffusion.timesteps.bins=4"), (bins, true));
    }

    #[test]
    fn times_of_no_shape_are_refused_with_those_that_exist() {
        for text in
            ["\"even\"", "[]", "[-1]", "{ bins = 20 }", "{ bins = 2.5, gamma = 1 }", "{ bins = 1, std = 1 }"]
        {
            let message = resolved(&format!("timesteps = {text}")).1.unwrap_err().to_string();
            let expected =
                "diffusion.timesteps: expected \"uniform\" | a list of whole numbers ≥ 0 | { bins, gamma }";
            assert!(message.contains("line 2") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn every_choice_has_its_own_keys() {
        let (plan, settings) = resolved("weight = \"min_snr\"\nweight_gamma = 3\nnoise = \"independent\"");
        assert_eq!((plan.weight, plan.noise), (LossWeight::MinSnr { gamma: 3.0 }, NoisePolicy::Independent));
        assert!(settings.is_ok());
        let (plan, _) =
            resolved("noise = \"inversion\"\ninversion_by = \"reference\"\ninversion_refinements = 1");
        let by = InversionBy::Reference;
        let expected = InversionPlan { by, steps: 10, perturbation: 0.1, refinements: 1 };
        assert_eq!(plan.noise, NoisePolicy::Inversion(expected));
        for text in ["weight_gamma = 3", "inversion_steps = 5", "weight = \"min_snr\"\nweight_gamma = 0"] {
            assert!(resolved(text).1.is_err(), "{text}");
        }
        let names: Vec<String> = keys().unwrap().into_iter().map(|setting| setting.key).collect();
        assert!(names.contains(&"diffusion.weight_gamma".to_owned()), "{names:?}");
        assert!(names.contains(&"diffusion.inversion_refinements".to_owned()), "{names:?}");
    }
}
