//! PickScore's, HPSv2's and LAION's layouts as judges and scores of images, against torch's numbers.

use super::*;
use votive::critic::{Candidate, Finding, Picture, Question, Store};

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(fixture("clip_scorers/expected.json")).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn picture(place: &Value) -> Candidate {
    let bytes = fs::read(fixture(&format!("clip_scorers/images/{place}.png"))).unwrap();
    Candidate::Image(Picture::new(bytes, "fixture").unwrap())
}

/// PickScore's folder with LAION's head in it.
fn aesthetic(folder: &Folder) -> String {
    let out = folder.path("aesthetic");
    copy_folder(Path::new(&fixture("clip_scorers/pick")), Path::new(&out));
    let head = fixture("clip_scorers/aesthetic.safetensors");
    fs::copy(head, Path::new(&out).join("aesthetic.safetensors")).unwrap();
    out
}

/// A store of all pairs of the fixture with all texts; gives what torch finds by the numbers of its items.
fn pairs(path: &str, made: &Value, model: &str) -> Vec<(i64, f64)> {
    let mut store = Store::open(Path::new(path)).unwrap();
    let mut all = Vec::new();
    for (pair, found) in
        made["pairs"].as_array().unwrap().iter().zip(made[model]["first_is_better"].as_array().unwrap())
    {
        for (text, probability) in made["texts"].as_array().unwrap().iter().zip(found.as_array().unwrap()) {
            let question = Question::pair(text.as_str().unwrap(), picture(&pair[0]), picture(&pair[1]));
            all.push((store.add(&question, &json!({})).unwrap(), number(probability)));
        }
    }
    all
}

/// What a judge finds of the items of a store.
fn judged(path: &str, judge: &str) -> BTreeMap<i64, f64> {
    ok(&["label", "--quiet", "--store", path, "--judge", judge]);
    let store = Store::open(Path::new(path)).unwrap();
    let judgments = store.judgments(None, None).unwrap().into_iter();
    judgments
        .map(|judgment| match judgment.judgment.finding {
            Finding::Preference(probability) => (judgment.item, probability),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The probability is the softmax of the logits that the model itself makes of cosines: by 23 in the one, by 100 in the other.
#[test]
fn a_clip_model_judges_by_its_own_scale() {
    let (folder, made) = (Folder::new(), expected());
    for model in ["pick", "hps"] {
        let store = folder.path(&format!("{model}.sqlite"));
        let pairs = pairs(&store, &made, model);
        let found = judged(&store, &fixture(&format!("clip_scorers/{model}")));
        assert_eq!(found.len(), 6);
        for (item, probability) in pairs {
            assert!((found[&item] - probability).abs() < 1e-4, "{model}: {} {probability}", found[&item]);
        }
    }
}

#[test]
fn an_aesthetic_head_judges_without_the_prompt() {
    let (folder, made) = (Folder::new(), expected());
    let (store, points) = (folder.path("store.sqlite"), &made["aesthetic"]["points"]);
    pairs(&store, &made, "pick");
    let found = judged(&store, &aesthetic(&folder));
    let point = |place: &Value| number(&points[place.as_u64().unwrap() as usize]);
    let expected = made["pairs"].as_array().unwrap().iter().flat_map(|pair| {
        let odds = (point(&pair[1]) - point(&pair[0])).exp();
        [1.0 / (1.0 + odds); 2]
    });
    for (found, expected) in found.values().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn scores_of_images_are_torch_s() {
    let (folder, made) = (Folder::new(), expected());
    let texts: String =
        (0..4).map(|image| format!("{}\n", made["texts"][image % 2].as_str().unwrap())).collect();
    let (prompts, out) = (folder.text("prompts.txt", &texts), folder.path("rows.jsonl"));
    let images = fixture("clip_scorers/images");
    let (pick, hps, head) = (fixture("clip_scorers/pick"), fixture("clip_scorers/hps"), aesthetic(&folder));
    let args = ["eval", "images", &images, "--prompts", &prompts, "--out", &out];
    ok(&[&args[..], &["--clip", &pick, "--clip", &hps, "--clip", &head]].concat());
    let rows = lines(&out);
    assert_eq!(rows.len(), 4);
    for (image, row) in rows.iter().enumerate() {
        let near = |key: &str, expected: f64| {
            let found = number(&row["scores"][key]);
            assert!((found - expected).abs() < 1e-3, "{key} of {image}: {found} {expected}");
        };
        let cosine = |model: &str| number(&made[model]["cosines"][image][image % 2]);
        near("clip:pick", 100.0 * cosine("pick").max(0.0));
        near("clip:hps", 100.0 * cosine("hps").max(0.0));
        near("aesthetic:aesthetic", number(&made["aesthetic"]["points"][image]));
    }
}

#[test]
fn a_head_of_another_model_is_refused() {
    let folder = Folder::new();
    let clip = aesthetic(&folder);
    let other = fixture("clip/gelu");
    for file in ["config.json", "model.safetensors", "processor_config.json"] {
        fs::copy(format!("{other}/{file}"), format!("{clip}/{file}")).unwrap();
    }
    fs::remove_file(format!("{clip}/preprocessor_config.json")).unwrap();
    let images = fixture("clip_scorers/images");
    let prompts = folder.text("prompts.txt", "a\nb\nc\nd\n");
    let args = ["eval", "images", &images, "--prompts", &prompts, "--clip", &clip];
    fails(&args, DATA, &["aesthetic.safetensors", "expected a head of width 12", "width 20"]);
}

/// ReFL leads the gradient of the points through the pixels.
#[test]
fn a_head_rewards_what_a_policy_draws() {
    let folder = Folder::new();
    let prompts = folder.text("prompts.txt", "a red circle\na blue square\n");
    let scores = |clip: &str, out: &str| -> Vec<f64> {
        two_steps_of_refl(clip, &prompts, out, &[]);
        lines(&format!("{out}/metrics.jsonl")).iter().map(|line| number(&line["score"])).collect()
    };
    let points = scores(&aesthetic(&folder), &folder.path("points"));
    let logits = scores(&fixture("clip_scorers/pick"), &folder.path("logits"));
    assert_eq!((points.len(), logits.len()), (2, 2));
    // The head's points are near 0 here, the logits of random towers are cosines times 23.
    assert!(points.iter().all(|score| score.abs() < 1.0) && points[0] != logits[0], "{points:?} {logits:?}");
    assert!(logits.iter().all(|score| score.abs() < 23.0), "{logits:?}");
}
