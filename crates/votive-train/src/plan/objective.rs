//! What a recipe says of the objective: one table for each term of its sum.

use super::data::DEGREES;
use super::{Modality, TokenWeightRule, TrainPlan};
use crate::error::Result;
use crate::front_end::RolloutPairs;
use crate::recipe::{Resolver, Setting, did_you_mean};
use crate::reference::ReferencePlan;
use serde_json::{Map, Value};
use std::path::Path;
use votive_model::RewardModelConfig;
use votive_objective::{
    METHODS, Mixture, Needs, Objective, ObjectiveError, OptionDoc, Reduction, Term, WITH, WRAPPERS, build,
    find,
};

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
    let mut options = options(r, &table, spec.options, &(spec.defaults)());
    let (weight, reduction) = share(r, &table, spec.reduction);
    for wrapper in WRAPPERS.iter().filter(|wrapper| !options.contains_key(wrapper.name)) {
        let key = format!("{table}.{}", wrapper.name);
        if r.names_below(&table).iter().any(|name| name == wrapper.name) {
            r.touch_below(&key);
            r.mistake(&key, &format!("is a wrapper: write {table}.{WITH}.{}", wrapper.name));
        }
    }
    let with = wrappers(r, &table)?;
    if !with.is_empty() {
        options.insert(WITH.to_owned(), with.into());
    }
    match build(spec, options.into()) {
        Ok(objective) => Some(Term { spec, objective, weight, reduction }),
        Err(error) => {
            r.mistake(&place(&table, &error), &error.to_string());
            None
        }
    }
}

/// The options of a method or wrapper whose table this is.
fn options(
    r: &mut Resolver,
    table: &str,
    documented: &'static [OptionDoc],
    defaults: &Value,
) -> Map<String, Value> {
    let option = |option: &OptionDoc| {
        let value = r.json(&format!("{table}.{}", option.name), defaults[option.name].clone(), option.doc);
        (option.name.to_owned(), value)
    };
    documented.iter().map(option).collect()
}

/// What the recipe puts around an objective: its wrappers with their options.
fn wrappers(r: &mut Resolver, table: &str) -> Option<Map<String, Value>> {
    let mut with = Map::new();
    let mut are_known = true;
    for name in r.names_below(&format!("{table}.{WITH}")) {
        let table = format!("{table}.{WITH}.{name}");
        let Some(spec) = WRAPPERS.iter().find(|spec| spec.name == name) else {
            r.touch_below(&table);
            let known = || WRAPPERS.iter().map(|spec| spec.name);
            let near = did_you_mean(&name, known());
            let known = known().collect::<Vec<_>>().join(", ");
            r.mistake(&table, &format!("unknown wrapper `{name}`; known: {known}{near}"));
            are_known = false;
            continue;
        };
        if spec.options.is_empty() {
            // Or else a wrapper without options would be lost in a plan.
            r.numbers_by_name::<f64>(&table, "an empty table", spec.title, |_| None);
        }
        r.touch(&table);
        with.insert(name, options(r, &table, spec.options, &(spec.defaults)()).into());
    }
    are_known.then_some(with)
}

