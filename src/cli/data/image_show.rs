//! `votive data show` for images: captions, sizes and which image is preferred, and the images side by side.

use super::show::Args;
use crate::cli::png::write_png;
use crate::cli::{Context, Failure, Outcome};
use image::{Rgb, RgbImage, imageops};
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::Path;
use votive_data::{
    ClipTokenizer, ImageBytes, ImageLimits, ImagePair, Place, Records, RowNumbers, decode_image,
};

/// Height of the images of a sheet, and what lies around them, in pixels.
const HEIGHT: u32 = 256;
const FRAME: u32 = 6;
const GREEN: Rgb<u8> = Rgb([46, 160, 67]);
const RED: Rgb<u8> = Rgb([207, 34, 46]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);

/// An image of a pair: what it is, or why it cannot be read.
type Side = Result<(RgbImage, usize), String>;

pub(super) fn show(args: &Args, records: &Records<ImagePair>, ctx: &Context) -> Outcome {
    let pairs: Vec<&ImagePair> = match args.row.map(NonZeroUsize::get) {
        None => records.rows.iter().take(args.rows.get()).collect(),
        Some(row) => records.rows.iter().filter(|pair| pair.row == row).collect(),
    };
    show_refused(args, records, pairs.is_empty(), ctx)?;
    let tokenizer =
        args.model.as_deref().map(|model| ClipTokenizer::load(&model.join("tokenizer"))).transpose()?;
    let mut bytes = ImageBytes::new();
    let mut sheet = Vec::new();
    for pair in pairs {
        let (file, in_file) = records.place(pair.row);
        let sides = pair.sides().map(|(side, image)| -> Side {
            let limits = ImageLimits::default();
            let stored = bytes.read(image, limits.max_bytes)?;
            let place = Place::new(file, in_file, side);
            let decoded = decode_image(&stored, image, &limits, &place).map_err(|error| error.to_string())?;
            Ok((decoded, stored.len()))
        });
        let value = describe(pair, &sides, tokenizer.as_ref())?;
        if ctx.output.wants_json() {
            let mut value = value;
            value["file"] = json!(file);
            value["row_in_file"] = json!(in_file);
            ctx.output.json(&value)?;
        } else {
            ctx.output.line(in_words(pair, &value, &format!("{}:{in_file}", file.display())))?;
        }
        sheet.push(sides);
    }
    match &args.out {
        Some(out) => draw(&sheet, out, ctx),
        None => Ok(()),
    }
}

/// Says why a row that was asked for gives no pair, or that there is none.
fn show_refused(args: &Args, records: &Records<ImagePair>, no_pair: bool, ctx: &Context) -> Outcome {
    let Some(row) = args.row.map(NonZeroUsize::get) else { return Ok(()) };
    let refused: Vec<_> = records.refused.iter().filter(|refused| refused.row == row).collect();
    if no_pair && refused.is_empty() {
        let message = format!("--row {row}: there is no such row; {} were read", records.rows_read);
        return Err(Failure::usage(message));
    }
    for refused in refused {
        let text = format!("row {row} gives no pair: {}", refused.problem);
        if ctx.output.wants_json() {
            ctx.output.json(&json!({"row": row, "problem": refused.problem, "text": text}))?;
        } else {
            ctx.output.line(text)?;
        }
    }
    Ok(())
}

/// A pair as JSON.
fn describe(pair: &ImagePair, sides: &[Side; 2], tokenizer: Option<&ClipTokenizer>) -> Outcome<Value> {
    let RowNumbers { weight, margin, .. } = pair.numbers;
    let mut value = json!({"row": pair.row, "prompt": pair.prompt, "weight": weight, "margin": margin});
    value["tie"] = pair.origin.is_tie.into();
    for (side, (name, image)) in pair.sides().into_iter().enumerate() {
        let place = pair.origin.places.map(|places| places[side]);
        let mut about =
            json!({"image": image.to_string(), "place": place, "model": pair.origin.models[side].as_deref()});
        match &sides[side] {
            Ok((image, bytes)) => {
                about["size"] = json!([image.width(), image.height()]);
                about["bytes"] = json!(bytes);
            }
            Err(problem) => about["problem"] = json!(problem),
        }
        value[name] = about;
    }
    if let Some(tokenizer) = tokenizer {
        let encoded = tokenizer.encode(&pair.prompt)?;
        value["tokens"] = json!(encoded.tokens);
        value["tokens_cut"] = json!(encoded.truncated_tokens);
    }
    Ok(value)
}

