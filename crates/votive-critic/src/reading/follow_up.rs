//! A grade by what people would say next: how much likelier pleased follow-ups are than displeased ones.
//!
//! `mean over positive of log p(follow-up | talk) per token − the same over negative`, nats a token.
//!
//! # Source
//! FLR, "follow-up likelihood as reward". Departs from its authors' script, which averages raw logits at unshifted
//! positions; here it is the likelihood that the paper names.

use super::yes_no::describe;
use super::{Read, Reading, Reply, options};
use crate::judgment::Finding;
use crate::question::Form;
use crate::speaker::{Role, Sampling, Silence, Speaker, Talk};
use serde::Deserialize;

pub(super) const READING: Reading = Reading {
    id: "follow_up",
    form: Form::Grade,
    summary: "how much likelier pleased follow-ups of the user are than displeased ones, nats a token",
    build: |table| {
        let reading: FollowUp = options(table)?;
        if reading.positive.is_empty() || reading.negative.is_empty() {
            return Err("options: `positive` and `negative` need at least one follow-up each".to_owned());
        }
        Ok(Box::new(reading))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FollowUp {
    positive: Vec<String>,
    negative: Vec<String>,
}

impl Read for FollowUp {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, _: &Sampling) -> Result<Reply, Silence> {
        let follow_ups: Vec<String> = self.positive.iter().chain(&self.negative).cloned().collect();
        let weighed = speaker.weigh(talk, &follow_ups)?;
        let per_token = weighed.log_probs.iter().zip(&weighed.tokens);
        let per_token: Vec<f64> =
            per_token.map(|(log_prob, tokens)| log_prob / (*tokens).max(1) as f64).collect();
        let (positive, negative) = per_token.split_at(self.positive.len());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let words = describe(&follow_ups, &weighed.log_probs);
        let finding = Finding::Grade(mean(positive) - mean(negative));
        Ok(Reply { words, finding, cost: weighed.cost })
    }

    fn speaks(&self) -> Role {
        Role::User
    }
}
