//! What became of candidates, critiques and edits, by reason.

use super::truth::Truth;
use crate::cli::judges::Chosen;
use crate::cli::{Context, Outcome};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use votive_critic::{Cost, NotImproved};
use votive_eval::Share;

/// Everything that is counted.
#[derive(Serialize)]
pub(super) struct Report {
    critic: String,
    judge: String,
    editor: String,
    /// Candidates that were criticised.
    originals: usize,
    pub(super) critiques: Critiques,
    pub(super) edits: Edits,
    /// Edits that the judge did not find better, by reason.
    edits_without_a_pair: BTreeMap<&'static str, usize>,
    pairs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truth: Option<Truth>,
    pub(super) cost: Cost,
}

/// What critics said.
#[derive(Default, Serialize)]
pub(super) struct Critiques {
    /// Candidates with which nothing is wrong.
    pub(super) nothing_wrong: usize,
    /// Critiques that say not what to do.
    pub(super) nothing_to_act_on: usize,
    /// Critiques that became edits.
    pub(super) actionable: usize,
    pub(super) abstentions: BTreeMap<&'static str, usize>,
}

/// What editors did.
#[derive(Default, Serialize)]
pub(super) struct Edits {
    pub(super) made: usize,
    /// Edits that left their original as it was.
    pub(super) unchanged: usize,
    pub(super) abstentions: BTreeMap<&'static str, usize>,
}

impl Report {
    pub(super) fn new(critic: &Chosen, judge: &Chosen, editor: &str, originals: usize) -> Self {
        Self {
            critic: critic.judge.name().to_owned(),
            judge: judge.judge.name().to_owned(),
            editor: editor.to_owned(),
            originals,
            critiques: Critiques::default(),
            edits: Edits::default(),
            edits_without_a_pair: BTreeMap::new(),
            pairs: 0,
            truth: None,
            cost: Cost::default(),
        }
    }

    /// Counts what the judge found of an edit.
    pub(super) fn count(&mut self, found: Result<f64, NotImproved>) {
        match found {
            Ok(_) => self.pairs += 1,
            Err(reason) => *self.edits_without_a_pair.entry(reason.as_str()).or_insert(0) += 1,
        }
    }

    /// Says it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn tell(&self, out: Option<&Path>, ctx: &Context) -> Outcome {
        if ctx.output.wants_json() {
            let mut report = json!(self);
            report["out"] = json!(out);
            return ctx.output.json(&report);
        }
        let line = |text: String| ctx.output.line(text);
        line(format!("{} candidates criticised by {}", self.originals, self.critic))?;
        line(format!("  nothing wrong: {}", self.critiques.nothing_wrong))?;
        if self.critiques.nothing_to_act_on > 0 {
            line(format!("  nothing to act on: {}", self.critiques.nothing_to_act_on))?;
        }
        for (reason, n) in &self.critiques.abstentions {
            line(format!("  abstained: {reason} {n}"))?;
        }
        line(format!("{} edits by {}", self.edits.made, self.editor))?;
        if self.edits.unchanged > 0 {
            line(format!("  nothing changed: {}", self.edits.unchanged))?;
        }
        for (reason, n) in &self.edits.abstentions {
            line(format!("  no edit: {reason} {n}"))?;
        }
        line(format!("{} pairs, judged by {}", self.pairs, self.judge))?;
        for (reason, n) in &self.edits_without_a_pair {
            line(format!("  no pair: {reason} {n}"))?;
        }
        if let Some(truth) = &self.truth {
            truth.lines().into_iter().try_for_each(line)?;
        }
        let Cost { calls, input_tokens, output_tokens, seconds } = self.cost;
        if calls > 0 {
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

/// A share with its interval, in words.
pub(super) fn in_words(share: &Share) -> String {
    format!("{:5.1} % [{:.1}, {:.1}] of {}", share.value, share.low, share.high, share.n)
}
