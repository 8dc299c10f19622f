//! Image pairs: files that are missing, that are no images, or that would not fit into memory; latents that do not fit.

use super::*;

/// A PNG that states a size in its header, and holds none of its pixels.
fn png(width: u32, height: u32) -> Vec<u8> {
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [kind.as_slice(), data].concat();
        [&(data.len() as u32).to_be_bytes(), body.as_slice(), &crc32(&body).to_be_bytes()].concat()
    };
    // Eight bits a channel, three channels, no interlacing.
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [SIGNATURE, &chunk(b"IHDR", &header), &chunk(b"IDAT", &[]), &chunk(b"IEND", &[])].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

/// Trains on three good pairs and one behind them.
#[track_caller]
fn check(trial: &Trial, chosen: &str, rejected: &str, parts: &[&str]) {
    let row = json!({"prompt": "a picture", "chosen": chosen, "rejected": rejected});
    let rows = fs::read_to_string(trial.path("pairs.jsonl")).unwrap() + &row.to_string();
    let data = format!("data.path={}", trial.folder.text("more.jsonl", &rows));
    trial.refused(&[&data], DATA, &[&["more.jsonl: row 4"], parts].concat());
}

#[test]
fn an_image_that_cannot_be_read_is_named_with_its_row_and_side() {
    let trial = Trial::image();
    check(&trial, "none.png", "rejected0.png", &["field `chosen`", "/none.png", "No such file"]);
    check(&trial, "chosen0.png", "none.png", &["field `rejected`", "/none.png", "No such file"]);
    for (file, why) in [("words.png", "Invalid PNG signature"), ("words", "not a PNG, JPEG or WebP image")] {
        trial.folder.text(file, "no image but words");
        let parts =
            [&format!("field `chosen`: {}", trial.path(file)), "is not an image that can be read", why];
        check(&trial, file, "rejected0.png", &parts);
    }
    let whole = fs::read(trial.path("chosen0.png")).unwrap();
    fs::write(trial.path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    check(
        &trial,
        "chosen0.png",
        "cut.png",
        &["field `rejected`", "/cut.png is not an image that can be read"],
    );
    check(
        &trial,
        "chosen0.png",
        "chosen0.png",
        &["chosen and rejected are the same", "faulty_rows to \"drop\""],
    );
    fs::create_dir(trial.path("empty")).unwrap();
    let data = format!("data.path={}", trial.path("empty"));
    trial.refused(
        &[&data],
        DATA,
        &["a folder without `chosen` and `rejected` and without tables", ".parquet"],
    );
}

#[test]
fn the_size_in_a_header_is_refused_before_memory_is_taken() {
    let trial = Trial::image();
    fs::write(trial.path("huge.png"), png(60_000, 60_000)).unwrap();
    let huge = ["field `rejected`", "/huge.png is 60000x60000 pixels, more than the limit of 16384 a side"];
    check(&trial, "chosen0.png", "huge.png", &huge);
    fs::write(trial.path("large.png"), png(16_000, 16_000)).unwrap();
    let large = ["/large.png", "16000x16000 pixels take more than the limit of 512 MiB"];
    check(&trial, "chosen0.png", "large.png", &large);
    #[cfg(target_os = "linux")]
    {
        let data =
            trial.folder.text("one.jsonl", r#"{"prompt":"a","chosen":"huge.png","rejected":"chosen0.png"}"#);
        let output = limited("-v 4000000", &trial.training(&[&format!("data.path={data}")]));
        assert_eq!(output.status.code(), Some(DATA), "{}", stderr(&output));
    }
}

#[test]
fn folders_of_pairs_have_equal_names_and_captions() {
    let trial = Trial::image();
    for side in ["chosen", "rejected"] {
        fs::create_dir_all(trial.path(&format!("pairs/{side}"))).unwrap();
        fs::copy(trial.path(&format!("{side}0.png")), trial.path(&format!("pairs/{side}/0.png"))).unwrap();
    }
    let data = format!("data.path={}", trial.path("pairs"));
    trial.refused(&[&data], DATA, &["pairs/chosen/0.txt", "No such file"]);
    fs::write(trial.path("pairs/chosen/0.txt"), "a picture").unwrap();
    fs::copy(trial.path("chosen1.png"), trial.path("pairs/chosen/1.png")).unwrap();
    trial.refused(&[&data], DATA, &["`chosen/1.png` has no partner `rejected/1.png`"]);
}

#[test]
fn a_corrupt_image_in_parquet_stops_the_run_or_is_counted_as_asked() {
    let trial = Trial::image();
    let data = format!("data.path={}", fixture("images/corrupt.parquet"));
    let place =
        "corrupt.parquet: row 3, field `rejected`: the image in column `jpg_1` (row 3 of row group 0)";
    trial.refused(&[&data], DATA, &[place, "is not an image that can be read"]);
    let mut args = trial.training(&[&data, "data.faulty_rows=drop", "train.steps=1"]);
    args.retain(|arg| arg != "--quiet");
    let said = trial.works(&args);
    for part in ["an image cannot be read: 2 (row 3, 5)", "the scores are equal: 1 (row 4)", "5 rows; "] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let cut = fs::read(fixture("images/pick_a_pic.parquet")).unwrap();
    fs::write(trial.path("cut.parquet"), &cut[..cut.len() / 2]).unwrap();
    let data = format!("data.path={}", trial.path("cut.parquet"));
    fs::remove_dir_all(trial.path("run")).unwrap();
    trial.refused(&[&data], DATA, &["cut.parquet", "not a whole Parquet file", "copy it again"]);
}

#[test]
fn columns_that_hold_no_image_pairs_are_listed() {
    let trial = Trial::image();
    let check = |row: &str, parts: &[&str]| {
        let data = format!("data.path={}", trial.folder.text("rows.jsonl", row));
        trial.refused(&[&data], DATA, &[&["rows.jsonl: row 1"], parts].concat());
    };
    let unknown = ["no known format; found: `caption`, `url`; known formats: pick-a-pic, hpdv2"];
    check(r#"{"caption": "a", "url": "b"}"#, &unknown);
    check(r#"{"caption": "a", "label_0": 1, "label_1": 0}"#, &["field `jpg_0` is missing", "without images"]);
    check(
        r#"{"prompt": "a", "chosen": 5, "rejected": "b.png"}"#,
        &["field `chosen`: expected the path of an image, found the number 5"],
    );
    let weighed = "data.weights=prompt";
    trial.refused(&[weighed], DATA, &["pairs.jsonl: row 1, field `num_example_per_prompt` is missing"]);
    trial.refused(&["data.crop=middle"], USAGE, &["data.crop", r#""center" | "random""#]);
    trial.refused(&["data.max_length=3"], USAGE, &["unknown key `data.max_length`"]);
}

#[test]
fn latents_of_another_shape_leave_no_image() {
    let trial = Trial::image();
    let (model, out) = (fixture("diffusion/sd1"), trial.path("out"));
    let check = |name: &str, shape: &[usize], parts: &[&str]| {
        let latents = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let file = trial.folder.tensors("latents.safetensors", [(name, latents)]);
        let args = ["sample", "--model", &model, "--prompt", "a", "--out", &out, "--latents", &file];
        trial.untouched(&args, DATA, &[&["latents.safetensors"], parts].concat());
    };
    check("latents", &[1, 3, 8, 8], &["expected shape [1, 4, 8, 8] for 1 images, found [1, 3, 8, 8]"]);
    check("latents", &[0, 4, 8, 8], &["found [0, 4, 8, 8]"]);
    check("noise", &[1, 4, 8, 8], &["no tensor `latents`; found noise"]);
    let args =
        ["sample", "--model", &model, "--prompt", "a", "--out", &out, "--latents", &trial.path("none")];
    trial.untouched(&args, DATA, &["/none: No such file"]);
}
