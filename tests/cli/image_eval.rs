//! `votive eval images` against transformers' numbers and against itself; GenEval's layout.

use crate::*;
use ::image::RgbImage;

/// The playground's own model.
fn model() -> String {
    format!("{}/models/tiny-sd", env!("CARGO_MANIFEST_DIR"))
}

/// Writes the images of CLIP's fixture, and a file with a text for each; gives both and the CLIPScores by transformers.
fn clip_images(folder: &Folder, name: &str) -> (String, String, Vec<f64>) {
    let root = fixture(&format!("clip/{name}/expected"));
    let (images, embeds) =
        (tensors(&format!("{root}/images.safetensors")), tensors(&format!("{root}/embeds.safetensors")));
    let made: Value =
        serde_json::from_str(&fs::read_to_string(format!("{root}/expected.json")).unwrap()).unwrap();
    let texts: Vec<&str> =
        made["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let rows = |key: &str| embeds[key].to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let (image_rows, text_rows) = (rows("image_embeds"), rows("text_embeds"));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let (mut prompts, mut scores) = (String::new(), Vec::new());
    fs::create_dir_all(folder.path(name)).unwrap();
    for (i, image) in image_rows.iter().enumerate() {
        let pixels = images[&format!("image.{i}")].to_dtype(DType::U8).unwrap();
        let (height, width, _) = pixels.dims3().unwrap();
        let bytes = pixels.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let picture = RgbImage::from_raw(width as u32, height as u32, bytes).unwrap();
        picture.save(folder.path(&format!("{name}/{i}.png"))).unwrap();
        let text = i % texts.len();
        prompts += &format!("{}\n", json!({ "prompt": texts[text] }));
        let cosine = dot(image, &text_rows[text])
            / (dot(image, image).sqrt() * dot(&text_rows[text], &text_rows[text]).sqrt());
        scores.push(100.0 * cosine.max(0.0));
    }
    let file = folder.text(&format!("{name}.jsonl"), &prompts);
    (folder.path(name), file, scores)
}

fn scores_of(rows: &str, key: &str) -> Vec<f64> {
    let text = fs::read_to_string(rows).unwrap();
    let score = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        row["scores"][key].as_f64().unwrap()
    };
    text.lines().map(score).collect()
}

#[test]
fn clip_scores_are_those_of_transformers() {
    let folder = Folder::new();
    for name in ["quick", "gelu"] {
        let (images, prompts, expected) = clip_images(&folder, name);
        assert!(expected.iter().any(|score| *score > 1.0), "{expected:?}");
        let (clip, out) = (fixture(&format!("clip/{name}")), folder.path("rows.jsonl"));
        let args = ["eval", "images", &images, "--prompts", &prompts, "--clip", &clip, "--out", &out];
        let result = &rows(&args)[0];
        let found = scores_of(&out, &format!("clip:{name}"));
        assert_eq!(found.len(), 5);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-3, "{name}: {found} {expected}");
        }
        // The fifth image is of the first text, so there are four prompts, each of which counts once.
        let mean = ((expected[0] + expected[4]) / 2.0 + expected[1..4].iter().sum::<f64>()) / 4.0;
        let score = &result["scores"][0];
        assert_eq!((&result["images"], &result["prompts"]), (&json!(5), &json!(4)));
        assert_eq!((&score["name"], &score["mean"]["n"]), (&json!(format!("clip:{name}")), &json!(4)));
        assert!((score["mean"]["value"].as_f64().unwrap() - mean).abs() < 1e-3, "{score}");
        assert!(score["mean"]["low"].as_f64().unwrap() <= mean && score.get("win").is_none(), "{score}");
    }
}

