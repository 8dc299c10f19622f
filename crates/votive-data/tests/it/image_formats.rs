//! Image preferences in the layouts they are published in, on the fixtures of `tools/parity/images.py`: the images that
//! are found are those that pyarrow and PIL find.

use std::path::Path;

use serde_json::{Value, json};
use votive_data::{
    Buckets, DataError, DataReport, FaultyRows, IMAGE_FORMATS, ImageBytes, ImageDataSource, ImageLimits,
    ImagePair, ImageSource, PairChoice, PairWeights, Records, Result, RowProblem, ScreenedPair, Ties,
    frame_pairs, holds_images, screen_image_pairs,
};

use crate::{Folder, check_message, fixture};

fn source(path: &str) -> ImageDataSource {
    ImageDataSource::new(fixture("images").join(path))
}

fn screen(source: &ImageDataSource, faulty_rows: FaultyRows) -> Result<(Vec<ScreenedPair>, DataReport)> {
    screen_image_pairs(source.read()?, faulty_rows, &ImageLimits::default(), |_, _| {})
}

fn expected(path: &str) -> Value {
    let all: Value =
        serde_json::from_slice(&std::fs::read(fixture("images/expected.json")).unwrap()).unwrap();
    all[path].clone()
}

fn seen(pair: &ScreenedPair) -> Value {
    let [chosen, rejected] = pair.images.map(|image| {
        let sha256: String = image.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"sha256": sha256, "size": [image.size.width, image.size.height]})
    });
    json!({"row": pair.pair.row, "prompt": pair.pair.prompt, "chosen": chosen, "rejected": rejected})
}

#[track_caller]
fn check(path: &str, format: &str) -> (Vec<ScreenedPair>, DataReport) {
    let source = source(path);
    assert_eq!(source.read().unwrap().format, Some(format));
    let (pairs, report) = screen(&source, FaultyRows::Error).unwrap();
    assert_eq!(pairs.iter().map(seen).collect::<Value>(), expected(path), "{path}");
    (pairs, report)
}

#[test]
fn comparisons_of_pick_a_pic_are_those_that_pyarrow_reads() {
    let (pairs, report) = check("pick_a_pic.parquet", "pick-a-pic");
    assert_eq!((report.rows_read, report.rows_kept), (10, 7));
    let dropped: Vec<_> = report.dropped.iter().map(|(why, rows)| (*why, rows.first.clone())).collect();
    assert_eq!(
        dropped,
        [(RowProblem::Tie, vec![4]), (RowProblem::Unlabelled, vec![6]), (RowProblem::NotDifferent, vec![8])]
    );
    assert_eq!(report.images.mixed_sizes.first, [7]);
    assert_eq!(report.ignored_columns["user_id"], 10);
    let origin = &pairs[1].pair.origin;
    assert_eq!(origin.places, Some([1, 0]));
    assert_eq!(origin.models.each_ref().map(|name| name.as_deref()), [Some("tuned"), Some("base")]);
    // The same images as structs in shards, and as files.
    let (_, shards) = check("hub", "pick-a-pic");
    assert_eq!(shards.dropped, report.dropped);
    check("pick_a_pic.jsonl", "pick-a-pic");
}

#[test]
fn images_are_found_in_any_order() {
    let mut source = source("hub");
    let pairs = source.read().unwrap().rows;
    let images: Vec<&ImageSource> =
        pairs.iter().flat_map(|pair| pair.sides()).map(|(_, image)| image).collect();
    let mut in_order = ImageBytes::new();
    let stored: Vec<_> = images.iter().map(|image| in_order.read(image, 1 << 20).unwrap()).collect();
    let mut jumping = ImageBytes::new();
    for step in [1, 3, 5, 11] {
        for idx in (0..images.len()).map(|idx| (idx * step + 3) % images.len()) {
            assert_eq!(jumping.read(images[idx], 1 << 20).unwrap(), stored[idx]);
        }
    }
    let largest = stored.iter().map(Vec::len).max().unwrap() as u64;
    assert!(images.iter().any(|image| jumping.read(image, largest - 1).is_err()));
    source.split = Some("test".to_owned());
    check_message(source.read().unwrap_err(), &["no split `test`; it has: train"]);
}

#[test]
fn image_columns_of_datasets_and_images_beside_them() {
    let (pairs, _) = check("pairs.parquet", "image-pairs");
    assert_eq!(pairs[0].pair.origin.places, None);
}

