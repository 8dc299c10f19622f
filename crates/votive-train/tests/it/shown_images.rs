//! Language models that see images: the numbers of torch and TRL, learning, resuming, and rows that cannot be used.

use crate::drive::{Trajectory, no_reward};
use crate::fixture;
use crate::resume::check_every_step;
use crate::torch::{TorchRun, assert_near, largest_distance};
use crate::workshop::{LORA, Workshop, replace_in};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::fs;
use votive_train::front_end::{FrontEnd, Sample};
use votive_train::{Plan, Prepared, Run, TrainError, prepare};

/// As for texts alone: log-probabilities are sums of about ten numbers near −5, in f32.
const LOGPS: f64 = 3e-5;
const LOSS: f64 = 1e-5;
/// Relative.
const GRAD_NORM: f64 = 1e-5;

/// Trains as torch did on what TRL's vision collator made of the rows.
fn check(family: &str, folder: &'static str, name: &'static str) {
    let torch = TorchRun::read(folder, name);
    let (model, rows) = (fixture(family).join(torch.model()), fixture("llava_steps/prefs.jsonl"));
    let data =
        format!("model = {{ path = {model:?} }}\ndata = {{ path = {rows:?}, order = \"sequential\" }}");
    let workshop = Workshop::new(&format!("{data}\n{}", torch.recipe()));
    let plan = workshop.plan(&[]);
    let Prepared::Text(front, start, _) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap() else {
        panic!("a language model");
    };
    let mut run = Run::new(&plan, &*front, torch.start(start), None, |_, _| {}).unwrap();
    for step in 0..torch.steps() {
        let seen: BTreeMap<String, Tensor> = run.inspect(step, false).unwrap().tensors.into_iter().collect();
        for part in ["input_ids", "attention_mask", "completion_mask"] {
            let name = format!("step{step}.{part}");
            assert_eq!(largest_distance(&seen[part], &torch.batches[&name]), 0.0, "{name}");
        }
        for part in ["policy_logps", "reference_logps"] {
            let distance = largest_distance(&seen[part], &torch.outputs[&format!("step{step}.{part}")]);
            assert!(distance <= LOGPS, "{name}, step {step}, {part}: off by {distance:e}");
        }
        let metrics = run.step().unwrap();
        let what = format!("{family}, {name}, step {step}");
        assert_near(metrics.loss, torch.metric(step, "loss"), LOSS, &what);
        let grad_norm = torch.metric(step, "grad_norm");
        assert_near(metrics.grad_norm, grad_norm, GRAD_NORM * grad_norm, &what);
        if run.params().lora().is_some() && (metrics.step == 1 || metrics.step == torch.steps()) {
            torch.check_weights(run.params(), metrics.step);
        }
    }
}

#[test]
fn full_fine_tuning_on_trls_batches() {
    check("llava", "llava_steps", "full");
    check("qwen3_vl", "qwen3_vl_steps", "full");
}

#[test]
fn an_adapter_on_trls_batches() {
    check("llava", "llava_steps", "lora");
    check("qwen3_vl", "qwen3_vl_steps", "lora");
}

/// Images in a list of structs, one of them a path, in two row groups.
#[test]
fn embedded_images_are_those_of_files() {
    let workshop = Workshop::shown_images();
    let run = |overrides: &[&str]| Trajectory::of(&workshop.plan(overrides));
    let files = run(&["train.steps=4"]);
    let path = format!("data.path={}", fixture("llava_steps/prefs.parquet").display());
    files.assert_same(&run(&["train.steps=4", &path]));
}

#[test]
fn runs_on_texts_with_images_resume_at_every_step() {
    check_every_step(&Workshop::shown_images(), &[]);
    check_every_step(&Workshop::shown_images(), &[LORA, "train.recompute=true"]);
    check_every_step(&Workshop::shown_sizes(), &["train.recompute=true"]);
}

