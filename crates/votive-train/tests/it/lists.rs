//! Rows of more than two completions: lists with scores, and pairs with a gold completion.

use crate::drive::Trajectory;
use crate::equality::check_cut;
use crate::workshop::{LORA, Workshop};

const LISTS: [&str; 3] =
    ["objective.mc_po.negatives=kernel", "objective.mc_po.negatives=all", "objective.tpo-tree.beta=0.3"];

/// Lists of two, three and four answers, each length by itself; what a list draws does not depend on how a batch is cut.
#[test]
fn one_batch_of_eight_lists_is_eight_of_one() {
    for objective in LISTS {
        let run = check_cut(&Workshop::lists(), &[objective]);
        assert!(
            run.metric("loss")[0] > 0.0 && run.metric("rewards/margins").iter().any(|margin| *margin != 0.0)
        );
    }
    check_cut(&Workshop::lists(), &[LISTS[2], LORA]);
}

#[test]
fn lists_know_a_cached_reference_and_held_out_rows() {
    // Where a run starts λ's ranks are those of rounding errors, if the reference's numbers are not the policy's own.
    for objective in [LISTS[0], LISTS[1], "objective.tpo-tree.weights=equal"] {
        let workshop = Workshop::lists();
        let run = |reference: &str| Trajectory::of(&workshop.plan(&[objective, reference]));
        let (frozen, cached) = (run("reference.kind=frozen"), run("reference.kind=cached"));
        for (a, b) in frozen.metric("loss").iter().zip(cached.metric("loss")) {
            assert!((a - b).abs() < 1e-5, "{objective}: {a} {b}");
        }
        Trajectory::of(&workshop.plan(&[objective, "data.eval_fraction=0.3"]));
    }
}

/// The best answer of a list becomes likelier beside the others, and with `rejected` as what is preferred, the worst one does.
#[test]
fn lists_teach_their_order() {
    let workshop = Workshop::lists();
    for objective in LISTS {
        let margin = |more: &[&str]| {
            let run = Trajectory::of(&workshop.plan(&[&[objective, "train.steps=12"], more].concat()));
            *run.metric("rewards/margins").last().unwrap()
        };
        let (upwards, downwards) = (margin(&[]), margin(&["data.prefer=rejected"]));
        assert!(upwards > 0.0 && downwards > 0.0, "{objective}: {upwards} {downwards}");
    }
}

/// What is said of a gold completion that is the chosen one is what is said of the chosen one, in the loss and in every gradient: its
/// likelihood, beside DPO's.
#[test]
fn a_gold_completion_that_is_the_chosen_one_is_a_likelihood_term() {
    let steps = ["train.batch_size=4", "train.steps=2"];
    let likelihood =
        ["objective.sft.weight=0.5", "objective.sft.reduction=mean", "objective.sft.per_token=true"];
    for which in ["chosen", "other"] {
        let workshop = Workshop::gold(which);
        let gold = Trajectory::of(
            &workshop.plan(&[&steps[..], &["objective.dpo.with.gold_nll.weight=0.5"]].concat()),
        );
        let sum =
            Trajectory::of(&workshop.plan(&[&steps[..], &["objective.dpo.beta=0.1"], &likelihood].concat()));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs().max(1.0);
        let losses_agree = gold.metric("loss").iter().zip(sum.metric("loss")).all(|(a, b)| near(*a, b));
        assert_eq!(losses_agree, which == "chosen", "{:?} {:?}", gold.metric("loss"), sum.metric("loss"));
        let norm = gold.metric("grad_norm")[0];
        let far = |(name, mine): (&String, &Vec<f32>)| {
            mine.iter().zip(&sum.gradients[name]).any(|(a, b)| f64::from((a - b).abs()) > 1e-5 * norm)
        };
        assert_eq!(!gold.gradients.iter().any(far), which == "chosen");
        // Everything else that is logged is of the pair alone.
        for metric in ["logps/chosen", "logps/rejected", "entropy", "rewards/chosen"] {
            assert!(near(gold.metric(metric)[0], sum.metric(metric)[0]), "{metric}");
        }
        assert!(gold.metric("num_tokens")[0] > sum.metric("num_tokens")[0]);
    }
}

#[test]
fn one_batch_of_eight_is_eight_of_one_with_gold_completions() {
    for objective in ["objective.selm.alpha=0.5", "objective.typo.lambda=0.5"] {
        check_cut(&Workshop::gold("other"), &[objective]);
    }
}