#[test]
fn choices_and_rankings_of_hpd() {
    check("hpd/train.json", "hpdv2");
    let (pairs, _) = check("hpd/test.json", "hpdv2-ranks");
    assert_eq!(pairs[0].pair.numbers.margin, Some(3.0));
    let mut ranks = source("hpd/test.json");
    ranks.pairs = PairChoice::All;
    let places = |records: Records<ImagePair>| -> Vec<_> {
        records.rows.into_iter().map(|pair| (pair.origin.places.unwrap(), pair.origin.is_tie)).collect()
    };
    let records = ranks.read().unwrap();
    assert_eq!(records.refused.iter().map(|refused| refused.problem).collect::<Vec<_>>(), [RowProblem::Tie]);
    let better = [[1, 0], [1, 3], [1, 2], [0, 2], [3, 2]];
    assert_eq!(places(records), better.map(|places| (places, false)));
    ranks.ties = Ties::Keep;
    assert!(places(ranks.read().unwrap()).contains(&([0, 3], true)));
}

#[test]
fn ties_are_kept_if_asked_and_counted() {
    let mut source = source("pick_a_pic.parquet");
    source.ties = Ties::Keep;
    let (pairs, report) = screen(&source, FaultyRows::Error).unwrap();
    assert_eq!((report.rows_kept, &report.images.ties_kept.first), (8, &vec![4]));
    let tie = pairs.iter().find(|pair| pair.pair.row == 4).unwrap();
    assert_eq!((tie.pair.origin.places, tie.pair.origin.is_tie), (Some([0, 1]), true));
    assert!(report.to_string().contains("ties that are kept, the first image as chosen: 1 (row 4)"));
}

#[test]
fn pairs_are_weighed_by_a_column_or_by_their_prompt() {
    let mut by_prompt = source("pick_a_pic.parquet");
    by_prompt.weights = PairWeights::Prompt;
    let (pairs, report) = screen(&by_prompt, FaultyRows::Error).unwrap();
    assert!(pairs.iter().all(|pair| pair.pair.numbers.weight == Some(0.5)));
    assert_eq!(report.weights.mean, 0.5);
    let mut paths = source("pick_a_pic.jsonl");
    paths.weights = PairWeights::Prompt;
    check_message(paths.read().unwrap_err(), &["row 1, field `num_example_per_prompt` is missing"]);
    let folder = Folder::new();
    let row = r#"{"prompt": "a", "chosen": "1.png", "rejected": "2.png", "weight": 3, "score_chosen": 2, "score_rejected": 0.5}"#;
    let pair = &ImageDataSource::new(folder.write("p.jsonl", row)).read().unwrap().rows[0];
    assert_eq!((pair.numbers.weight, pair.numbers.margin), (Some(3.0), Some(1.5)));
}

#[test]
fn a_corrupt_image_stops_or_is_counted_as_asked() {
    let corrupt = source("corrupt.parquet");
    check_message(
        screen(&corrupt, FaultyRows::Error).unwrap_err(),
        &[
            "corrupt.parquet: row 3, field `rejected`: the image in column `jpg_1` (row 3 of row group 0)",
            "is not an image that can be read",
        ],
    );
    let (pairs, report) = screen(&corrupt, FaultyRows::Drop).unwrap();
    assert_eq!(pairs.len(), 5);
    assert_eq!(report.dropped[&RowProblem::UnreadableImage].first, [3, 5]);
    // What the other rows hold is not touched by it.
    let whole = expected("pick_a_pic.parquet");
    let others: Value = whole
        .as_array()
        .unwrap()
        .iter()
        .filter(|pair| pair["row"] != 3 && pair["row"] != 5)
        .cloned()
        .collect();
    assert_eq!(pairs.iter().map(seen).collect::<Value>(), others);
}

#[test]
fn a_parquet_file_cut_short_is_named() {
    let folder = Folder::new();
    let whole = std::fs::read(fixture("images/pick_a_pic.parquet")).unwrap();
    for length in [0, 9, whole.len() / 2, whole.len() - 1] {
        let file = folder.write("cut.parquet", &whole[..length]);
        let error = ImageDataSource::new(file).read().unwrap_err();
        assert!(matches!(error, DataError::Parquet { .. }), "{error}");
        check_message(error, &["cut.parquet", "not a whole Parquet file", "copy it again"]);
    }
}

/// A flipped byte may go unnoticed, but it never ends the program.
#[test]
fn damaged_files_are_errors_and_never_panics() {
    let folder = Folder::new();
    let whole = std::fs::read(fixture("images/pick_a_pic.parquet")).unwrap();
    let mut noticed = 0;
    for at in (0..whole.len()).step_by(29) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x5a;
        let source = ImageDataSource::new(folder.write("damaged.parquet", bytes));
        noticed += usize::from(screen(&source, FaultyRows::Error).is_err());
    }
    assert!(noticed > 100, "{noticed}");
}