fn in_words(pair: &ImagePair, value: &Value, place: &str) -> String {
    let numbers = ["weight", "margin"].map(|name| match &value[name] {
        Value::Null => String::new(),
        number => format!(", {name} {number}"),
    });
    let tie = if pair.origin.is_tie { ", a tie" } else { "" };
    let mut text =
        format!("row {} ({place}){}{tie}\n  prompt: {:?}", pair.row, numbers.concat(), pair.prompt);
    if let (Some(tokens), Some(cut)) = (value["tokens"].as_u64(), value["tokens_cut"].as_u64()) {
        let lost =
            if cut > 0 { format!(", and {cut} that do not fit and have no effect") } else { String::new() };
        text += &format!("\n    {tokens} tokens{lost}");
    }
    for (name, image) in pair.sides() {
        let about = &value[name];
        let which =
            about["place"].as_u64().map(|place| format!(", image {place} of the row")).unwrap_or_default();
        let model = about["model"].as_str().map(|model| format!(", by {model}")).unwrap_or_default();
        let seen = match (&about["size"], about["problem"].as_str()) {
            (Value::Array(size), _) => {
                let [width, height] = [&size[0], &size[1]];
                format!("{width}x{height} pixels, {} bytes", about["bytes"])
            }
            (_, problem) => format!("! {}", problem.unwrap_or("unreadable")),
        };
        text += &format!("\n  {name}: {seen}{which}{model}\n    {image}");
    }
    text
}

/// Draws pairs below one another, the chosen image left in green and the rejected one right in red.
fn draw(sheet: &[[Side; 2]], out: &Path, ctx: &Context) -> Outcome {
    let drawn: Vec<[RgbImage; 2]> =
        sheet.iter().map(|[chosen, rejected]| [framed(chosen, GREEN), framed(rejected, RED)]).collect();
    let column = |side: usize| drawn.iter().map(|pair| pair[side].width()).max().unwrap_or(0);
    let row = HEIGHT + 3 * FRAME;
    let (width, height) = (column(0) + FRAME + column(1), row * drawn.len() as u32);
    if width == 0 || height == 0 {
        return Err(Failure::usage("--out: there is no pair to draw"));
    }
    let mut whole = RgbImage::from_pixel(width, height, WHITE);
    for (index, [chosen, rejected]) in drawn.iter().enumerate() {
        let top = i64::from(row) * index as i64;
        imageops::replace(&mut whole, chosen, 0, top);
        imageops::replace(&mut whole, rejected, i64::from(column(0) + FRAME), top);
    }
    write_png(&whole, &[], out)?;
    ctx.output.note(format!("drawn in {}: chosen left in green, rejected right in red", out.display()));
    Ok(())
}

/// An image at the sheet's height in a frame; an empty frame if it cannot be read.
fn framed(side: &Side, colour: Rgb<u8>) -> RgbImage {
    let image = match side {
        Ok((image, _)) => {
            let (width, height) = (f64::from(image.width()), f64::from(image.height().max(1)));
            let width = ((width * f64::from(HEIGHT) / height) as u32).clamp(1, 4 * HEIGHT);
            imageops::thumbnail(image, width, HEIGHT)
        }
        Err(_) => RgbImage::from_pixel(HEIGHT, HEIGHT, WHITE),
    };
    let mut frame = RgbImage::from_pixel(image.width() + 2 * FRAME, HEIGHT + 2 * FRAME, colour);
    imageops::replace(&mut frame, &image, i64::from(FRAME), i64::from(FRAME));
    frame
}
