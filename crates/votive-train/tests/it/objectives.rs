//! Every method trains both modalities; a recipe names it in one line.

use crate::drive::Trajectory;
use crate::workshop::{LORA, Workshop, has_what_is_read};
use std::fmt::Write as _;
use votive_objective::{Domain, METHODS, MethodSpec, Needs};

#[test]
fn another_method_is_another_line() {
    // A denoiser has no tokens, and a language model no errors.
    for (workshop, adapter, lacks) in [
        (Workshop::text(), &["train.micro_batch_size=4"][..], &[Needs::ERRORS][..]),
        (Workshop::image(), &[LORA][..], &[Needs::TOKENS, Needs::ALIGNMENT, Needs::DEGREES]),
    ] {
        let mut line = "[objective.dpo]".to_owned();
        let is_of_these = |spec: &MethodSpec| lacks.iter().all(|need| !spec.needs.contains(*need));
        for spec in METHODS.iter().filter(|spec| is_of_these(spec) && has_what_is_read(spec)) {
            let other = format!("[objective.{}]", spec.id);
            workshop.edit(&line, &other);
            line = other;
            let run = Trajectory::of(&workshop.plan(&[adapter, &["train.steps=3"]].concat()));
            let finite = |name| run.metric(name).iter().all(|value| value.is_finite());
            assert!(finite("loss") && finite("grad_norm") && finite("logps/chosen"), "{}: {run:?}", spec.id);
            let [first, .., last] = run.metric("loss")[..] else { panic!("three steps") };
            assert_ne!(first, last, "{}", spec.id);
        }
    }
}

/// Ten steps on all pairs at once: what is liked must become likelier beside what is not, by a tenth of a nat.
#[test]
fn every_method_learns_what_it_is_shown() {
    let of_text = |spec: &&&MethodSpec| spec.domains.contains(&Domain::Text) && has_what_is_read(spec);
    for spec in METHODS.iter().filter(of_text) {
        let workshop = Workshop::text();
        workshop.edit("[objective.dpo]", &format!("[objective.{}]", spec.id));
        let plan = workshop.plan(&["train.steps=10", "train.batch_size=20", "train.micro_batch_size=20"]);
        let run = Trajectory::of(&plan);
        let [liked, others] = ["logps/chosen", "logps/rejected"].map(|name| run.metric(name));
        // Whoever reads nothing else, or imitates both sides, makes what is liked likelier.
        let is_imitating = others[0].is_nan() || spec.id == "rwr";
        let ahead = |step: usize| liked[step] - if is_imitating { 0.0 } else { others[step] };
        // A run of DiscoPOP starts on the far side of its hill.
        let direction = if spec.id == "discopop" { -1.0 } else { 1.0 };
        let learned = direction * (ahead(9) - ahead(0));
        assert!(learned > 0.1, "{}: {learned}, {liked:?} {others:?}", spec.id);
    }
}

#[test]
fn weights_that_vanish_leave_dpo() {
    let workshop = Workshop::text();
    let dpo = Trajectory::of(&workshop.plan(&["objective.dpo.beta=0.2"]));
    for other in [
        &["objective.ld_dpo.beta=0.2", "objective.ld_dpo.alpha=1"][..],
        &["objective.tdpo.beta=0.2", "objective.tdpo.alpha=0"],
        &["objective.dpo.beta=0.2", "objective.sft.weight=0"],
    ] {
        let run = Trajectory::of(&workshop.plan(other));
        for metric in ["loss", "grad_norm", "rewards/chosen", "rewards/accuracies"] {
            for (found, expected) in run.metric(metric).iter().zip(dpo.metric(metric)) {
                assert!(
                    (found - expected).abs() < 2e-5 * expected.abs().max(1.0),
                    "{other:?}, {metric}: {found} {expected}"
                );
            }
        }
    }
}

