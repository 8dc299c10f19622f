//! What can be seen of a run: samples, held-out rows, alarms, and who has its directory.

use crate::bad_input::{NUMBERS, Trial, contents};
use crate::*;

fn files_of(run: &str, step: u64) -> Vec<String> {
    let folder = format!("{run}/samples/step-{step:06}");
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn samples_of(run: &str, step: u64) -> Vec<Value> {
    let list = fs::read_to_string(format!("{run}/samples/step-{step:06}/samples.json")).unwrap();
    serde_json::from_str(&list).unwrap()
}

#[test]
fn a_language_model_answers_the_same_prompts_while_it_is_trained() {
    let trial = Trial::text();
    let prompts = ["The cat sat on", "Name a colour:"];
    let settings = ["sample.prompts=[\"The cat sat on\", \"Name a colour:\"]", "sample.max_new_tokens=12"];
    trial.works(&trial.training(&[&settings[..], &["sample.every=4", "optimizer.lr=0.0"]].concat()));
    let run = trial.path("run");
    assert_eq!(fs::read_dir(trial.path("run/samples")).unwrap().count(), 3);
    let first = samples_of(&run, 0);
    assert_eq!(first.iter().map(|sample| sample["prompt"].as_str().unwrap()).collect::<Vec<_>>(), prompts);
    // Nothing was learned, so nothing changes; and the program says the same.
    for step in [4, 6] {
        assert_eq!(samples_of(&run, step), first);
    }
    let model = fixture("text/llama");
    let mut args = vec!["generate", "--model", &model, "--temperature", "0", "--max-new-tokens", "12"];
    prompts.iter().for_each(|prompt| args.extend(["--prompt", prompt]));
    for (sample, row) in first.iter().zip(rows(&args)) {
        assert_eq!(sample["text"], row["text"]);
    }
    let page = fs::read_to_string(trial.path("run/index.html")).unwrap();
    assert_eq!(page.matches("<th scope=\"row\">").count(), 3);
}

#[test]
fn a_diffusion_model_draws_the_same_prompts_while_it_is_trained() {
    let trial = Trial::image();
    let settings = [
        "sample.prompts=[\"picture 0\", \"picture 0\"]",
        "sample.steps=3",
        "sample.every=6",
        "sample.seed=7",
    ];
    trial.works(&trial.training(&settings));
    let run = trial.path("run");
    for step in [0, 6] {
        assert_eq!(files_of(&run, step), ["00000.png", "00001.png", "samples.json"]);
    }
    let seeds: Vec<u64> = samples_of(&run, 6).iter().map(|sample| sample["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [7, 8]);
    let (model, out) = (fixture("diffusion/sd1"), trial.path("images"));
    let mut args = vec!["sample", "--model", &model, "--steps", "3", "--seed", "7", "--out", &out];
    args.extend(["--prompt", "picture 0", "--prompt", "picture 0"]);
    ok(&args);
    // Only `sample` says in its files how they were made.
    let pixels = |file: String| ::image::open(file).unwrap().to_rgb8();
    for name in ["00000.png", "00001.png"] {
        let drawn = pixels(format!("{out}/{name}"));
        assert!(pixels(format!("{run}/samples/step-000000/{name}")) == drawn, "{name}");
        assert!(pixels(format!("{run}/samples/step-000006/{name}")) != drawn, "{name}: nothing was learned");
    }
}

#[test]
fn prompts_that_cannot_be_answered_are_refused_before_training() {
    let trial = Trial::text();
    let long = format!("sample.prompts=[\"a\", \"{}\"]", "cat ".repeat(400));
    trial.refused(&[&long], USAGE, &["[sample] prompt 2:", "expected 1 to 255"]);
    trial.refused(&["sample.prompts=[\"a\", \"a\"]"], USAGE, &["has a prompt twice"]);
    trial.refused(&["sample.prompts=[\"a\"]", "sample.steps=4"], USAGE, &["unknown key `sample.steps`"]);
    let missing = trial.path("none.txt");
    trial.refused(&[&format!("sample.path={missing}")], DATA, &["none.txt"]);
}

#[test]
fn the_best_checkpoint_is_part_of_the_result() {
    let trial = Trial::text();
    let args = [trial.training(&["data.eval_fraction=0.3"]), vec!["--json".to_owned()]].concat();
    let output = votive(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let result: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let (best, run) = (&result["best"], trial.path("run"));
    assert!(best["eval_loss"].as_f64().unwrap() > 0.0, "{result}");
    assert!(
        Path::new(&run).join(best["folder"].as_str().unwrap()).join("model.safetensors").exists(),
        "{result}"
    );
    assert_eq!(result["alarms"], json!([]));
    let page = fs::read_to_string(result["page"].as_str().unwrap()).unwrap();
    assert!(page.contains("On held-out rows"));
}

#[test]
fn an_alarm_warns_or_stops_as_asked() {
    let settings = ["optimizer.lr=0.0", "train.steps=7"];
    let words = ["step 5: the learning rate is 0 in 5 lines; set optimizer.lr above 0", "[no_learning_rate]"];
    let trial = Trial::text();
    let said = trial.works(&trial.training(&settings));
    assert!(words.iter().all(|part| said.contains(part)), "{said}");
    assert!(fs::read_to_string(trial.path("run/index.html")).unwrap().contains("the learning rate is 0"));

    let strict = Trial::text();
    let args = [strict.training(&settings), vec!["--alarms".to_owned(), "error".to_owned()]].concat();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    fails(&args, NUMBERS, &[&words[..], &["votive resume"]].concat());
    assert!(contents(Path::new(&strict.path("run"))).contains_key("checkpoints/step-000005/manifest.json"));
    strict.works(&strict.resuming());
    for log in ["run/metrics.jsonl", "run/alarms.jsonl"] {
        let text = |trial: &Trial| fs::read_to_string(trial.path(log)).unwrap();
        assert_eq!(text(&strict), text(&trial));
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let trial = Trial::text();
    let mut child = votive(trial.training(&["train.steps=100000"])).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !Path::new(&trial.path("run/metrics.jsonl")).exists() {
        assert!(started.elapsed().as_secs() < 60, "the run does not begin");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let owner = format!("is in use by process {} on ", child.id());
    fails(&["resume", &trial.path("run")], USAGE, &["/run: ", &owner, "stop it"]);
    child.kill().unwrap();
    child.wait().unwrap();
    // The operating system released the lock; the plan is now that of a run of one step too many to wait for.
    let [first, ..] = &trial.resuming()[..] else { panic!("a command") };
    assert_eq!(first, "resume");
    let mut again = votive(trial.resuming()).stderr(Stdio::null()).spawn().unwrap();
    let lines = || fs::read_to_string(trial.path("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
    let started = Instant::now();
    let before = lines();
    while lines() == before || lines() < 2 {
        assert!(started.elapsed().as_secs() < 60, "the run does not go on");
        assert!(again.try_wait().unwrap().is_none(), "the resumed run ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    again.kill().unwrap();
    again.wait().unwrap();
}
