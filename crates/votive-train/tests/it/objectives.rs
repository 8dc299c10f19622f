//! Every method trains both modalities; a recipe names it in one line.

use crate::drive::Trajectory;
use crate::workshop::{LORA, Workshop};
use votive_objective::METHODS;

#[test]
fn another_method_is_another_line() {
    for (workshop, adapter) in [(Workshop::text(), &[][..]), (Workshop::image(), &[LORA][..])] {
        let mut line = "[objective.dpo]".to_owned();
        for spec in METHODS {
            let other = format!("[objective.{}]", spec.id);
            workshop.edit(&line, &other);
            line = other;
            let run = Trajectory::of(&workshop.plan(&[adapter, &["train.steps=3"]].concat()));
            let finite = |name| run.metric(name).iter().all(|value| value.is_finite());
            assert!(
                finite("loss") && finite("grad_norm") && finite("rewards/margins"),
                "{}: {run:?}",
                spec.id
            );
            let [first, .., last] = run.metric("rewards/margins")[..] else { panic!("three steps") };
            assert_ne!(first, last, "{}", spec.id);
        }
    }
}

/// Ten steps on all pairs at once: the margin of what is liked over what is not must grow.
#[test]
fn every_method_learns_what_it_is_shown() {
    for spec in METHODS {
        let workshop = Workshop::text();
        workshop.edit("[objective.dpo]", &format!("[objective.{}]", spec.id));
        let plan = workshop.plan(&["train.steps=10", "train.batch_size=20", "train.micro_batch_size=20"]);
        let margins = Trajectory::of(&plan).metric("rewards/margins");
        assert!(margins[9] > margins[0] + 0.1, "{}: {margins:?}", spec.id);
    }
}

#[test]
fn single_completions_train_where_a_method_takes_them_and_are_refused_where_not() {
    let workshop = Workshop::unpaired_text();
    let run = Trajectory::of(&workshop.plan(&["objective.kto.beta=0.1"]));
    assert!(run.metric("rewards/margins")[5] > 0.0, "{:?}", run.metric("rewards/margins"));
    let message = Trajectory::attempt(&workshop.plan(&[])).unwrap_err().to_string();
    assert!(message.contains("compares pairs"), "{message}");
}
