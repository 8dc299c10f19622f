//! `votive data` on image preferences, and training on them, with the fixtures of `tools/parity/images.py`.

use crate::*;

const COMPARISONS: &str = "images/pick_a_pic.parquet";

#[test]
fn a_pair_is_shown_with_what_the_row_says_of_it() {
    let folder = Folder::new();
    let (data, model) = (fixture(COMPARISONS), fixture("diffusion/sd1"));
    let shown = ok(&["data", "show", &data, "--rows", "2", "--model", &model]);
    for part in [
        "row 1 (",
        "pick_a_pic.parquet:1)",
        "prompt: \"a picture of 0 things\"",
        " tokens",
        "chosen: 16x16 pixels, ",
        ", image 0 of the row, by xl",
        "rejected: 24x16 pixels, ",
        "the image in column `jpg_0` (row 2 of row group 0)",
    ] {
        assert!(shown.contains(part), "no {part:?} in\n{shown}");
    }
    let sheet = folder.path("sheet.png");
    let pairs = rows(&["data", "show", &data, "--rows", "9", "--ties", "keep", "--out", &sheet]);
    assert_eq!(pairs.len(), 8);
    assert_eq!((&pairs[1]["chosen"]["place"], &pairs[1]["chosen"]["model"]), (&json!(1), &json!("tuned")));
    assert_eq!((&pairs[3]["tie"], &pairs[3]["row_in_file"]), (&json!(true), &json!(4)));
    let sheet = ::image::open(sheet).unwrap().into_rgb8();
    assert_eq!(sheet.height(), 8 * 274);
    // The frame of the chosen image is green, that of the rejected one, of which row 7 has the widest, red.
    let (left, right) = (sheet.get_pixel(0, 0), sheet.get_pixel(sheet.width() - 1, 5 * 274));
    assert!(left[1] > left[0] && right[0] > right[1], "{left:?} {right:?}");
    let refused = rows(&["data", "show", &data, "--row", "6"]);
    assert_eq!(
        refused,
        [json!({"row": 6, "problem": "unlabelled", "text": "row 6 gives no pair: has_label is false"})]
    );
    fails(&["data", "show", &data, "--row", "11"], USAGE, &["--row 11: there is no such row; 10 were read"]);
}

#[test]
fn an_image_that_cannot_be_read_is_said_where_it_is_shown() {
    let shown = ok(&["data", "show", &fixture("images/corrupt.parquet"), "--row", "5"]);
    assert!(shown.contains("rejected: ! ") && shown.contains("not a PNG, JPEG or WebP image"), "{shown}");
}

