//! Asking a judge, bare and with its protocol, each different question once.

use super::record::{Pair, Record};
use crate::cli::judges::{Chosen, JudgeArgs, Subject};
use crate::cli::{Context, Outcome, signal};
use rayon::prelude::*;
use std::sync::Arc;
use votive_critic::protocol::Remembering;
use votive_critic::{Cost, Judge, Judgment, Question};

/// A judge that is asked.
pub(super) struct Asking {
    chosen: Chosen,
    bare: Arc<Remembering>,
    judge: Arc<dyn Judge>,
}

impl Asking {
    /// The judge that was asked for; `seed` keys its draws.
    ///
    /// # Errors
    /// If there is no such judge, or it does not judge such things.
    pub(super) fn new(args: &JudgeArgs, subject: Subject, seed: u64, ctx: &Context) -> Outcome<Self> {
        let chosen = args.choose(subject, seed, ctx)?;
        // The protocol puts the questions that the bare judge was asked: it shall not pay for them again.
        let bare = Arc::new(Remembering::new(chosen.bare.clone()));
        let judge = args.protocol(bare.clone())?;
        Ok(Self { chosen, bare, judge })
    }

    pub(super) fn name(&self) -> &str {
        self.judge.name()
    }

    /// Marks that are taken out of what it is shown.
    pub(super) fn reserved_marks(&self) -> Vec<String> {
        self.judge.reserved_marks()
    }

    /// What has been asked so far cost this.
    pub(super) fn cost(&self) -> Cost {
        self.bare.cost()
    }

    /// The judgment without a protocol and the one with it.
    ///
    /// # Errors
    /// If the judge cannot be asked.
    pub(super) fn both(&self, question: &Question, draw: usize) -> Outcome<[Judgment; 2]> {
        Ok([self.bare.judge(question, draw as u64)?, self.judge.judge(question, draw as u64)?])
    }

    /// What the judge says of all pairs, in both orders; a pair's place is its draw.
    ///
    /// # Errors
    /// If the judge cannot be asked, or somebody stops it.
    pub(super) fn records(&self, pairs: &[Pair], ctx: &Context) -> Outcome<Vec<Record>> {
        self.of_each(("judging", "pairs"), pairs, ctx, |draw, pair| {
            let [forth, judged] = self.both(&pair.question, draw)?;
            let [back, judged_back] = self.both(&pair.question.reversed(), draw)?;
            Ok(Record {
                known: pair.known.clone(),
                orders: vec![[judged.finding.winner(), judged_back.finding.winner()]],
                judged: judged.finding,
                bare: Some([forth.finding, back.finding]),
            })
        })
    }

    /// Does work that asks, several pieces at a time: small networks have no operation that is worth sharing between cores,
    /// and servers answer several questions at once.
    ///
    /// # Errors
    /// Those of the work, or if somebody stops it.
    pub(super) fn of_each<T: Sync, R: Send>(
        &self,
        (what, unit): (&'static str, &'static str),
        all: &[T],
        ctx: &Context,
        work: impl Fn(usize, &T) -> Outcome<R> + Send + Sync,
    ) -> Outcome<Vec<R>> {
        let progress = ctx.output.progress(what, unit, all.len() as u64);
        let one = |(place, item): (usize, &T)| -> Outcome<R> {
            signal::go_on()?;
            let done = work(place, item)?;
            progress.add(1);
            Ok(done)
        };
        let done =
            self.chosen.at_once(|| all.par_iter().enumerate().map(one).collect::<Outcome<Vec<_>>>())?;
        progress.finish();
        Ok(done)
    }
}