/// The same rows, whose images a Qwen3-VL reads in their own sizes: each with as many tokens as it has vectors, and shown with one.
#[test]
fn images_of_different_sizes_have_as_many_tokens_as_vectors() {
    let plan = Workshop::shown_sizes().plan(&[]);
    let Prepared::Text(front, _, report) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap()
    else {
        panic!("a language model");
    };
    assert_eq!(report.train.rows_kept, 6);
    let pad = front.tokenizer().encode("<|image_pad|>", false).unwrap()[0];
    // Cells of 8 pixels: 12x12 becomes 16x16, 33x22 becomes 32x24.
    let batch = front.batch(0, &[Sample { row: 2, position: 0 }]).unwrap();
    let places = batch.tokens().input_ids.iter().filter(|id| **id == pad).count();
    assert_eq!(places, 2 * (2 * 2 + 4 * 3));
    let shown = front.show(&batch, false).unwrap();
    let seen = "<|vision_start|><|image_pad|><|vision_end|>";
    assert!(shown[0].contains(&format!("user⏎{seen}{seen}Count to two.")), "{}", shown[0]);
    assert_eq!(front.most_image_vectors(), 2 * 2 + 4 * 3);
}

/// A line of more than 200 times its width is no image for a Qwen3-VL: refused with its row, or counted.
#[test]
fn images_of_a_shape_that_is_not_read_are_refused_by_name_or_counted() {
    let workshop = Workshop::shown_sizes();
    image::RgbImage::new(402, 2).save(workshop.path("line.png")).unwrap();
    image::RgbImage::new(20, 30).save(workshop.path("good.png")).unwrap();
    let row = |name: &str| {
        let seen = "<|vision_start|><|image_pad|><|vision_end|>";
        format!(
            "{{\"images\": [\"{name}.png\"], \"prompt\": \"{seen}The colour is\", \"chosen\": \" red\", \"rejected\": \" blue\"}}\n"
        )
    };
    fs::write(workshop.path("rows.jsonl"), row("good") + &row("line")).unwrap();
    let path = format!("data.path={}", workshop.path("rows.jsonl").display());
    let message = refused(&workshop.plan(&[&path]));
    let parts = ["rows.jsonl", "row 2", "line.png", "200 times"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    let plan = workshop.plan(&[&path, "data.faulty_rows=drop"]);
    let Prepared::Text(_, _, report) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap() else {
        panic!("a language model");
    };
    assert_eq!((report.train.rows_read, report.train.rows_kept), (2, 1));
}

#[test]
fn recomputed_layers_and_smaller_parts_of_a_batch_change_nothing() {
    let workshop = Workshop::shown_images();
    let run = |overrides: &[&str]| Trajectory::of(&workshop.plan(overrides));
    let kept = run(&["train.steps=3"]);
    kept.assert_same(&run(&["train.steps=3", "train.recompute=true"]));
    let parts = run(&["train.steps=3", "train.micro_batch_size=1"]);
    for (loss, other) in kept.metric("loss").into_iter().zip(parts.metric("loss")) {
        assert!((loss - other).abs() < 1e-6, "{loss}, {other}");
    }
    // A reference of its own is the policy below its adapter.
    let adapted = [LORA, "train.steps=3"];
    let frozen = run(&[&adapted[..], &["reference.kind=frozen"]].concat());
    frozen.assert_same(&run(&[&adapted[..], &["reference.kind=adapter_off"]].concat()));
    // The same sequence with another image is another entry of the table.
    let cached = run(&[&adapted[..], &["reference.kind=cached"]].concat());
    for (loss, other) in frozen.metric("loss").into_iter().zip(cached.metric("loss")) {
        assert!((loss - other).abs() < 1e-6, "{loss}, {other}");
    }
}

/// Two completions that count 1 are DPO, whether they come as a pair or as a list that shows the same images.
#[test]
fn lists_show_the_images_of_their_row() {
    let workshop = Workshop::shown_images();
    // All rows in every step, so that what is learnt shows.
    let all = ["train.steps=3", "train.batch_size=6", "train.micro_batch_size=6"];
    let pairs = Trajectory::of(&workshop.plan(&[&all[..], &["objective.dpo.beta=0.3"]].concat()));
    workshop.edit("[objective.dpo]", "[objective.tpo-tree]");
    let own = ["objective.tpo-tree.beta=0.3", "objective.tpo-tree.weights=equal"];
    let lists = Trajectory::of(&workshop.plan(&[&all[..], &own].concat()));
    for (loss, other) in pairs.metric("loss").into_iter().zip(lists.metric("loss")) {
        assert!((loss - other).abs() < 1e-6, "{loss}, {other}");
    }
    let losses = pairs.metric("loss");
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6 && losses[2] < losses[0], "{losses:?}");
}

