//! From a judge's own answers in words to pairs that it can be trained on: right verdicts against wrong ones.
//!
//! Rows are in TRL's layout for vision language models: `images`, and turns whose content has parts.

use super::preference_set::put;
use crate::cli::{Failure, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use votive_critic::{Evidence, Finding, Part, Role, Store, Talk, Template, contrast};
use votive_data::write_jsonl;

/// Most pairs of a right against a wrong verdict on one question, as Con-J has it.
const MOST: usize = 3;

/// Writes the pairs of all questions that `judge` answered in words and whose winner is known from the judge `truth`; gives their
/// number.
///
/// # Errors
/// If the store cannot be read, a template is not in it, or a file cannot be written.
pub(super) fn write(store: &Store, judge: &str, truth: &str, out: &Path) -> Outcome<usize> {
    let mut winners = BTreeMap::new();
    for known in store.judgments(None, Some(truth))? {
        winners.insert(known.item, known.judgment.finding);
    }
    let mut rows = Vec::new();
    for judged in store.judgments(None, Some(judge))? {
        let Some(truth) = winners.get(&judged.item) else { continue };
        let item = store.item(judged.item)?;
        for is_reversed in [false, true] {
            let asked: Vec<&Evidence> = judged
                .judgment
                .evidence
                .iter()
                .filter(|one| one.is_reversed == is_reversed && one.cost.output_tokens > 0)
                .collect();
            let Some(first) = asked.first() else { continue };
            let shown = if is_reversed { item.question.reversed() } else { item.question.clone() };
            let truth = if is_reversed { truth.clone().reversed(2) } else { truth.clone() };
            let Some(winner) = truth.winner() else { continue };
            let template = first.template.as_deref().map(|hash| store.template(hash)).transpose()?.flatten();
            let template: Template = template
                .ok_or_else(|| Failure::data(format!("the store lacks the template of item {}", item.id)))?;
            let talk = template.render(&shown, &[])?.talk;
            let answers: Vec<(&str, &Finding)> =
                asked.iter().map(|one| (one.words.as_str(), &one.finding)).collect();
            for pair in contrast(&answers, winner, MOST) {
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