/// A mixture's loss is the weighted sum of its parts, each of which is logged.
#[test]
fn a_mixture_is_the_sum_of_its_parts() {
    let workshop = Workshop::text();
    let first =
        |overrides: &[&str]| Trajectory::of(&workshop.plan(&[overrides, &["train.steps=1"]].concat()));
    let mixed = first(&["objective.dpo.weight=0.5", "objective.sft.weight=2", "objective.sft.reduction=sum"]);
    let parts = [
        first(&["objective.dpo.weight=0.5"]),
        first(&["objective.sft.reduction=sum", "objective.sft.weight=2"]),
    ];
    let logged = ["loss/dpo", "loss/sft"].map(|name| mixed.metric(name)[0]);
    for (part, logged) in parts.iter().zip(logged) {
        assert!((part.metric("loss")[0] - logged).abs() < 1e-4 * logged, "{logged}");
    }
    for (name, mixed) in &mixed.gradients {
        for (place, found) in mixed.iter().enumerate() {
            let sum = parts[0].gradients[name][place] + parts[1].gradients[name][place];
            assert!((found - sum).abs() < 1e-4 * sum.abs().max(1.0), "{name}: {found} {sum}");
        }
    }
    // Likelihood alone needs no rejected completion, so none is read.
    assert!(mixed.metric("num_tokens")[0] > 1.5 * parts[1].metric("num_tokens")[0]);
    assert!(parts[1].metric("logps/rejected")[0].is_nan());
}

/// Entropy, mean logits and accuracy are of tokens, whatever the batch.
#[test]
fn tokens_are_described() {
    let run = Trajectory::of(&Workshop::text().plan(&["train.steps=1"]));
    let [entropy, accuracy] = ["entropy", "mean_token_accuracy"].map(|name| run.metric(name)[0]);
    assert!(entropy > 0.0 && (0.0..=1.0).contains(&accuracy), "{entropy} {accuracy}");
    assert!(["logits/chosen", "logits/rejected"].iter().all(|name| run.metric(name)[0].is_finite()));
}