/// The key that an error about an objective is of.
fn place(table: &str, error: &ObjectiveError) -> String {
    match error {
        ObjectiveError::Range { id, option, .. } if id.starts_with(WITH) => format!("{table}.{id}.{option}"),
        ObjectiveError::Range { option, .. } => format!("{table}.{option}"),
        ObjectiveError::Refused { wrapper, .. } => format!("{table}.{WITH}.{wrapper}"),
        _ => table.to_owned(),
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
pub(super) fn check(
    r: &mut Resolver,
    objective: &Mixture,
    (reference, has_base): (&ReferencePlan, bool),
    (weights, degrees): (&TokenWeightRule, usize),
    kind: Modality,
) {
    if degrees != DEGREES && !objective.needs().contains(Needs::DEGREES) {
        r.mistake("data.degrees", "no objective of this recipe reads copies of completions");
    }
    if *weights != TokenWeightRule::default() && !objective.needs().contains(Needs::TOKEN_WEIGHTS) {
        r.mistake("data.token_weights", "no objective of this recipe weighs single tokens");
    }
    if has_base && !objective.needs().contains(Needs::BASE) {
        r.mistake("reference.base", "no objective of this recipe reads a base");
    }
    let of_texts = [
        (Needs::TOKENS, "looks at single tokens, which a denoiser does not have"),
        (Needs::ALIGNMENT, "weighs by what a policy would write, which a denoiser does not say"),
        (Needs::VALUES, "reads a value head, which only a language model can have here"),
        (Needs::DEGREES, "takes key phrases out of completions, which pictures do not have"),
        (Needs::GOLD, "imitates a third completion, which only rows of text can have"),
    ];
    for term in objective.terms() {
        let (id, needs) = (term.spec.id, term.objective.needs());
        if needs.contains(Needs::REFERENCE) && *reference == ReferencePlan::None {
            r.mistake("reference.kind", &format!("`{id}` needs a reference"));
        }
        for (need, what) in of_texts {
            if needs.contains(need) && kind == Modality::Image {
                r.mistake(&format!("objective.{id}"), what);
            }
        }
        if needs.contains(Needs::ERRORS) && kind == Modality::Text {
            r.mistake(
                &format!("objective.{id}"),
                "looks at denoising errors, which a language model does not have",
            );
        }
        if needs.contains(Needs::BASE) && !has_base {
            r.mistake("reference.base", &format!("`{id}` needs the model that the first round started from"));
        }
        let is_of_lists = matches!(term.objective, Objective::List(_));
        if is_of_lists && kind == Modality::Image {
            let what = "compares lists of completions; rows of images become pairs";
            r.mistake(&format!("objective.{id}"), what);
        }
        if objective.reads_lists() && !is_of_lists {
            let what = "cannot be added to an objective of lists: rows become lists or pairs, not both";
            r.mistake(&format!("objective.{id}"), what);
        }
        let is_cached = matches!(reference, ReferencePlan::Cached { .. });
        if needs.contains(Needs::TOKENS) && needs.contains(Needs::REFERENCE) && is_cached {
            let what = format!("`{id}` looks at single tokens, and a cached reference has only their sums");
            r.mistake("reference.kind", &what);
        }
    }
}

/// Notes objectives that read a reward model's rewards where there are none, and others where there is nothing else.
pub(super) fn check_rewards(
    r: &mut Resolver,
    objective: &Mixture,
    (model, kind): (&Path, Modality),
    (reference, has_samples): (&ReferencePlan, bool),
) {
    let (of_rewards, others): (Vec<&Term>, Vec<&Term>) =
        objective.terms().iter().partition(|term| term.objective.needs().contains(Needs::REWARDS));
    let Some(id) = of_rewards.first().map(|term| term.spec.id) else {
        let is_reward_model = kind == Modality::Text && RewardModelConfig::is_in(model).unwrap_or(false);
        if let Some(term) = others.first().filter(|_| is_reward_model) {
            let of_rewards = METHODS.iter().filter(|spec| spec.needs.contains(Needs::REWARDS));
            let known = of_rewards.map(|spec| spec.id).collect::<Vec<_>>().join(", ");
            let what = format!(
                "is a reward model, and `{}` reads log-probabilities, which it does not have; a reward model is trained by {known}",
                term.spec.id
            );
            r.mistake("model.path", &what);
        }
        return;
    };
    for term in others {
        let what = format!(
            "reads log-probabilities, and `{id}` a reward model's rewards; a model has one or the other"
        );
        r.mistake(&format!("objective.{}", term.spec.id), &what);
    }
    if kind == Modality::Image {
        let what = "trains a reward model of texts, and the model is one that draws";
        r.mistake(&format!("objective.{id}"), what);
    }
    if *reference != ReferencePlan::None {
        r.mistake("reference.kind", &format!("`{id}` compares with no reference; leave [reference] out"));
    }
    if has_samples {
        r.mistake(
            "sample",
            &format!("`{id}` trains a reward model, which writes nothing; leave [sample] out"),
        );
    }
}

/// Notes objectives that compare the rows of a step, if the rows come in parts.
pub(super) fn check_batch(r: &mut Resolver, objective: &Mixture, train: &TrainPlan) {
    let mut terms = objective.terms().iter();
    if let Some(term) = terms.find(|term| term.objective.needs().contains(Needs::WHOLE_BATCH))
        && train.micro_batch_size != train.batch_size
    {
        let what = format!(
            "`{}` compares all rows of a step, so it must be train.batch_size = {}",
            term.spec.id, train.batch_size
        );
        r.mistake("train.micro_batch_size", &what);
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