#[test]
fn pairs_are_counted_by_reason_size_and_model() {
    let (data, model) = (fixture("images/corrupt.parquet"), fixture("diffusion/sd1"));
    let [stats] = &rows(&["data", "stats", &data, "--model", &model])[..] else { panic!("one object") };
    let dropped = &stats["report"]["dropped"];
    for (reason, count) in [("tie", 1), ("unlabelled", 1), ("not-different", 1), ("unreadable-image", 2)] {
        assert_eq!(dropped[reason]["count"], count, "{reason}: {dropped}");
    }
    assert_eq!((&stats["report"]["rows_kept"], &stats["unit"]), (&json!(5), &json!("tokens")));
    assert_eq!(stats["sizes"]["16x16"], 5);
    assert_eq!(stats["models"]["tuned"], json!({"won": 3, "lost": 2, "alone": 0}));
    assert_eq!(stats["first_chosen"], json!(0.4));
    assert_eq!((&stats["captions"]["count"], &stats["captions_cut"]), (&json!(5), &json!(0)));
    let text = ok(&["data", "stats", &data]);
    for part in [
        "dropped, an image cannot be read: 2 (row 3, 5)",
        "caption, characters: 5 from",
        "images of different sizes in a pair: 1 (row 7)",
        "the first image of a row is chosen in 40.0 % of the pairs",
        "tuned 3 of 5, 60.0 %",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn long_and_repeated_captions_are_counted() {
    let folder = Folder::new();
    let image = |name: &str| fixture(&format!("images/jpg/{name}.jpg"));
    let row = |caption: &str, chosen: &str, rejected: &str| {
        json!({"prompt": caption, "chosen": image(chosen), "rejected": image(rejected)}).to_string()
    };
    let long = "word ".repeat(90);
    let lines =
        [row(&long, "0_0", "0_1"), row(&long, "0_0", "0_1"), row(&long, "0_1", "0_0"), row("", "1_0", "1_1")];
    let data = folder.text("pairs.jsonl", &lines.join("\n"));
    let model = fixture("diffusion/sd1");
    let [stats] = &rows(&["data", "stats", &data, "--model", &model])[..] else { panic!("one object") };
    assert_eq!((&stats["captions_cut"], &stats["captions_empty"]), (&json!(3), &json!(1)));
    let duplicates = &stats["duplicates"];
    assert_eq!(duplicates["records"]["first"], json!([2]));
    assert_eq!(duplicates["contradictions"]["first"], json!([3]));
    assert_eq!(stats["first_chosen"], Value::Null);
}

#[test]
fn embedded_images_are_written_to_files_and_read_back() {
    let folder = Folder::new();
    let out = folder.path("pairs.jsonl");
    let data = fixture("images/corrupt.parquet");
    let [written] =
        &rows(&["data", "convert", &data, "--to", "image-pairs", "--weights", "prompt", "--out", &out])[..]
    else {
        panic!("one object")
    };
    assert_eq!((&written["rows"], &written["images"]), (&json!(5), &json!(10)));
    assert_eq!(fs::read_dir(folder.path("pairs.images")).unwrap().count(), 10);
    let stats = |data: &str| rows(&["data", "stats", data]).remove(0);
    let (before, after) = (stats(&data), stats(&out));
    for what in ["sizes", "models", "captions", "aspect"] {
        assert_eq!(before[what], after[what], "{what}");
    }
    assert_eq!(after["weight"]["mean"], 0.5);
    let first: Value =
        serde_json::from_str(fs::read_to_string(&out).unwrap().lines().next().unwrap()).unwrap();
    assert!(first["chosen"].as_str().unwrap().starts_with("pairs.images/"), "{first}");
    // Nothing is left to write a second time.
    let again = rows(&["data", "convert", &data, "--to", "image-pairs", "--out", &out]).remove(0);
    assert_eq!(again["images"], 0);
}

#[test]
fn texts_and_images_are_told_apart_and_what_does_not_fit_is_refused() {
    let folder = Folder::new();
    let (images, texts, out) = (fixture(COMPARISONS), fixture("text_steps/prefs.jsonl"), folder.path("out"));
    let convert = |data: &str, to: &str, part: &str| {
        fails(&["data", "convert", data, "--to", to, "--out", &out], USAGE, &[part]);
    };
    convert(&images, "trl", "images cannot be written as trl; use --to image-pairs");
    convert(&texts, "image-pairs", "texts cannot be written as pairs of images");
    fails(&["data", "show", &texts, "--out", &out], USAGE, &["only images are drawn"]);
    let model = fixture("diffusion/sd1");
    fails(&["data", "stats", &images, "--model", &model, "--max-length", "9"], USAGE, &["--max-length"]);
    let unknown = folder.text("unknown.jsonl", r#"{"caption": "a", "url": "b"}"#);
    fails(
        &["data", "show", &unknown],
        DATA,
        &["found: `caption`, `url`", "trl; of images: pick-a-pic, hpdv2"],
    );
    assert!(!Path::new(&out).exists());
    // Two paths are images, two sentences are not.
    let rows_of = |chosen: &str, rejected: &str| {
        let row = json!({"prompt": "a", "chosen": chosen, "rejected": rejected}).to_string();
        let output = votive(["data", "show", &folder.text("pairs.jsonl", &row)]).output().unwrap();
        stderr(&output)
    };
    assert!(rows_of("1.png", "2.PNG").contains("1 rows read as image-pairs: 1 pairs of images"));
    assert!(rows_of("It ends in .png", "2.png").contains("pairs of images"));
    assert!(rows_of("a sentence", "2.png").contains("1 rows read as trl: 1 pairs"));
    let texts = rows(&["data", "show", &texts, "--rows", "1"]);
    assert!(texts[0]["chosen"].is_string());
    // Folders of HPD, whose images lie in folders called as the tables.
    let hpd = |file: &str| rows(&["data", "stats", &fixture(&format!("images/hpd/{file}"))]).remove(0);
    assert_eq!(
        (&hpd("train.json")["report"]["rows_kept"], &hpd("test.json")["margin"]["max"]),
        (&json!(2), &json!(3.0))
    );
}

#[test]
fn a_run_on_comparisons_in_shards_reads_them_as_they_are() {
    let folder = Folder::new();
    let recipe = format!(
        "[model]\npath = {:?}\n[data]\npath = {:?}\nweights = \"prompt\"\nbuckets = true\nflip = true\ncache = {:?}\n\
         [objective.dpo]\nbeta = 10.0\n[train]\nsteps = 2\nbatch_size = 2\n",
        fixture("diffusion/sd1"),
        fixture("images/hub"),
        folder.path("cache"),
    );
    let recipe = folder.text("recipe.toml", &recipe);
    let train = |out: &str| {
        let output = votive(["train", &recipe, "--out", &folder.path(out)]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        (stderr(&output), fs::read_to_string(folder.path(&format!("{out}/metrics.jsonl"))).unwrap())
    };
    let (said, metrics) = train("first");
    for part in [
        "10 rows read as pick-a-pic, 7 records made, 7 kept",
        "dropped, the scores are equal: 1 (row 4)",
        "dropped, has_label is false: 1 (row 6)",
        "dropped, are_different is false: 1 (row 8)",
        "images of different sizes in a pair: 1 (row 7)",
        "pairs by the size they are cut to: ",
        "weight: 7 numbers from 0.5 to 0.5",
        "encoded: 28 images, 5 prompts",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let (said, again) = train("second");
    assert!(said.contains("encoded: 0 images, 0 prompts; found encoded: 28 images, 5 prompts"), "{said}");
    assert_eq!(metrics, again);
}
