//! What a recipe says of the objective: one table for each term of its sum.

use super::Modality;
use crate::error::Result;
use crate::front_end::RolloutPairs;
use crate::recipe::{Resolver, Setting, did_you_mean};
use crate::reference::ReferencePlan;
use std::path::Path;
use votive_objective::{METHODS, Mixture, Needs, Objective, ObjectiveError, Reduction, Term, find};

/// The methods that the recipe names, each with its options.
pub(super) fn objective(r: &mut Resolver) -> Option<Mixture> {
    let names = r.names_below("objective");
    if names.is_empty() {
        let known = METHODS.iter().map(|spec| spec.id).collect::<Vec<_>>().join(", ");
        r.mistake("objective", &format!("is missing; write an [objective.<id>] with an id of: {known}"));
    }
    let terms: Vec<Option<Term>> = names.iter().map(|id| term(r, id)).collect();
    let terms: Vec<Term> = terms.into_iter().collect::<Option<_>>()?;
    if !terms.is_empty() && terms.iter().all(|term| term.weight == 0.0) {
        r.mistake("objective", "every term has weight 0, so there is nothing to minimise");
    }
    (!terms.is_empty()).then(|| Mixture::new(terms))
}

fn term(r: &mut Resolver, id: &str) -> Option<Term> {
    let table = format!("objective.{id}");
    let spec = match find(id) {
        Ok(spec) => spec,
        Err(error) => {
            r.touch_below(&table);
            let near = did_you_mean(id, METHODS.iter().map(|spec| spec.id));
            r.mistake(&table, &format!("{error}{near}"));
            return None;
        }
    };
    r.touch(&table);
    let mut options = serde_json::Map::new();
    let defaults = (spec.defaults)();
    for option in spec.options {
        let default = defaults[option.name].clone();
        let value = r.json(&format!("{table}.{}", option.name), default, option.doc);
        options.insert(option.name.to_owned(), value);
    }
    let (weight, reduction) = share(r, &table, spec.reduction);
    match (spec.build)(options.into()) {
        Ok(objective) => Some(Term { spec, objective, weight, reduction }),
        Err(error) => {
            let key = match &error {
                ObjectiveError::Range { option, .. } => format!("{table}.{option}"),
                _ => table,
            };
            r.mistake(&key, &error.to_string());
            None
        }
    }
}

/// What every term has, whatever its method.
fn share(r: &mut Resolver, table: &str, reduction: Reduction) -> (f64, Reduction) {
    let weight = r.float(
        &format!("{table}.weight"),
        0.0,
        Some(1.0),
        "What the objective counts in the loss: several objectives are added, each times its weight.",
    );
    let reduction = r.named(
        &format!("{table}.reduction"),
        &Reduction::NAMES,
        reduction,
        "What the sum of its losses over a step is divided by: their number, nothing, or their completions' tokens.",
    );
    (weight.unwrap_or(1.0), reduction)
}

/// The keys that every objective has, for the reference documentation.
pub(super) fn keys() -> Result<Vec<Setting>> {
    let mut r = Resolver::parse(Path::new("reference"), "", &[])?;
    share(&mut r, "objective.<id>", Reduction::Mean);
    Ok(r.settings().to_vec())
}

/// Notes what the objective needs and the rest of the recipe does not give.
pub(super) fn check(r: &mut Resolver, objective: &Mixture, reference: &ReferencePlan, kind: Modality) {
    for term in objective.terms() {
        let (id, needs) = (term.spec.id, term.objective.needs());
        if needs.contains(Needs::REFERENCE) && *reference == ReferencePlan::None {
            r.mistake("reference.kind", &format!("`{id}` needs a reference"));
        }
        if needs.contains(Needs::TOKENS) && kind == Modality::Image {
            r.mistake(&format!("objective.{id}"), "looks at single tokens, which a denoiser does not have");
        }
        if needs.contains(Needs::ERRORS) && kind == Modality::Text {
            r.mistake(
                &format!("objective.{id}"),
                "looks at denoising errors, which a language model does not have",
            );
        }
        let is_cached = matches!(reference, ReferencePlan::Cached { .. });
        if needs.contains(Needs::TOKENS) && needs.contains(Needs::REFERENCE) && is_cached {
            let what = format!("`{id}` looks at single tokens, and a cached reference has only their sums");
            r.mistake("reference.kind", &what);
        }
    }
}

/// Notes what the objective reads and pictures that the policy draws itself do not have.
pub(super) fn check_rollouts(r: &mut Resolver, objective: &Mixture, pairs: RolloutPairs) {
    for term in objective.terms() {
        let reads_reference = term.objective.needs().contains(Needs::REFERENCE);
        let is_pair = matches!(term.objective, Objective::Pair(_));
        if pairs == RolloutPairs::None && (is_pair || reads_reference) {
            let id = term.spec.id;
            let what = if is_pair { "compares pairs" } else { "compares with a reference" };
            r.mistake(
                &format!("objective.{id}"),
                &format!("{what}, and with rollout.pairs = \"none\" there is one picture and its reward"),
            );
            continue;
        }
        let reads = |need| term.objective.needs().contains(need);
        let lacking = [(Needs::ERRORS, "denoising errors"), (Needs::MARGINS, "scored margins of rows")];
        if let Some((_, what)) = lacking.into_iter().find(|(need, _)| reads(*need)) {
            let id = term.spec.id;
            r.mistake(
                &format!("objective.{id}"),
                &format!("looks at {what}, which a [rollout] does not have"),
            );
        }
    }
}
