//! From a judge's judgments to a preference set.

use super::decides;
use super::origin::Origin;
use super::preference_set::{Labelled, PreferenceSet};
use super::ratings::Table;
use crate::cli::{Context, Failure, Outcome};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use votive_critic::{Cost, Finding, Item, NoPair, Selected, Store, best_against_worst};

/// Items of one prompt that were drawn together, with what the judge found of each.
type Group = Vec<(Origin, i64, Option<Finding>)>;

/// What a judge's judgments come to.
pub(super) struct Found {
    selected: Vec<(Group, Selected)>,
    without: BTreeMap<NoPair, usize>,
    judged: usize,
    decided: usize,
    abstentions: BTreeMap<&'static str, usize>,
    /// Items that nothing here has drawn, which have no other candidates.
    foreign: usize,
}

impl Found {
    /// The pair of each prompt, by the judgments of `judge`, where the chosen one is better with at least the probability `least`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn of(store: &Store, judge: &str, least: f64) -> Outcome<Self> {
        let mut findings: BTreeMap<i64, Finding> = BTreeMap::new();
        for judgment in store.judgments(None, Some(judge))? {
            findings.insert(judgment.item, judgment.judgment.finding);
        }
        let mut abstentions = BTreeMap::new();
        for finding in findings.values() {
            if let Finding::Abstention(abstention) = finding {
                *abstentions.entry(abstention.reason()).or_insert(0) += 1;
            }
        }
        let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
        let mut order: Vec<(String, String)> = Vec::new();
        let mut foreign = 0;
        for (id, prompt, origin) in store.origins()? {
            let key = match Origin::read(&origin) {
                Some(origin) => {
                    let key = (prompt, origin.drawn.to_string());
                    groups.entry(key.clone()).or_default().push((origin, id, findings.get(&id).cloned()));
                    key
                }
                None => {
                    foreign += usize::from(findings.contains_key(&id));
                    continue;
                }
            };
            order.push(key);
        }
        let mut seen = BTreeSet::new();
        order.retain(|key| seen.insert(key.clone()));
        let mut found = Self {
            selected: Vec::new(),
            without: BTreeMap::new(),
            judged: findings.len(),
            decided: findings.values().filter(|finding| decides(finding)).count(),
            abstentions,
            foreign,
        };
        for key in order {
            let Some(group) = groups.remove(&key) else { continue };
            let comparisons: Vec<(usize, usize, &Finding)> = group
                .iter()
                .filter_map(|(origin, _, finding)| {
                    Some((origin.places[0], origin.places[1], finding.as_ref()?))
                })
                .collect();
            match best_against_worst(&comparisons, least) {
                Ok(selected) => found.selected.push((group, selected)),
                Err(reason) => *found.without.entry(reason).or_insert(0) += 1,
            }
        }
        Ok(found)
    }

    /// Writes the preference set; images go to a folder of the same name beside it.
    ///
    /// # Errors
    /// If a file cannot be written, or the store cannot be read.
    pub(super) fn write(&self, store: &Store, out: &Path) -> Outcome {
        let mut set = PreferenceSet::at(out);
        for (group, selected) in &self.selected {
            let (item, origin, turned) = pair_of(store, group, selected)?;
            let [first, second] = item.question.candidates() else { continue };
            let mut models = origin.models.clone();
            if turned {
                models.reverse();
            }
            set.add(Labelled {
                prompt: item.question.prompt(),
                sides: if turned { [second, first] } else { [first, second] },
                models,
                is_chat: origin.is_chat,
                probability: selected.probability,
                scores: selected.scores,
            })?;
        }
        set.write()
    }

    /// Says what was found.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn report(
        &self,
        by: &str,
        cost: Cost,
        table: &Table,
        out: Option<&Path>,
        ctx: &Context,
    ) -> Outcome {
        let without: serde_json::Map<String, Value> =
            self.without.iter().map(|(reason, n)| (reason.as_str().to_owned(), json!(n))).collect();
        if ctx.output.wants_json() {
            return ctx.output.json(&json!({
                "judge": by,
                "pairs": self.selected.len(),
                "prompts_without_a_pair": without,
                "judged": self.judged,
                "decided": self.decided,
                "abstentions": self.abstentions,
                "ratings": table,
                "cost": cost,
                "out": out,
            }));
        }
        let line = |text: String| ctx.output.line(text);
        line(format!("{} comparisons judged by {by}, {} decided", self.judged, self.decided))?;
        for (reason, n) in &self.abstentions {
            line(format!("  abstained: {reason} {n}"))?;
        }
        line(format!("{} pairs", self.selected.len()))?;
        for (reason, n) in &self.without {
            line(format!("  no pair: {} {n}", reason.as_str()))?;
        }
        if self.foreign > 0 {
            line(format!("  {} items of other origin are judged, and make no pairs", self.foreign))?;
        }
        table.lines().into_iter().try_for_each(line)?;
        if cost.calls > 0 {
            let Cost { calls, input_tokens, output_tokens, seconds } = cost;
            line(format!(
                "{calls} calls, {input_tokens} tokens read, {output_tokens} written, {seconds:.1} s of waiting"
            ))?;
        }
        match out {
            Some(out) => line(format!("written to {}", out.display())),
            None => Ok(()),
        }
    }
}

/// The item of a selected pair, where it came from, and whether the chosen candidate is its second.
fn pair_of<'a>(store: &Store, group: &'a Group, selected: &Selected) -> Outcome<(Item, &'a Origin, bool)> {
    let places = [selected.chosen, selected.rejected];
    let found = group.iter().find_map(|(origin, id, _)| match origin.places {
        own if own == places => Some((origin, *id, false)),
        [second, first] if [first, second] == places => Some((origin, *id, true)),
        _ => None,
    });
    let (origin, id, turned) =
        found.ok_or_else(|| Failure::data("a pair that was compared is not in the store"))?;
    Ok((store.item(id)?, origin, turned))
}