/// Either of two prompts shows the images of the row, wherever in it they stand.
#[test]
fn two_prompts_show_the_images_of_their_row() {
    let workshop = Workshop::shown_images();
    let mut overrides = coloured(&workshop);
    let row = |colour: &str| {
        format!(
            "{{\"images\": [\"{colour}.png\"], \"prompt_chosen\": \"See <image> the colour:\", \"prompt_rejected\": \"See the size <image>:\", \"completion\": \" {colour}\"}}\n"
        )
    };
    fs::write(workshop.path("colours.jsonl"), row("red") + &row("blue")).unwrap();
    workshop.edit("[objective.dpo]", "[objective.mapl]");
    overrides.push("train.steps=6".to_owned());
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let losses = Trajectory::of(&workshop.plan(&overrides)).metric("loss");
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6 && losses[5] < losses[0], "{losses:?}");
}

/// Copies of completions, which a head reads, follow the same images.
#[test]
fn copies_of_completions_show_the_images_of_their_row() {
    let workshop = Workshop::shown_images();
    workshop.edit("[objective.dpo]", "[objective.spo-self-supervised]");
    check_every_step(&workshop, &[]);
}

/// The image encoder has no gradient before the first image comes.
#[test]
fn rows_without_images_may_come_first() {
    let workshop = Workshop::shown_images();
    let rows = fs::read_to_string(fixture("llava_steps/prefs.jsonl")).unwrap();
    let mut lines: Vec<&str> = rows.lines().collect();
    lines.rotate_right(1);
    let folder = workshop.path("");
    for n in 0..6 {
        fs::copy(fixture(&format!("llava_steps/{n}.png")), folder.join(format!("{n}.png"))).unwrap();
    }
    fs::write(workshop.path("pairs.jsonl"), lines.join("\n")).unwrap();
    let path = format!("data.path={}", workshop.path("pairs.jsonl").display());
    let overrides = [&path, "data.order=sequential", "train.batch_size=1", "train.micro_batch_size=1"];
    check_every_step(&workshop, &overrides);
}

/// Two plain pictures, and the same question about both.
fn coloured(workshop: &Workshop) -> Vec<String> {
    let mut rows = String::new();
    for (name, colour, [good, bad]) in
        [("red", [230, 20, 20], ["red", "blue"]), ("blue", [20, 20, 230], ["blue", "red"])]
    {
        image::RgbImage::from_pixel(24, 24, image::Rgb(colour))
            .save(workshop.path(format!("{name}.png")))
            .unwrap();
        rows += &format!(
            "{{\"images\": [\"{name}.png\"], \"prompt\": \"<image>The colour is\", \"chosen\": \" {good}\", \"rejected\": \" {bad}\"}}\n"
        );
    }
    fs::write(workshop.path("colours.jsonl"), rows).unwrap();
    vec![
        format!("data.path={}", workshop.path("colours.jsonl").display()),
        "train.steps=80".to_owned(),
        "optimizer.lr=3e-3".to_owned(),
    ]
}

#[test]
fn a_tiny_model_learns_to_prefer_what_it_sees() {
    let workshop = Workshop::shown_images();
    let overrides = coloured(&workshop);
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    for more in [&[][..], &["adapter.lora.rank=4", "optimizer.lr=1e-2"]] {
        let plan = workshop.plan(&[&overrides[..], more].concat());
        let run = Trajectory::of(&plan);
        let (margins, accuracies) = (run.metric("rewards/margins"), run.metric("rewards/accuracies"));
        assert_eq!(margins[0], 0.0);
        // Both answers are chosen once and rejected once, so only the pictures can tell.
        assert!(margins[79] > 1.0 && accuracies[79] == 1.0, "{margins:?}");
    }
}

