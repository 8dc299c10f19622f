//! The rows of a run: in which order, and whether they have what is read of them.

use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Sample};
use crate::plan::Plan;
use votive_data::{DataOrder, Phases};
use votive_objective::Needs;

/// The order in which a run sees its rows.
///
/// # Errors
/// If it is by margins, and a row has none.
pub(crate) fn order<F: FrontEnd>(plan: &Plan, front: &F) -> Result<Phases> {
    let train = &plan.train;
    let Some(curriculum) = plan.data.curriculum else {
        let buckets: Vec<usize> = (0..front.rows()).map(|row| front.bucket(row)).collect();
        let order = DataOrder::in_buckets(train.seed, &buckets, train.batch_size, plan.data.traversal);
        return Ok(Phases::one(order));
    };
    let row = |row| Ok((front.bucket(row), margin(front, row, "data.order = \"curriculum\"")?));
    let rows = (0..front.rows()).map(row).collect::<Result<Vec<_>>>()?;
    Ok(Phases::curriculum(train.seed, &rows, train.batch_size, (curriculum.groups, curriculum.every)))
}

/// Refuses rows that lack what an objective reads of them.
pub(super) fn require_what_is_read<F: FrontEnd>(plan: &Plan, front: &F) -> Result<()> {
    let reader = |need| {
        let mut terms = plan.objective.terms().iter();
        terms.find(|term| term.objective.needs().contains(need)).map(|term| format!("`{}`", term.spec.id))
    };
    let rows = || 0..front.rows() + front.held_out();
    if let Some(reader) = reader(Needs::MARGINS) {
        rows().try_for_each(|row| margin(front, row, &reader).map(|_| ()))?;
    }
    if let Some(reader) = reader(Needs::GOLD) {
        rows().try_for_each(|row| gold(front, row, &reader))?;
    }
    Ok(())
}

fn gold<F: FrontEnd>(front: &F, row: usize, reader: &str) -> Result<()> {
    if front.gold_batch(&[Sample { row, position: 0 }])?.is_some() {
        return Ok(());
    }
    Err(TrainError::Plan(format!(
        "{reader} imitates a gold completion, but data row {} has none: in TRL's layout it is the column `reference`",
        front.source_row(row)
    )))
}

fn margin<F: FrontEnd>(front: &F, row: usize, reader: &str) -> Result<f64> {
    front.margin(row).ok_or_else(|| {
        TrainError::Plan(format!(
            "{reader} reads by how much a completion was preferred, but data row {} has neither a `margin` nor two \
             scores",
            front.source_row(row)
        ))
    })
}
