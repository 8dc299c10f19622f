//! What a judge has said in a store, beside what another one, or a person, has said of the same pairs.

use super::record::{Heard, Known, Record, more};
use crate::cli::judges::Subject;
use crate::cli::{Failure, Outcome};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use votive_critic::{Candidate, Cost, Finding, Item, Outline, Shown, Store, StoredJudgment, Winner};

/// What `by` has said of pairs, against what `against` has said of them, or the truth that items state; `own` is the model whose
/// candidates are the judge's own work.
///
/// # Errors
/// If there is no such store, judge or model, the two have no pair in common, or the store holds texts and images.
pub(super) fn read(path: &Path, by: &str, against: Option<&str>, own: Option<&str>) -> Outcome<Heard> {
    if !path.is_file() {
        return Err(Failure::data(format!("{}: no such store", path.display())));
    }
    let store = Store::open(path)?;
    let judge = store.judge_named(by)?;
    let (against, truths) = truths(&store, against)?;
    if judge == against {
        return Err(Failure::usage(format!("--by and --against are both {judge}")));
    }
    let own = own.map(|own| model_named(&store, own)).transpose()?;
    let mut reading =
        Reading { truths: &truths, own: own.as_deref(), numbers: BTreeMap::new(), subject: None };
    let (mut records, mut cost) = (Vec::new(), Cost::default());
    for (item, judgments) in by_item(&store, &judge)? {
        judgments.iter().for_each(|one| cost += one.judgment.cost());
        let (Some(outline), Some(finding)) = (store.outline(item)?, first_decided(&judgments)) else {
            continue;
        };
        if outline.candidates.len() == 2 {
            let known = reading.known(&outline, &store.item(item)?)?;
            let orders = orders(&judgments);
            records.push(Record { known, judged: finding.clone(), orders, bare: None });
        }
    }
    if !records.iter().any(|record| record.known.is_counted) {
        let none = Failure::data(format!(
            "{}: {judge} has judged no pair of which {against} says who wins",
            path.display()
        ));
        return Err(none.hint(format!("judges of this store: {}", store.judges()?.join("; "))));
    }
    let subject = reading.subject.unwrap_or(Subject::Texts);
    Ok(Heard { judge, against, subject, own, records, injections: None, cost })
}

/// Who is taken to be right, and who wins by them: of several looks at a pair, the first with a winner counts.
fn truths(store: &Store, against: Option<&str>) -> Outcome<(String, BTreeMap<i64, Winner>)> {
    let Some(name) = against else {
        return Ok(("the truth that items state".to_owned(), store.truths()?.into_iter().collect()));
    };
    let name = store.judge_named(name)?;
    let said = by_item(store, &name)?;
    let wins = said.iter().filter_map(|(item, said)| Some((*item, first_decided(said)?.winner()?)));
    Ok((name.clone(), wins.collect()))
}

/// A judge's judgments by item, each item's in the order of their draws.
fn by_item(store: &Store, judge: &str) -> Outcome<BTreeMap<i64, Vec<StoredJudgment>>> {
    let mut items: BTreeMap<i64, Vec<StoredJudgment>> = BTreeMap::new();
    for judgment in store.judgments(None, Some(judge))? {
        items.entry(judgment.item).or_default().push(judgment);
    }
    items.values_mut().for_each(|judgments| judgments.sort_by_key(|one| one.draw));
    Ok(items)
}

/// The first finding with a winner, or the first of all.
fn first_decided(judgments: &[StoredJudgment]) -> Option<&Finding> {
    let findings = || judgments.iter().map(|one| &one.judgment.finding);
    findings().find(|finding| finding.winner().is_some()).or_else(|| findings().next())
}

/// Answers in the order of the store beside answers in the other order, of one who was asked in both: draws of a judge and looks
/// of a person in their order.
fn orders(judgments: &[StoredJudgment]) -> Vec<[Option<Winner>; 2]> {
    let mut of_each: BTreeMap<&str, [Vec<Option<Winner>>; 2]> = BTreeMap::new();
    for evidence in judgments.iter().flat_map(|one| &one.judgment.evidence) {
        let sides = of_each.entry(&evidence.judge).or_default();
        sides[usize::from(evidence.is_reversed)].push(evidence.finding.winner());
    }
    let both = |[forth, back]: [Vec<Option<Winner>>; 2]| {
        forth.into_iter().zip(back).map(|(one, other)| [one, other])
    };
    of_each.into_values().flat_map(both).collect()
}

/// The full name of a model that has drawn candidates of the store, by its folder or the folder's name.
fn model_named(store: &Store, name: &str) -> Outcome<String> {
    let mut all: Vec<String> =
        store.origins()?.iter().flat_map(|(_, _, origin)| models(origin)).flatten().collect();
    all.sort_unstable();
    all.dedup();
    if all.iter().any(|model| model == name) {
        return Ok(name.to_owned());
    }
    let is_named = |model: &&String| Path::new(model).file_name().is_some_and(|last| last == name);
    let found: Vec<&String> = all.iter().filter(is_named).collect();
    match found[..] {
        [model] => Ok(model.clone()),
        [] => Err(Failure::usage(format!(
            "--own {name}: no candidates are of this model; those of the store: {}",
            all.join("; ")
        ))),
        _ => Err(Failure::usage(format!("--own {name}: several models are called so: {}", all.join("; ")))),
    }
}

/// The models that drew the two candidates of an item, if its origin says so.
fn models(origin: &Value) -> Option<[String; 2]> {
    let all = origin.get("models")?.as_array()?;
    let name = |place: usize| Some(all.get(place)?.as_str()?.to_owned());
    Some([name(0)?, name(1)?])
}

/// What is known while a store is read.
struct Reading<'a> {
    truths: &'a BTreeMap<i64, Winner>,
    own: Option<&'a str>,
    /// The number of each candidate of each prompt.
    numbers: BTreeMap<(String, Shown), usize>,
    subject: Option<Subject>,
}

impl Reading<'_> {
    fn known(&mut self, outline: &Outline, item: &Item) -> Outcome<Known> {
        let [first, second] = item.question.candidates() else { return Ok(Known::default()) };
        let subject = match (first, second) {
            (Candidate::Text(_), Candidate::Text(_)) => Subject::Texts,
            (Candidate::Image(_), Candidate::Image(_)) => Subject::Images,
            _ => return Err(Failure::data(format!("item {} compares a text with an image", item.id))),
        };
        if *self.subject.get_or_insert(subject) != subject {
            return Err(Failure::data("the store holds texts and images; an audit is of one kind"));
        }
        let truth = self.truths.get(&item.id).copied();
        let mut number = |shown: &Shown| {
            let next = self.numbers.len();
            *self.numbers.entry((outline.prompt.clone(), shown.clone())).or_insert(next)
        };
        let candidates = [number(&outline.candidates[0]), number(&outline.candidates[1])];
        let is_own = |model: &String| self.own.is_some_and(|own| own == model);
        let own = models(&item.origin).and_then(|models| match models.each_ref().map(is_own) {
            [true, false] => Some(Winner::First),
            [false, true] => Some(Winner::Second),
            _ => None,
        });
        Ok(Known {
            truth,
            is_counted: truth.is_some(),
            more: more(first, second)?,
            flaws: Vec::new(),
            candidates: Some(candidates),
            own,
        })
    }
}