#[test]
fn any_text_objective_reads_images() {
    let workshop = Workshop::shown_images();
    for objective in ["sft", "kto", "simpo", "orpo"] {
        workshop.edit("[objective.dpo]", &format!("[objective.{objective}]"));
        let run = Trajectory::of(&workshop.plan(&["train.steps=3"]));
        assert!(run.metric("loss").iter().all(|loss| loss.is_finite()), "{objective}");
        let moved = |part: &str| {
            run.gradients.iter().any(|(name, g)| name.contains(part) && g.iter().any(|x| *x != 0.0))
        };
        assert!(moved("vision_tower") && moved("multi_modal_projector"), "{objective}");
        workshop.edit(&format!("[objective.{objective}]"), "[objective.dpo]");
    }
}

#[test]
fn a_row_is_shown_with_one_token_for_each_image() {
    let plan = Workshop::shown_images().plan(&[]);
    let Prepared::Text(front, _, report) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap()
    else {
        panic!("a language model");
    };
    assert_eq!(report.train.rows_kept, 6);
    let batch = front.batch(0, &[Sample { row: 2, position: 0 }]).unwrap();
    let shown = front.show(&batch, false).unwrap();
    assert!(shown[0].contains("user⏎<image><image>Count to two."), "{}", shown[0]);
    let identities = front.sequence_identities(&batch);
    assert_ne!(identities[0], identities[1]);
}

fn refused(plan: &Plan) -> String {
    match prepare(plan, &Device::Cpu, &no_reward, |_, _| {}) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn rows_whose_images_cannot_be_used_are_refused_by_name_or_counted() {
    let good =
        r#"{"images": ["0.png"], "prompt": "<image>The colour is", "chosen": " red", "rejected": " blue"}"#;
    type Broken = (&'static str, &'static str, &'static [&'static str]);
    let cases: [Broken; 6] = [
        ("\"0.png\"", "\"no.png\"", &["row 2", "images[0]", "no.png"]),
        ("\"0.png\"", "\"cut.png\"", &["row 2", "images[0]", "cut.png"]),
        ("\"0.png\"", "\"0.png\", \"0.png\"", &["row 2", "2 images, 1 places in the prompt"]),
        ("<image>", "", &["row 2", "1 images, 0 places in the prompt"]),
        (" red", " red<image>", &["row 2", "1 places in the completions"]),
        ("[\"0.png\"]", "\"0.png\"", &["row 2", "field `images`", "a list of images"]),
    ];
    for (from, to, parts) in cases {
        let workshop = Workshop::shown_images();
        let bytes = fs::read(fixture("llava_steps/0.png")).unwrap();
        fs::write(workshop.path("0.png"), &bytes).unwrap();
        fs::write(workshop.path("cut.png"), &bytes[..bytes.len() / 2]).unwrap();
        fs::write(workshop.path("rows.jsonl"), format!("{good}\n{}\n", good.replace(from, to))).unwrap();
        let path = format!("data.path={}", workshop.path("rows.jsonl").display());
        let message = refused(&workshop.plan(&[&path]));
        assert!(
            parts.iter().all(|part| message.contains(part)) && message.contains("rows.jsonl"),
            "{message}"
        );
        if parts.contains(&"a list of images") {
            continue;
        }
        let plan = workshop.plan(&[&path, "data.faulty_rows=drop"]);
        let Prepared::Text(_, _, report) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap()
        else {
            panic!("a language model");
        };
        assert_eq!((report.train.rows_read, report.train.rows_kept), (2, 1), "{to}");
    }
}

#[test]
fn a_model_that_sees_nothing_refuses_images_and_a_strange_processor_is_refused() {
    let workshop = Workshop::shown_images();
    let text = format!("model.path={}", fixture("text/llama").display());
    let message = refused(&workshop.plan(&[&text]));
    assert!(message.contains("row 1") && message.contains("the model sees none"), "{message}");
    let model = workshop.path("model");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(fixture("llava/llama")).unwrap().flatten().filter(|file| file.path().is_file()) {
        fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    replace_in(&model.join("processor_config.json"), "\"<image>\"", "\"<picture>\"");
    let model = format!("model.path={}", model.display());
    let error = prepare(&workshop.plan(&[&model]), &Device::Cpu, &no_reward, |_, _| {}).err().unwrap();
    assert!(matches!(&error, TrainError::Plan(reason) if reason.contains("<picture>")), "{error}");
}