#[test]
fn a_model_is_scored_as_the_images_that_it_draws() {
    let (folder, model, clip) = (Folder::new(), model(), fixture("clip/quick"));
    let (first, second) = (folder.path("first.jsonl"), folder.path("second.jsonl"));
    let scores = ["--checker", "--clip", &clip];
    let drawn = ["eval", "images", &model, "--playground", "5", "--images-per-prompt", "2", "--steps", "4"];
    let result = &rows(&[&drawn[..], &scores[..], &["--seed", "3", "--out", &first]].concat())[0];
    assert_eq!((&result["images"], &result["prompts"]), (&json!(10), &json!(5)));
    // The checker by category too.
    let names: Vec<&str> =
        result["scores"].as_array().unwrap().iter().map(|score| score["name"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["clip:quick", "exact"]);
    assert!(names[2..].iter().all(|name| name.starts_with("exact:")) && names.len() > 3, "{names:?}");

    // The same prompts and seeds through `votive sample`, whose files say what they are of.
    let text = fs::read_to_string(&first).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let prompts: Vec<String> =
        lines.iter().step_by(2).map(|row| row["prompt"].as_str().unwrap().to_owned()).collect();
    let prompts = folder.text("prompts.txt", &prompts.join("\n"));
    let images = folder.path("images");
    let sampled =
        ["sample", "--model", &model, "--prompts", &prompts, "--images-per-prompt", "2", "--seed", "3"];
    ok(&[&sampled[..], &["--steps", "4", "--cfg", "1.5", "--batch", "8", "--out", &images]].concat());
    let compared = ["eval", "images", &images, "--against", &model, "--steps", "4", "--cfg", "1.5"];
    let result = &rows(&[&compared[..], &scores[..], &["--out", &second]].concat())[0];
    for key in ["clip:quick", "exact"] {
        assert_eq!(scores_of(&first, key), scores_of(&second, key), "{key}");
    }
    for score in result["scores"].as_array().unwrap() {
        assert_eq!((&score["tie"]["value"], &score["win"]["value"]), (&json!(100.0), &json!(0.0)), "{score}");
        assert_eq!(score["difference"]["value"], json!(0.0), "{score}");
    }
    let table = ok(&[&compared[..], &scores[..]].concat());
    assert!(table.contains("10 images of 5 prompts") && table.contains("ties 100.0 %"), "{table}");
}

#[test]
fn images_that_cannot_be_compared_are_refused() {
    let (folder, model, clip) = (Folder::new(), model(), fixture("clip/quick"));
    let draw = |name: &str, prompt: &str, seed: &str| {
        let out = folder.path(name);
        ok(&["sample", "--model", &model, "--prompt", prompt, "--steps", "1", "--seed", seed, "--out", &out]);
        out
    };
    let (one, other) = (draw("one", "a red circle", "1"), draw("other", "a blue square", "1"));
    let seed = draw("seed", "a red circle", "2");
    let eval = |images: &str, extra: &[&str], code: i32, parts: &[&str]| {
        fails(&[&["eval", "images", images], extra].concat(), code, parts);
    };
    let by_clip = ["--clip", clip.as_str()];
    eval(
        &one,
        &[&by_clip[..], &["--against", &other]].concat(),
        DATA,
        &["00000.png", "a blue square", "same prompts"],
    );
    eval(&one, &[&by_clip[..], &["--against", &seed]].concat(), DATA, &["seed 1", "from 2", "--seed"]);
    let (fixtures, prompts, _) = clip_images(&folder, "quick");
    eval(&fixtures, &by_clip, DATA, &["0.png", "does not say of which prompt", "--prompts"]);
    let two = folder.text("two.txt", "a\nb\n");
    eval(&fixtures, &[&by_clip[..], &["--prompts", &two]].concat(), DATA, &["5 images for 2 prompts"]);
    eval(&one, &[], USAGE, &["--clip", "--checker"]);
    eval(&one, &[&by_clip[..], &["--steps", "3"]].concat(), USAGE, &["--steps has no effect"]);
    eval(&one, &[&by_clip[..], &["--adapter", "a"]].concat(), USAGE, &["--adapter needs a model"]);
    eval(&model, &by_clip, USAGE, &["needs prompts", "--playground"]);
    let counted = ["--against", model.as_str(), "--images-per-prompt", "2"];
    eval(&one, &[&by_clip[..], &counted].concat(), USAGE, &["--images-per-prompt has no effect"]);
    eval(&fixtures, &["--checker", "--prompts", &prompts], DATA, &["playground's captions"]);
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    eval(&empty, &by_clip, DATA, &["no images (.png"]);
    eval(&one, &["--clip", &empty], DATA, &["config.json"]);
    fs::write(format!("{empty}/0.png"), "not an image").unwrap();
    let a = folder.text("a.txt", "a\n");
    eval(&empty, &[&by_clip[..], &["--prompts", &a]].concat(), DATA, &["0.png"]);
}

#[test]
fn geneval_finds_its_prompts_and_images() {
    let (folder, model) = (Folder::new(), model());
    let rows_of = [
        json!({"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}),
        json!({"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a red dog"}),
    ];
    let metadata = folder.text("metadata.jsonl", &format!("{}\n{}\n", rows_of[0], rows_of[1]));
    let out = folder.path("images");
    let args = ["sample", "--model", &model, "--geneval", &metadata, "--steps", "1", "--out", &out];
    let files: Vec<String> = rows(&args).iter().map(|row| row["file"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> =
        (0..8).map(|i| format!("{out}/{:05}/samples/{:05}.png", i / 4, i % 4)).collect();
    assert_eq!(files, expected);
    for (i, row) in rows_of.iter().enumerate() {
        // The scorer reads the whole file as one object.
        let text = fs::read_to_string(format!("{out}/{i:05}/metadata.jsonl")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), *row);
    }
    let result = &rows(&["eval", "images", &out, "--clip", &fixture("clip/quick")])[0];
    assert_eq!((&result["images"], &result["prompts"]), (&json!(8), &json!(2)));
    let prompts = folder.text("prompts.txt", "a photo of a bench\na red dog\n");
    let named = ["eval", "images", &out, "--clip", &fixture("clip/quick"), "--prompts", &prompts];
    fails(&named, USAGE, &["metadata.jsonl names the prompt", "--prompts"]);
    let untagged = folder.text("untagged.jsonl", "{\"prompt\": \"a\"}\n");
    let args = ["sample", "--model", &model, "--geneval", &untagged, "--out", &out];
    fails(&args, DATA, &["untagged.jsonl: row 1", "`tag`"]);
    let both = [&args[..5], &["--prompt", "a", "--out", &out]].concat();
    fails(&both, USAGE, &["--prompt", "--geneval"]);
}

#[test]
fn held_out_prompts_are_evaluated_as_before() {
    let result = &rows(&["eval", "--model", &model(), "--prompts", "4", "--steps", "2"])[0];
    assert_eq!(result["exact"]["n"], json!(4));
    fails(&["eval"], USAGE, &["--model"]);
}

/// A run on the gradient of a CLIP model's score, with an average of its weights; its samples can be scored by their files.
#[test]
fn samples_of_a_run_say_what_they_are_of() {
    let (folder, clip) = (Folder::new(), fixture("clip/quick"));
    let (out, prompts) = (folder.path("run"), folder.text("prompts.txt", "a red circle\na blue square\n"));
    let watched = ["ema.decay=0.5", &format!("sample.path={prompts}"), "sample.steps=2"];
    two_steps_of_refl(&clip, &prompts, &out, &watched);
    let log = fs::read_to_string(format!("{out}/metrics.jsonl")).unwrap();
    assert!(log.lines().count() == 2 && log.contains("\"score\""), "{log}");
    let scored = |step: &str| {
        let rows_file = folder.path("rows.jsonl");
        ok(&["eval", "images", &format!("{out}/samples/{step}"), "--clip", &clip, "--out", &rows_file]);
        let rows = fs::read_to_string(rows_file).unwrap();
        rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let rows = scored("step-000002");
    let named: Vec<(&str, u64)> =
        rows.iter().map(|row| (row["prompt"].as_str().unwrap(), row["seed"].as_u64().unwrap())).collect();
    assert_eq!(named, [("a red circle", 0), ("a blue square", 1)]);
}
