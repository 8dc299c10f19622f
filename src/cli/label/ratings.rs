//! How several models compare by a judge's verdicts on what they drew.

use super::candidates::short;
use super::origin::Origin;
use crate::cli::Outcome;
use serde::Serialize;
use std::collections::BTreeMap;
use votive_critic::{Finding, Store};
use votive_eval::judging::{self, Game, Rating};

/// Models and their ratings, best first; empty where there is only one.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Table(Vec<Row>);

#[derive(Debug, Serialize)]
struct Row {
    model: String,
    #[serde(flatten)]
    rating: Rating,
}

/// Rates the models of a store by the judgments of `judge` on pairs of different models.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn ratings(store: &Store, judge: &str, seed: u64) -> Outcome<Table> {
    let origins: BTreeMap<i64, Origin> = store
        .origins()?
        .into_iter()
        .filter_map(|(id, _, origin)| Some((id, Origin::read(&origin)?)))
        .collect();
    let mut models: Vec<&str> =
        origins.values().flat_map(|origin| &origin.models).map(String::as_str).collect();
    models.sort_unstable();
    models.dedup();
    if models.len() < 2 {
        return Ok(Table(Vec::new()));
    }
    let number = |model: &String| models.binary_search(&model.as_str()).ok();
    let mut games = Vec::new();
    for judgment in store.judgments(None, Some(judge))? {
        let (Some(origin), Finding::Preference(probability)) =
            (origins.get(&judgment.item), &judgment.judgment.finding)
        else {
            continue;
        };
        if let [Some(first), Some(second)] = origin.models.each_ref().map(number) {
            // A verdict counts whole: a judge that is always sure must not weigh more than one that is not.
            let score =
                judgment.judgment.finding.winner().map_or(*probability, votive_critic::Winner::probability);
            games.push(Game { first, second, score });
        }
    }
    let rated = judging::ratings(models.len(), &games, seed);
    let mut rows: Vec<Row> =
        models.iter().zip(rated).map(|(model, rating)| Row { model: (*model).to_owned(), rating }).collect();
    rows.sort_by(|a, b| b.rating.value.total_cmp(&a.rating.value));
    Ok(Table(rows))
}

impl Table {
    /// A line for each model.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |Row { model, rating }: &Row| {
            let Rating { value, low, high, n } = rating;
            format!("  {:20} {value:+7.0} [{low:+.0}, {high:+.0}] of {n} comparisons", short(model))
        };
        self.0.iter().map(line).collect()
    }
}
