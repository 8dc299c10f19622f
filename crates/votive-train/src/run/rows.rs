//! The rows of a run: in which order, and whether they have what is read of them.

use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Sample, Wanted};
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
    for term in plan.objective.terms() {
        let reads = |need| term.objective.needs().contains(need);
        let reader = format!("`{}`", term.spec.id);
        for row in 0..front.rows() + front.held_out() {
            if reads(Needs::MARGINS) {
                margin(front, row, &reader)?;
            }
            if reads(Needs::SCORES) && front.scores(row).is_none() {
                let columns = match front.completions(row).len() {
                    1 => "`score`",
                    _ => "both `score_chosen` and `score_rejected`",
                };
                return Err(lacking(front, row, &reader, "what each completion was given", columns));
            }
            if reads(Needs::UNCERTAINTIES) && front.uncertainty(row).is_none() {
                return Err(lacking(front, row, &reader, "how unsure a label is", "`uncertainty`"));
            }
            if reads(Needs::GOLD)
                && front
                    .extended(0, &[Sample { row, position: 0 }], Wanted { gold: true, degrees: None })?
                    .is_none()
            {
                let column = "`reference`, as TRL calls it";
                return Err(lacking(front, row, &reader, "a gold completion", column));
            }
        }
    }
    Ok(())
}

fn lacking<F: FrontEnd>(front: &F, row: usize, reader: &str, what: &str, columns: &str) -> TrainError {
    let row = front.source_row(row);
    TrainError::Plan(format!("{reader} reads {what}, but data row {row} does not have {columns}"))
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
