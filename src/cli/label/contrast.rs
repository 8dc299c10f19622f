//! From a judge's own answers in words to pairs that it can be trained on: right verdicts against wrong ones, or those that a group
//! agrees with against those that it does not.
//!
//! Rows are in TRL's layout for vision language models: `images`, and turns whose content has parts.

use super::preference_set::put;
use crate::cli::{Failure, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use votive_critic::{
    Contrast, Evidence, Finding, Part, Role, Store, Talk, Template, contrast, most_and_least_consistent,
};
use votive_data::write_jsonl;

/// Most pairs of a right against a wrong verdict on one question, as Con-J has it.
const MOST: usize = 3;

/// Who says which answers are right.
pub(super) enum Umpire {
    /// What one judge has found.
    Truth(BTreeMap<i64, Finding>),
    /// What several judges have found, by their names, and the answers themselves.
    Group(Vec<(String, BTreeMap<i64, Finding>)>),
}

impl Umpire {
    /// A judge who has judged the same store.
    ///
    /// # Errors
    /// If there is none of this name, or the store cannot be read.
    pub(super) fn truth(store: &Store, name: &str) -> Outcome<Self> {
        Ok(Self::Truth(findings(store, &store.judge_named(name)?)?))
    }

    /// Judges who have judged the same store, beside `judge`, whose answers count anyway.
    ///
    /// # Errors
    /// If there is none of a name, or the store cannot be read.
    pub(super) fn group(store: &Store, judge: &str, names: &[String]) -> Outcome<Self> {
        let mut members = Vec::new();
        for name in names {
            let name = store.judge_named(name)?;
            if name != judge && members.iter().all(|(known, _)| *known != name) {
                members.push((name.clone(), findings(store, &name)?));
            }
        }
        Ok(Self::Group(members))
    }

    /// Pairs of the answers to an item as it was shown.
    fn pairs(&self, item: i64, is_reversed: bool, answers: &[(&str, &Finding)]) -> Vec<Contrast> {
        let shown = |finding: &Finding| match is_reversed {
            true => finding.clone().reversed(2),
            false => finding.clone(),
        };
        match self {
            Self::Truth(winners) => {
                let winner = winners.get(&item).and_then(|finding| shown(finding).winner());
                winner.map(|winner| contrast(answers, winner, MOST)).unwrap_or_default()
            }
            Self::Group(members) => {
                let views: Vec<Finding> =
                    members.iter().filter_map(|(_, found)| found.get(&item)).map(shown).collect();
                let own: Vec<&Finding> = answers.iter().map(|(_, finding)| *finding).collect();
                most_and_least_consistent(&own, &views.iter().collect::<Vec<_>>()).into_iter().collect()
            }
        }
    }

    /// How often each judge of a group is the odd one out, by their whole judgments, and on how many items one is; nothing of a truth.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn odd(&self, store: &Store, judge: &str) -> Outcome<BTreeMap<String, usize>> {
        let Self::Group(others) = self else { return Ok(BTreeMap::new()) };
        let own = (judge.to_owned(), findings(store, judge)?);
        let members: Vec<&(String, BTreeMap<i64, Finding>)> = std::iter::once(&own).chain(others).collect();
        let mut odd: BTreeMap<String, usize> = members.iter().map(|(name, _)| (name.clone(), 0)).collect();
        for item in own.1.keys() {
            let asked: Vec<(&str, &Finding)> =
                members.iter().filter_map(|(name, found)| Some((name.as_str(), found.get(item)?))).collect();
            let found: Vec<&Finding> = asked.iter().map(|(_, finding)| *finding).collect();
            if let Some(Contrast { rejected, .. }) = most_and_least_consistent(&found, &[]) {
                *odd.entry(asked[rejected].0.to_owned()).or_insert(0) += 1;
            }
        }
        Ok(odd)
    }
}

fn findings(store: &Store, judge: &str) -> Outcome<BTreeMap<i64, Finding>> {
    let judgments = store.judgments(None, Some(judge))?.into_iter();
    Ok(judgments.map(|known| (known.item, known.judgment.finding)).collect())
}

/// Writes the pairs of all questions that `judge` answered in words, as `umpire` finds them; gives their number.
///
/// # Errors
/// If the store cannot be read, a template is not in it, or a file cannot be written.
pub(super) fn write(store: &Store, judge: &str, umpire: &Umpire, out: &Path) -> Outcome<usize> {
    let mut rows = Vec::new();
    for judged in store.judgments(None, Some(judge))? {
        let item = store.item(judged.item)?;
        for is_reversed in [false, true] {
            let asked: Vec<&Evidence> = judged
                .judgment
                .evidence
                .iter()
                .filter(|one| one.is_reversed == is_reversed && one.cost.output_tokens > 0)
                .collect();
            let Some(first) = asked.first() else { continue };
            let answers: Vec<(&str, &Finding)> =
                asked.iter().map(|one| (one.words.as_str(), &one.finding)).collect();
            let pairs = umpire.pairs(judged.item, is_reversed, &answers);
            if pairs.is_empty() {
                continue;
            }
            let shown = if is_reversed { item.question.reversed() } else { item.question.clone() };
            let template = first.template.as_deref().map(|hash| store.template(hash)).transpose()?.flatten();
            let template: Template = template
                .ok_or_else(|| Failure::data(format!("the store lacks the template of item {}", item.id)))?;
            let talk = template.render(&shown, &[])?.talk;
            for pair in pairs {
                rows.push(row(&talk, [answers[pair.chosen].0, answers[pair.rejected].0], out)?);
            }
        }
    }
    let count = rows.len();
    write_jsonl(out, rows)?;
    Ok(count)
}

fn row(talk: &Talk, [chosen, rejected]: [&str; 2], out: &Path) -> Outcome<Value> {
    let mut images = Vec::new();
    let mut prompt = Vec::new();
    for turn in &talk.turns {
        let mut content = Vec::new();
        for part in &turn.parts {
            match part {
                Part::Text(text) => content.push(json!({ "type": "text", "text": text })),
                Part::Image(picture) => {
                    let path = put(picture, out)?;
                    let folder = out.parent().unwrap_or(Path::new(""));
                    images.push(json!(path.strip_prefix(folder).unwrap_or(&path).to_string_lossy()));
                    content.push(json!({ "type": "image" }));
                }
            }
        }
        prompt.push(json!({ "role": turn.role.as_str(), "content": content }));
    }
    let answer = |words: &str| {
        let content = json!([{ "type": "text", "text": words }]);
        json!([{ "role": Role::Assistant.as_str(), "content": content }])
    };
    Ok(json!({ "prompt": prompt, "chosen": answer(chosen), "rejected": answer(rejected), "images": images }))
}