#[test]
fn a_row_counts_as_much_as_its_weight() {
    let row = |weight: &str, chosen: &str| {
        format!(
            r#"{{"prompt": "The cat", "chosen": " {chosen}", "rejected": " ran home", "weight": {weight}}}"#
        )
    };
    let gradients = |rows: &[String], batch: usize| {
        let (workshop, mut data) = (Workshop::text(), String::new());
        rows.iter().for_each(|row| writeln!(data, "{row}").unwrap());
        std::fs::write(workshop.path("rows.jsonl"), data).unwrap();
        let path = format!("data.path={}", workshop.path("rows.jsonl").display());
        let (batch, micro) = (format!("train.batch_size={batch}"), "train.micro_batch_size=1");
        let plan = workshop.plan(&[&path, &batch, micro, "train.steps=1", "data.order=sequential"]);
        Trajectory::of(&plan).gradients
    };
    let alone = gradients(&[row("1", "sat")], 1);
    // A mean over two rows of which one counts three times and the other not at all.
    let weighted = gradients(&[row("3", "sat"), row("0.0", "slept well")], 2);
    for (name, alone) in alone {
        for (alone, weighted) in alone.iter().zip(&weighted[&name]) {
            assert!((1.5 * alone - weighted).abs() < 1e-5, "{name}: {alone} {weighted}");
        }
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

#[test]
fn scored_margins_are_read_where_they_are_and_asked_for_where_not() {
    let workshop = Workshop::text();
    let curriculum = ["data.order=curriculum", "data.curriculum_groups=2", "data.curriculum_every=3"];
    let run = Trajectory::of(&workshop.plan(&curriculum));
    let plain = Trajectory::of(&workshop.plan(&[]));
    assert_ne!(run.metric("logps/chosen")[0], plain.metric("logps/chosen")[0]);
    let one_group = ["data.order=curriculum", "data.curriculum_groups=1"];
    Trajectory::of(&workshop.plan(&one_group)).assert_same(&plain);
    let pairs = std::fs::read_to_string(workshop.path("pairs.jsonl")).unwrap();
    let bare: String =
        pairs.lines().map(|row| row.split(",\"margin\"").next().unwrap().to_owned() + "}\n").collect();
    std::fs::write(workshop.path("pairs.jsonl"), bare).unwrap();
    for overrides in [&curriculum[..], &["objective.smpo.beta=0.1"], &["objective.rwr.temperature=1"]] {
        let message = Trajectory::attempt(&workshop.plan(overrides)).unwrap_err().to_string();
        assert!(message.contains("data row 1 has neither a `margin` nor two scores"), "{message}");
    }
}

#[test]
fn wrappers_of_a_recipe_are_settled_and_refused_where_they_make_no_sense() {
    let workshop = Workshop::text();
    let overrides = ["objective.dpo.with.nll.weight=0.5", "objective.dpo.with.label_smoothing.epsilon=0.2"];
    let plan = workshop.plan(&overrides);
    let settled = plan.to_toml();
    assert!(settled.contains("[objective.dpo.with.nll]\nweight = 0.5\nper_token = true"), "{settled}");
    workshop.edit(
        "[objective.dpo]",
        "[objective.dpo.with.nll]\nweight = 0.5\n[objective.dpo.with.label_smoothing]\nepsilon = 0.2",
    );
    Trajectory::of(&workshop.plan(&[])).assert_same(&Trajectory::of(&plan));
    let refusal = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        votive_train::Plan::read(&Workshop::text().path("recipe.toml"), &overrides).unwrap_err().to_string()
    };
    for (change, parts) in [
        (
            "objective.robust.with.label_smoothing.epsilon=0.1",
            ["objective.robust.with.label_smoothing", "its ε says"],
        ),
        (
            "objective.nca_pair.with.length.alpha=0.1",
            ["objective.nca_pair.with.length", "not one of a margin"],
        ),
        ("objective.dpo.with.nll.weight=-1", ["objective.dpo.with.nll.weight", "at least 0"]),
        ("objective.dpo.with.nl.weight=1", ["objective.dpo.with.nl", "did you mean `nll`?"]),
        ("objective.dpo.with.nll.wieght=1", ["objective.dpo.with.nll.wieght", "did you mean"]),
        (
            "objective.dpo.label_smoothing=0.1",
            ["objective.dpo.label_smoothing", "write objective.dpo.with.label_smoothing"],
        ),
        ("objective.aot.beta=0.1", ["train.micro_batch_size", "must be train.batch_size = 4"]),
        ("objective.tpo_triple.with.gold_nll.weight=1", ["with.gold_nll", "already"]),
    ] {
        let message = refusal(&[change]);
        assert!(parts.iter().all(|part| message.contains(part)), "{change}: {message}");
    }
}

/// A method that is another in a wrapper trains as the other with the wrapper does.
#[test]
fn a_wrapper_is_the_method_that_is_written_with_it() {
    let workshop = Workshop::text();
    for (method, with) in [
        ("objective.cdpo.label_smoothing=0.2", "objective.dpo.with.label_smoothing.epsilon=0.2"),
        ("objective.r_dpo.alpha=0.3", "objective.dpo.with.length.alpha=0.3"),
        ("objective.ld_dpo.alpha=0.3", "objective.dpo.with.token_mask.alpha=0.3"),
        ("objective.rpo_regularized.eta=0.3", "objective.dpo.with.nll.weight=0.3"),
    ] {
        let [method, with] = [method, with].map(|change| Trajectory::of(&workshop.plan(&[change])));
        method.assert_same(&with);
    }
    let [wpo, with] = [
        &["objective.wpo.beta=0.1", "objective.wpo.max_weight=0.9"][..],
        &["objective.dpo.beta=0.1", "objective.dpo.with.policy_weight.max=0.9"],
    ]
    .map(|changes| Trajectory::of(&workshop.plan(changes)));
    wpo.assert_same(&with);
}

#[test]
fn gold_completions_are_imitated_and_asked_for() {
    let workshop = Workshop::text();
    let tpo = ["objective.tpo_triple.beta=0.1"];
    let message = Trajectory::attempt(&workshop.plan(&tpo)).unwrap_err().to_string();
    assert!(message.contains("data row 1 does not have `reference`"), "{message}");
    // The chosen completion as a gold one: as CPO, which imitates that.
    let pairs = std::fs::read_to_string(workshop.path("pairs.jsonl")).unwrap();
    let mut triples = String::new();
    for line in pairs.lines() {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["reference"] = row["chosen"].clone();
        writeln!(triples, "{row}").unwrap();
    }
    std::fs::write(workshop.path("pairs.jsonl"), triples).unwrap();
    let recomputed = ["train.recompute=true"];
    let tpo = Trajectory::of(&workshop.plan(&tpo));
    let cpo = Trajectory::of(&workshop.plan(&["objective.cpo.beta=0.1"]));
    for (found, expected) in tpo.metric("loss").iter().zip(cpo.metric("loss")) {
        assert!((found - expected).abs() < 1e-4 * expected.abs(), "{found} {expected}");
    }
    assert!(tpo.metric("num_tokens")[0] > 1.2 * cpo.metric("num_tokens")[0]);
    let again = Trajectory::of(&workshop.plan(&["objective.tpo_triple.beta=0.1", recomputed[0]]));
    for (found, expected) in again.metric("loss").iter().zip(tpo.metric("loss")) {
        assert!((found - expected).abs() < 1e-5 * expected.abs(), "{found} {expected}");
    }
}
