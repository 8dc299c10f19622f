//! What the lines of a run's log say about the run so far.

use crate::alarms::{LONG_WINDOW, WINDOW};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The numbers of a step's line by name.
type Line = BTreeMap<String, f64>;

/// The log's lines, as far as anything later depends on them: a long run's log need not fit the memory.
#[derive(Debug, Default)]
pub(crate) struct History {
    lines: usize,
    first: Vec<Line>,
    latest: VecDeque<Line>,
    /// `eval_loss` by step.
    evaluations: BTreeMap<u64, f64>,
    raised: BTreeSet<String>,
}

impl History {
    /// Adds a line: a step's, an evaluation's or an alarm's.
    pub(crate) fn add(&mut self, line: &Value) {
        let (Some(step), Some(fields)) = (line["step"].as_u64(), line.as_object()) else { return };
        if let Some(loss) = line["eval_loss"].as_f64() {
            self.evaluations.insert(step, loss);
        }
        if let Some(id) = line["alarm"].as_str() {
            self.raised.insert(id.to_owned());
        }
        if fields.contains_key("loss") {
            let numbers = fields.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
            self.add_step(numbers.collect());
        }
    }

    fn add_step(&mut self, line: Line) {
        self.lines += 1;
        if self.first.len() < WINDOW {
            self.first.push(line.clone());
        }
        if self.latest.len() == LONG_WINDOW {
            self.latest.pop_front();
        }
        self.latest.push_back(line);
    }

    /// Steps that were logged.
    pub(crate) fn lines(&self) -> usize {
        self.lines
    }

    /// A number of the first lines that have it.
    pub(crate) fn first(&self, name: &str) -> Vec<f64> {
        self.first.iter().filter_map(|line| line.get(name).copied()).collect()
    }

    /// A number of the latest `n` lines, if there are so many and all have it; `n` is at most [`LONG_WINDOW`].
    pub(crate) fn latest(&self, name: &str, n: usize) -> Option<Vec<f64>> {
        let before = self.latest.len().checked_sub(n)?;
        self.latest.iter().skip(before).map(|line| line.get(name).copied()).collect()
    }

    /// `eval_loss` by step.
    pub(crate) fn evaluations(&self) -> &BTreeMap<u64, f64> {
        &self.evaluations
    }

    /// Whether an alarm was raised before.
    pub(crate) fn has_raised(&self, id: &str) -> bool {
        self.raised.contains(id)
    }
}
