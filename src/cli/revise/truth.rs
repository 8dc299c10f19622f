//! How many edits are improvements in truth, and how many labels of random pairs are right, at equal count.

use super::originals::Originals;
use super::report::in_words;
use super::{Judged, finding};
use crate::cli::judges::Chosen;
use crate::cli::{Context, Outcome};
use serde::Serialize;
use std::collections::BTreeMap;
use votive_critic::{Cost, Finding, Store, improvement};
use votive_eval::{Share, share};
use votive_tensor::random::{Draws, Stream};

/// Probability from which the truth counts a candidate as better: the checker's for a difference in utility of 0.046, which is no
/// mere shade of blur.
const SURE: f64 = 0.99;

/// What is asked.
pub(super) struct Asked<'a> {
    pub(super) judge: &'a Chosen,
    pub(super) originals: &'a Originals,
    pub(super) least: f64,
    pub(super) seed: u64,
}

/// Shares of 100 with 95 % intervals.
#[derive(Serialize)]
pub(super) struct Truth {
    /// Edits that are better than their originals, of all.
    edits: Share,
    /// Edits that are worse.
    edits_worse: Share,
    /// Another candidate of the same prompt in place of each edit, drawn at random: those that are better than the original.
    redrawn: Share,
    /// Pairs that the judge let through, whose edit is better.
    kept: Share,
    /// Random pairs of candidates of the same prompts, at most as many, whose chosen one by the judge is better.
    random: Share,
    /// Edits that are better, by what the critic found wrong.
    by_fault: BTreeMap<String, Share>,
}

impl Asked<'_> {
    /// Asks the exact checker about all edits, and about as many pairs of candidates; also gives what that cost.
    ///
    /// # Errors
    /// If somebody cannot be asked, or the store cannot be written.
    pub(super) fn measure(&self, all: &[Judged], store: &mut Store, ctx: &Context) -> Outcome<(Truth, Cost)> {
        let truth = Chosen::exact()?;
        let mut draws = Draws::new(self.seed, Stream::DataOrder, 0, 0);
        let edits: Vec<i64> = all.iter().map(|judged| judged.item).collect();
        // Of each original another pair that it stands in, and whether it stands second there.
        let redrawn: Vec<(i64, bool)> = all.iter().map(|one| *draws.pick(&one.plan.original.pairs)).collect();
        let (random, mut cost) = self.labelled(all, &mut draws, store, ctx)?;
        let others = redrawn.iter().map(|(id, _)| *id).chain(random.iter().map(|(id, _)| *id));
        let mut asked: Vec<i64> = edits.iter().copied().chain(others).collect();
        asked.sort_unstable();
        asked.dedup();
        cost += truth.record(("checking", "pairs"), &asked, store, ctx)?;
        let true_of = |id: i64| finding(store, id, truth.judge.name());

        let (mut better, mut worse, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_fault: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        for judged in all {
            let found = true_of(judged.item)?;
            let is_better = is_sure(&found, true);
            better.push(is_better);
            worse.push(is_sure(&found, false));
            if judged.found.is_ok() {
                kept.push(is_better);
            }
            for fault in &judged.plan.wrong {
                by_fault.entry(fault.clone()).or_default().push(is_better);
            }
        }
        let sure =
            |(id, is_second): &(i64, bool)| -> Outcome<bool> { Ok(is_sure(&true_of(*id)?, *is_second)) };
        // The other one than the original.
        let other = |(id, is_second): &(i64, bool)| sure(&(*id, !is_second));
        let truth = Truth {
            edits: share(&better),
            edits_worse: share(&worse),
            redrawn: share(&redrawn.iter().map(other).collect::<Outcome<Vec<_>>>()?),
            kept: share(&kept),
            random: share(&random.iter().map(sure).collect::<Outcome<Vec<_>>>()?),
            by_fault: by_fault.into_iter().map(|(fault, hits)| (fault, share(&hits))).collect(),
        };
        Ok((truth, cost))
    }

    /// Random pairs of candidates of the revised prompts that the judge decides, one of each prompt before a second of any, until
    /// there are as many as edits were kept; with whether the second one is chosen.
    fn labelled(
        &self,
        all: &[Judged],
        draws: &mut Draws,
        store: &mut Store,
        ctx: &Context,
    ) -> Outcome<(Vec<(i64, bool)>, Cost)> {
        let wanted = all.iter().filter(|judged| judged.found.is_ok()).count();
        let mut groups: Vec<usize> = all.iter().map(|judged| judged.plan.original.group).collect();
        groups.dedup();
        draws.shuffle(&mut groups);
        let mut items: Vec<Vec<i64>> =
            groups.iter().map(|group| self.originals.groups[*group].clone()).collect();
        items.iter_mut().for_each(|items| draws.shuffle(items));
        let rounds = items.iter().map(Vec::len).max().unwrap_or(0);
        let order: Vec<i64> = (0..rounds)
            .flat_map(|round| items.iter().filter_map(move |items| items.get(round)))
            .copied()
            .collect();
        let (mut found, mut cost, mut rest) = (Vec::new(), Cost::default(), order.as_slice());
        while found.len() < wanted && !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(wanted - found.len()));
            rest = later;
            cost += self.judge.record(("judging", "random pairs"), now, store, ctx)?;
            for id in now {
                let finding = finding(store, *id, self.judge.judge.name())?;
                let is_second = improvement(&finding, self.least).is_ok();
                if is_second || improvement(&finding.reversed(2), self.least).is_ok() {
                    found.push((*id, is_second));
                }
            }
        }
        Ok((found, cost))
    }
}

/// Whether the second, or the first, of two is surely better.
fn is_sure(finding: &Finding, second: bool) -> bool {
    let finding = if second { finding.clone() } else { finding.clone().reversed(2) };
    improvement(&finding, SURE).is_ok()
}

impl Truth {
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |what: &str, share: &Share| format!("  {what:44} {}", in_words(share));
        let mut lines = vec![
            "in truth".to_owned(),
            line("edits that are better than the original", &self.edits),
            line("edits that are worse", &self.edits_worse),
            line("other candidates that are better than it", &self.redrawn),
            line("pairs that are right", &self.kept),
            line("as many random pairs, labelled, that are", &self.random),
        ];
        lines.extend(
            self.by_fault
                .iter()
                .map(|(fault, share)| line(&format!("edits that are better: {fault}"), share)),
        );
        lines
    }
}
