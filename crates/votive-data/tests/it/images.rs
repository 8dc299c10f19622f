//! Image pairs in files of their own: tables and folders, decoding, limits, pixels.

use std::path::Path;

use image::{Rgb, RgbImage};
use votive_data::{
    Augmentation, DataError, DataReport, FaultyRows, Frame, ImageBytes, ImageDataSource, ImageLimits,
    ImageLoader, ImagePair, ImageSize, ImageSource, LoadedImage, Place, Records, ResizeFilter, Result,
    RowProblem, ScreenedPair, decode_image, screen_image_pairs, to_latent_input,
};

use crate::{Folder, check_message};

/// An image whose columns get brighter to the right, by `step` a column.
fn save(folder: &Folder, name: &str, width: u32, height: u32, step: u8) {
    let file = folder.write(name, "");
    RgbImage::from_fn(width, height, |x, _| Rgb([x as u8 * step, 0, 255])).save(file).unwrap();
}

/// A PNG that claims a size and ends before its first pixel.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(&chunk);
    file.extend(crc32(&chunk).to_be_bytes());
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let fold = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(!0, fold)
}

fn pair(folder: &Folder) -> ImagePair {
    let image = |name| folder.path().join(name);
    ImagePair::new(3, "a", image("good.png"), image("bad.png"))
}

fn read_image_pairs(path: &Path) -> Result<Records<ImagePair>> {
    ImageDataSource::new(path).read()
}

fn screen(file: &Path, faulty_rows: FaultyRows) -> Result<(Vec<ScreenedPair>, DataReport)> {
    screen_image_pairs(read_image_pairs(file)?, faulty_rows, &ImageLimits::default(), |_, _| {})
}

fn load(pair: &ImagePair, side: u32, augmentation: Augmentation) -> Result<[LoadedImage; 2]> {
    let (file, target) = (Path::new("pairs.jsonl"), ImageSize::square(side));
    ImageLoader::default().load(&mut ImageBytes::new(), (file, pair), target, augmentation)
}

