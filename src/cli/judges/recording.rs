//! Judgments into a store: each question once, as many at a time as the judge takes.

use super::Chosen;
use crate::cli::{Context, Outcome, signal};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};
use votive_critic::{Cost, Store};

impl Chosen {
    /// Asks about every one of `items` that the judge has not judged, and gives what that cost; `what` is done, for the progress.
    ///
    /// # Errors
    /// If nobody can be asked any more, the store cannot be written, or the program is told to stop: what was recorded stays.
    pub(crate) fn record(
        &self,
        (what, unit): (&'static str, &'static str),
        items: &[i64],
        store: &mut Store,
        ctx: &Context,
    ) -> Outcome<Cost> {
        self.templates.iter().try_for_each(|template| store.keep_template(template))?;
        let name = self.judge.name();
        let mut open = Vec::new();
        for id in items {
            if !store.is_judged(*id, name, 0)? {
                open.push(*id);
            }
        }
        let done = (items.len() - open.len()) as u64;
        let progress = ctx.output.progress(what, unit, items.len() as u64).starting_at(done);
        let shared = Mutex::new((store, Cost::default()));
        let one = |id: &i64| -> Outcome {
            signal::go_on()?;
            let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
            let item = lock().0.item(*id)?;
            let judgment = self.judge.judge(&item.question, 0)?;
            let mut held = lock();
            held.0.record(*id, name, 0, &judgment)?;
            held.1 += judgment.cost();
            drop(held);
            progress.add(1);
            Ok(())
        };
        self.at_once(|| open.par_iter().try_for_each(one))?;
        progress.finish();
        let (_, cost) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(cost)
    }
}