#[test]
fn columns_of_no_layout_are_listed() {
    let folder = Folder::new();
    let error = |row: &str| ImageDataSource::new(folder.write("rows.jsonl", row)).read().unwrap_err();
    check_message(
        error(r#"{"caption": "a", "image_url": "b"}"#),
        &[
            "row 1: the columns are of no known format; found: `caption`, `image_url`",
            "pick-a-pic",
            "image-pairs",
        ],
    );
    // The data set without images has its columns, but nothing to train on.
    check_message(
        error(r#"{"caption": "a", "label_0": 1, "label_1": 0}"#),
        &["row 1, field `jpg_0` is missing", "without images"],
    );
    check_message(
        error(r#"{"prompt": "a", "images": ["1.png"], "ranks": [1, 2]}"#),
        &["field `ranks`: expected a number for each image, found 2 for 1 images"],
    );
    check_message(
        error(r#"{"prompt": "a", "images": ["1.png", 7], "ranks": [1, 2]}"#),
        &["field `images[1]`: expected the path of an image, found the number 7"],
    );
    check_message(
        error(r#"{"caption": "a", "jpg_0": "1.png", "jpg_1": "2.png", "label_0": "x", "label_1": 0}"#),
        &["field `label_0`: expected a finite number, found the string \"x\""],
    );
    check_message(
        error(
            "{\"prompt\": \"a\", \"chosen\": \"1.png\", \"rejected\": \"2.png\"}\n{\"prompt\": \"a\", \"images\": [], \"ranks\": []}",
        ),
        &["row 2: the format `ranked-images`, but the first row has the format `image-pairs`"],
    );
}

#[test]
fn paths_lie_beside_the_table_or_where_it_is_said() {
    let folder = Folder::new();
    let row =
        r#"{"caption": "a", "jpg_0": "1.png", "jpg_1": {"path": "2.png"}, "label_0": 0.0, "label_1": 1}"#;
    let mut source = ImageDataSource::new(folder.write("rows.jsonl", row));
    let chosen = |source: &ImageDataSource| source.read().unwrap().rows[0].chosen.clone();
    assert_eq!(chosen(&source), ImageSource::File(folder.path().join("2.png")));
    source.images = Some("elsewhere".into());
    assert_eq!(chosen(&source), ImageSource::File(Path::new("elsewhere/2.png").to_owned()));
}

#[test]
fn pairs_are_put_into_buckets_by_shape_and_what_that_cuts_is_counted() {
    let (pairs, mut report) = screen(&source("pick_a_pic.parquet"), FaultyRows::Error).unwrap();
    let buckets = Buckets::of_area(16, 4);
    let framed = frame_pairs(pairs, &buckets, &mut report);
    assert_eq!(framed.len(), 7);
    for pair in &framed {
        let [chosen, rejected] = pair.images.map(|image| image.size.aspect());
        assert!((chosen * rejected).sqrt().ln() * pair.target.aspect().ln() >= 0.0, "{pair:?}");
    }
    assert_eq!(report.images.sizes.values().sum::<usize>(), 7);
    // Row 5 is small, and one image of row 7 is flat.
    assert_eq!(report.images.enlarged.first, [5, 7]);
    assert_eq!(report.images.lost.count, 14);
    assert!(report.to_string().contains("pairs by the size they are cut to: "), "{report}");
}

#[test]
fn a_first_row_tells_images_from_texts() {
    let is_of_images = |path: &str| holds_images(&[fixture(path)], None);
    for path in [
        "pick_a_pic.parquet",
        "hub",
        "pick_a_pic.jsonl",
        "pairs.parquet",
        "hpd/train.json",
        "corrupt.parquet",
    ] {
        assert!(is_of_images(&format!("images/{path}")), "{path}");
    }
    // Texts that are kept as bytes, among them.
    for path in ["tables/binary.parquet", "tables/rows.jsonl", "tables/none.parquet", "tables/hub", "none"] {
        assert!(!is_of_images(path), "{path}");
    }
}

#[test]
fn names_of_layouts_are_unique() {
    let names: std::collections::BTreeSet<_> = IMAGE_FORMATS
        .iter()
        .map(|format| format.name)
        .chain(votive_data::FORMATS.iter().map(|f| f.name))
        .collect();
    assert_eq!(names.len(), IMAGE_FORMATS.len() + votive_data::FORMATS.len());
}