#[test]
fn a_table_names_files_beside_itself() {
    let folder = Folder::new();
    let line = r#"{"prompt": "a cat", "chosen": "img/1.png", "rejected": "img/2.png", "seed": 4}"#;
    let records = read_image_pairs(&folder.write("pairs.jsonl", line)).unwrap();
    let pair = &records.rows[0];
    assert_eq!((pair.row, pair.prompt.as_str()), (1, "a cat"));
    assert_eq!(pair.rejected, ImageSource::File(folder.path().join("img/2.png")));
    assert_eq!(records.ignored_columns["seed"], 1);
    let error =
        read_image_pairs(&folder.write("bad.jsonl", r#"{"prompt": "a", "chosen": "x"}"#)).unwrap_err();
    check_message(error, &["row 1, field `rejected` is missing", "paths relative to the file"]);
}

#[test]
fn two_folders_with_equal_names() {
    let folder = Folder::new();
    for name in ["chosen/b.png", "rejected/b.png", "chosen/a.jpg", "rejected/a.jpg"] {
        folder.write(name, "");
    }
    folder.write("chosen/a.txt", " a cat\n");
    check_message(read_image_pairs(folder.path()).unwrap_err(), &["b.txt", "cannot be read"]);
    folder.write("chosen/b.txt", "a dog");
    let rows = read_image_pairs(folder.path()).unwrap().rows;
    assert_eq!(
        rows.iter().map(|pair| (pair.row, &*pair.prompt)).collect::<Vec<_>>(),
        [(1, "a cat"), (2, "a dog")]
    );
    assert_eq!(rows[1].rejected, ImageSource::File(folder.path().join("rejected/b.png")));

    // A table of captions goes before files beside the images.
    folder.write("metadata.jsonl", r#"{"file_name": "b.png", "text": "a cow"}"#);
    assert_eq!(read_image_pairs(folder.path()).unwrap().rows[1].prompt, "a cow");
    folder.write("metadata.jsonl", r#"{"file_name": "b.png"}"#);
    check_message(read_image_pairs(folder.path()).unwrap_err(), &["metadata.jsonl: row 1, field `text`"]);

    folder.write("rejected/c.webp", "");
    check_message(
        read_image_pairs(folder.path()).unwrap_err(),
        &["`rejected/c.webp` has no partner `chosen/c.webp`"],
    );
    check_message(
        read_image_pairs(&folder.path().join("chosen")).unwrap_err(),
        &["a folder without `chosen` and `rejected`"],
    );
}

#[test]
fn equal_and_missing_images_are_found_before_training() {
    let folder = Folder::new();
    save(&folder, "1.png", 4, 4, 1);
    save(&folder, "2.png", 4, 4, 1);
    save(&folder, "3.png", 4, 4, 2);
    let row = |chosen: &str, rejected: &str| {
        format!("{{\"prompt\": \"a\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
    };
    let file =
        folder.write("pairs.jsonl", row("1.png", "3.png") + &row("1.png", "2.png") + &row("3.png", "3.png"));
    let error = screen(&file, FaultyRows::Error).unwrap_err();
    check_message(error, &["row 2: chosen and rejected are the same (", "1.png and "]);
    let (kept, report) = screen(&file, FaultyRows::Drop).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.pair.row).collect::<Vec<_>>(), [1]);
    assert_eq!(report.dropped[&RowProblem::ChosenEqualsRejected].first, [2, 3]);

    let file = folder.write("missing.jsonl", row("1.png", "none.png"));
    let error = screen(&file, FaultyRows::Drop).unwrap_err();
    check_message(error, &["missing.jsonl: row 1, field `rejected`", "none.png"]);
}

#[test]
fn files_that_are_no_images_are_named() {
    let folder = Folder::new();
    save(&folder, "good.png", 8, 8, 1);
    folder.write("bad.png", "GIF89a, or so it says");
    let load = || load(&pair(&folder), 8, Augmentation::default());
    check_message(
        load().unwrap_err(),
        &["pairs.jsonl: row 3, field `rejected`", "bad.png is not an image", "not a PNG, JPEG or WebP image"],
    );
    folder.write("bad.png", "plain text");
    check_message(load().unwrap_err(), &["field `rejected`", "bad.png is not an image"]);
    let whole = std::fs::read(folder.path().join("good.png")).unwrap();
    folder.write("bad.png", &whole[..whole.len() - 20]);
    check_message(load().unwrap_err(), &["field `rejected`", "bad.png is not an image"]);
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_it_is_allocated() {
    let folder = Folder::new();
    let place = Place::new(Path::new("pairs.jsonl"), 3, "chosen");
    let decode = |name: &str, bytes: &[u8]| {
        let image = ImageSource::File(folder.path().join(name));
        decode_image(bytes, &image, &ImageLimits::default(), &place).unwrap_err()
    };
    let error = decode("huge.png", &png_header(60_000, 60_000));
    assert!(
        matches!(error, DataError::ImageTooLarge { width: 60_000, height: 60_000, max_side: 16_384, .. }),
        "{error}"
    );
    check_message(
        error,
        &["pairs.jsonl: row 3, field `chosen`", "huge.png is 60000x60000 pixels", "16384 a side"],
    );
    // Within the sides, but more bytes than decoding may take.
    check_message(decode("large.png", &png_header(16_000, 16_000)), &["large.png", "limit"]);
    // And a file of more bytes than an image may have is not read to its end.
    let image = ImageSource::File(folder.write("long.png", [0; 100]));
    check_message(ImageBytes::new().read(&image, 99).unwrap_err(), &["larger than the limit"]);
}

#[test]
fn pixels_are_planes_from_minus_one_to_one() {
    let image = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([0, 51, 255]) } else { Rgb([255, 102, 0]) });
    let expected = [-1.0, 1.0, -0.6, -0.2, 1.0, -1.0];
    for (found, expected) in to_latent_input(&image).into_iter().zip(expected) {
        assert!((found - expected as f32).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn an_image_of_the_right_size_keeps_its_pixels_and_others_are_cut_in_the_middle() {
    let square = |image: &RgbImage| {
        let size = ImageSize { width: image.width(), height: image.height() };
        let frame = Frame::new(size, ImageSize::square(4), Augmentation::default());
        frame.apply(image, ResizeFilter::Bilinear)
    };
    let exact = RgbImage::from_fn(4, 4, |x, y| Rgb([x as u8, y as u8, 9]));
    assert_eq!(square(&exact), exact);
    let wide = RgbImage::from_fn(8, 4, |x, _| Rgb([x as u8, 0, 0]));
    assert_eq!(square(&wide).rows().next().unwrap().map(|pixel| pixel[0]).collect::<Vec<_>>(), [2, 3, 4, 5]);
    let tall = RgbImage::from_pixel(6, 20, Rgb([7, 8, 9]));
    assert_eq!(square(&tall), RgbImage::from_pixel(4, 4, Rgb([7, 8, 9])));
    let small = RgbImage::from_pixel(1, 3, Rgb([7, 8, 9]));
    assert_eq!(square(&small).dimensions(), (4, 4));
}

#[test]
fn both_images_of_a_pair_are_flipped_together() {
    let folder = Folder::new();
    save(&folder, "good.png", 4, 4, 10);
    save(&folder, "bad.png", 4, 4, 20);
    let load = |flip| load(&pair(&folder), 4, Augmentation { flip, ..Augmentation::default() }).unwrap();
    for (plain, flipped) in load(false).into_iter().zip(load(true)) {
        assert_eq!(plain.pixels.len(), 3 * 4 * 4);
        let mirrored: Vec<_> = flipped.pixels.chunks(4).flat_map(|row| row.iter().rev().copied()).collect();
        assert_ne!(plain.pixels, flipped.pixels);
        assert_eq!(plain.pixels, mirrored);
    }
}

#[test]
fn both_images_of_a_pair_are_cut_at_the_same_place_whatever_their_sizes() {
    let folder = Folder::new();
    save(&folder, "good.png", 8, 4, 10);
    save(&folder, "bad.png", 16, 8, 5);
    let cut = Augmentation { flip: false, cut: [1.0, 0.0] };
    let [chosen, rejected] = load(&pair(&folder), 4, cut).unwrap();
    assert_eq!((chosen.frame.left, rejected.frame.left), (4, 4));
    assert_eq!((chosen.frame.time_ids()[1], rejected.frame.time_ids()[1]), (8, 16));
    // The brighter columns stand at the right.
    for image in [chosen, rejected] {
        assert_eq!(image.pixels.len(), 3 * 4 * 4);
        assert!(image.pixels[0] > -0.7, "{}", image.pixels[0]);
    }
}
