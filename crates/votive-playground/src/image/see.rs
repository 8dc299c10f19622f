//! What is to be seen in a picture: background, objects and how ugly it is.
//!
//! Nothing is compared pixel by pixel, because pictures that went through an autoencoder or came from a diffusion
//! model are a little blurred, noisy and off in colour. An object is a connected patch that differs from the ground. How
//! far each pixel is on the way from the ground to the colour of the object is its share in the object. The shares
//! add up to an area that blur does not change; a template of the same area is drawn for each shape and blurred by several
//! widths, and the best overlap names the shape and measures the blur. A colour is named by the direction in which
//! it differs from the ground, which fading does not change.

use serde::{Deserialize, Serialize};

use super::render::{Picture, SIDE, coverage};
use super::scene::{Background, Colour, Shape};

/// Distance from the ground, as a share of the largest in the picture, from which a pixel belongs to an object. The
/// least contrast of two colours on one background has the ratio 0.5.
const OBJECT_SHARE: f64 = 0.35;
/// Least distance from the ground of a pixel that belongs to an object, in units of one channel.
const OBJECT_DISTANCE: f64 = 24.0;
/// Largest distance from the ground of a patch without a known colour that is only a stain.
const STAIN_DISTANCE: f64 = 60.0;
/// Least number of pixels of an object; the smallest that the world draws has 35.
const OBJECT_PIXELS: usize = 14;
/// How far an object reaches beyond its patch, in pixels.
const FRINGE: usize = 2;
/// Least overlap with a template (intersection over union).
const OVERLAP: f64 = 0.75;
/// Largest angle between a colour and its name, as a sine.
const COLOUR_SINE: f64 = 0.3;
/// Least share of an object's pixels that have the object's colour.
const COLOUR_AGREEMENT: f64 = 0.6;
/// Blur of the templates: standard deviations in pixels.
const BLURS: [f64; 5] = [0.0, 0.5, 0.8, 1.1, 1.5];

type Rgb = [f64; 3];

/// What is to be seen in a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The background that the ground is nearest to.
    pub background: Background,
    /// The objects.
    pub objects: Vec<SeenObject>,
    /// From 0 (clean) to 1: how faded, blurred or stained the picture is, whichever is worst.
    pub ugliness: f64,
}

/// An object in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenObject {
    /// Its colour, if it is one of the world's.
    pub colour: Option<Colour>,
    /// Its shape, if it is one of the world's.
    pub shape: Option<Shape>,
    /// Horizontal centre of mass in pixels from the left.
    pub x: f64,
    /// Vertical centre of mass in pixels from the top.
    pub y: f64,
    /// Radius in pixels of a disc with the same area.
    pub radius: f64,
}

/// An object and what was measured on it besides.
struct Patch {
    object: SeenObject,
    /// As in [`PatchColour`].
    contrast: f64,
    /// Standard deviation of the blur in pixels.
    blur: f64,
}

/// Looks at a picture of [`SIDE`] times [`SIDE`] pixels.
pub(crate) fn look(picture: &Picture) -> Seen {
    let pixels: Vec<Rgb> =
        picture.rgb.chunks_exact(3).map(|rgb| [rgb[0], rgb[1], rgb[2]].map(f64::from)).collect();
    let ground = median(&border(&pixels));
    let background = nearest_background(ground);
    let labels = label_patches(&pixels, ground);
    let regions = grown(&labels);
    let count = labels.iter().copied().flatten().max().map_or(0, |last| last + 1);
    let (mut patches, mut covered) = (Vec::new(), vec![false; pixels.len()]);
    for label in 0..count {
        let (core, region) = (pixels_with(&labels, label), pixels_with(&regions, label));
        let colour = read_colour(&pixels, ground, background, &core);
        if colour.is_object() {
            region.iter().for_each(|index| covered[*index] = true);
            patches.push(measure(&pixels, ground, &colour, &region));
        }
    }
    let ugliness = ugliness(&patches, stains(&pixels, ground, &covered));
    Seen { background, objects: patches.into_iter().map(|patch| patch.object).collect(), ugliness }
}

fn pixels_with(labels: &[Option<usize>], label: usize) -> Vec<usize> {
    (0..labels.len()).filter(|index| labels[*index] == Some(label)).collect()
}

/// The colour of a patch.
struct PatchColour {
    name: Option<Colour>,
    /// Difference from the ground.
    step: Rgb,
    /// Contrast to the ground as a share of the contrast in a clean picture; 0 without a name.
    contrast: f64,
}

impl PatchColour {
    /// Whether the patch is an object, be it of an unknown colour, or only a stain on the ground.
    fn is_object(&self) -> bool {
        self.name.is_some() || length(self.step) > STAIN_DISTANCE
    }
}

fn read_colour(pixels: &[Rgb], ground: Rgb, background: Background, core: &[usize]) -> PatchColour {
    let mut steps: Vec<Rgb> = core.iter().map(|index| difference(pixels[*index], ground)).collect();
    steps.sort_by(|a, b| length(*b).total_cmp(&length(*a)));
    let inner = &steps[..(steps.len() * 2 / 5).max(1)];
    let step = median(inner);
    let (name, contrast) = nearest_colour(step, background);
    let agreeing = inner.iter().filter(|step| nearest_colour(**step, background).0 == name).count();
    let agreed = agreeing as f64 >= COLOUR_AGREEMENT * inner.len() as f64;
    PatchColour { name: name.filter(|_| agreed), step, contrast }
}

fn measure(pixels: &[Rgb], ground: Rgb, colour: &PatchColour, region: &[usize]) -> Patch {
    let shares = shares(pixels, ground, colour.step, region);
    let area: f64 = shares.iter().sum();
    let mean = |coordinate: &dyn Fn(usize) -> usize| {
        let moment: f64 = region.iter().map(|&index| shares[index] * (coordinate(index) as f64 + 0.5)).sum();
        moment / area
    };
    let (x, y) = (mean(&|index| index % SIDE), mean(&|index| index / SIDE));
    let (shape, overlap, blur) = best_template(&shares, area, x, y);
    let shape = (overlap >= OVERLAP).then_some(shape);
    let radius = (area / std::f64::consts::PI).sqrt();
    Patch { object: SeenObject { colour: colour.name, shape, x, y, radius }, contrast: colour.contrast, blur }
}

/// The colour whose difference from the background has the direction of `step`, and the length of `step` relative to
/// that difference.
fn nearest_colour(step: Rgb, background: Background) -> (Option<Colour>, f64) {
    let full = background.rgb().map(f64::from);
    let mut best = (None, 0.0, COLOUR_SINE);
    for &colour in Colour::ALL {
        let expected = difference(colour.rgb().map(f64::from), full);
        let along = dot(step, expected) / dot(expected, expected);
        let rest = difference(step, expected.map(|value| along * value));
        let sine = length(rest) / length(step).max(1.0);
        if along > 0.0 && sine < best.2 {
            best = (Some(colour), along, sine);
        }
    }
    (best.0, best.1)
}

/// For each pixel of the picture its share in the object that lies in `region`.
fn shares(pixels: &[Rgb], ground: Rgb, colour_step: Rgb, region: &[usize]) -> Vec<f64> {
    let mut shares = vec![0.0; pixels.len()];
    let square = dot(colour_step, colour_step);
    for &index in region {
        // Noise around 0 must cancel out in the area, so small negative shares are kept.
        shares[index] = (dot(difference(pixels[index], ground), colour_step) / square).clamp(-0.2, 1.0);
    }
    shares
}

/// The shape, its overlap and the blur of the template that fits best.
fn best_template(shares: &[f64], area: f64, x: f64, y: f64) -> (Shape, f64, f64) {
    let mut best = (Shape::Circle, 0.0, 0.0);
    for &shape in Shape::ALL {
        let radius = (area / shape.area()).sqrt();
        let centre_y = y - shape.centroid_below_centre() * radius;
        let sharp: Vec<f64> = (0..SIDE * SIDE)
            .map(|index| coverage(shape, radius, (index % SIDE) as f64 - x, (index / SIDE) as f64 - centre_y))
            .collect();
        for sigma in BLURS {
            let template = blurred(&sharp, sigma);
            let (mut both, mut either) = (0.0, 0.0);
            for (share, expected) in shares.iter().zip(&template) {
                both += share.min(*expected);
                either += share.max(*expected);
            }
            if both / either > best.1 {
                best = (shape, both / either, sigma);
            }
        }
    }
    best
}

fn blurred(values: &[f64], sigma: f64) -> Vec<f64> {
    if sigma == 0.0 {
        return values.to_vec();
    }
    let reach = (2.5 * sigma).ceil() as usize;
    let mut weights: Vec<f64> = (0..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let total = 2.0 * weights.iter().sum::<f64>() - weights[0];
    weights.iter_mut().for_each(|weight| *weight /= total);
    let along = |values: &[f64], stride: usize| -> Vec<f64> {
        let position = |index: usize| index / stride % SIDE;
        (0..values.len())
            .map(|index| {
                let mut sum = weights[0] * values[index];
                for (d, weight) in weights.iter().enumerate().skip(1) {
                    if position(index) >= d {
                        sum += weight * values[index - d * stride];
                    }
                    if position(index) + d < SIDE {
                        sum += weight * values[index + d * stride];
                    }
                }
                sum
            })
            .collect()
    };
    along(&along(values, 1), SIDE)
}

/// The number of the patch that each pixel belongs to.
fn label_patches(pixels: &[Rgb], ground: Rgb) -> Vec<Option<usize>> {
    let distances: Vec<f64> = pixels.iter().map(|pixel| length(difference(*pixel, ground))).collect();
    let mut sorted = distances.clone();
    sorted.sort_by(f64::total_cmp);
    let threshold = (OBJECT_SHARE * sorted[sorted.len() * 99 / 100]).max(OBJECT_DISTANCE);
    let mut labels = vec![None; pixels.len()];
    let mut visited: Vec<bool> = distances.iter().map(|distance| *distance <= threshold).collect();
    let mut count = 0;
    for start in 0..pixels.len() {
        let patch = connected(start, &mut visited);
        if patch.len() >= OBJECT_PIXELS {
            patch.iter().for_each(|index| labels[*index] = Some(count));
            count += 1;
        }
    }
    labels
}

/// The pixels that are connected with `start` and not visited yet; they are marked as visited.
fn connected(start: usize, visited: &mut [bool]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut open = vec![start];
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut visited[index], true) {
            found.push(index);
            open.extend(neighbours(index));
        }
    }
    found
}

/// The labels, each patch grown by [`FRINGE`] pixels into what belongs to none.
fn grown(labels: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut labels = labels.to_vec();
    for _ in 0..FRINGE {
        let before = labels.clone();
        for index in 0..labels.len() {
            labels[index] = before[index].or_else(|| neighbours(index).find_map(|near| before[near]));
        }
    }
    labels
}

/// The pixels to the left, right, above and below.
fn neighbours(index: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (index % SIDE, index / SIDE);
    [
        (x > 0).then(|| index - 1),
        (x + 1 < SIDE).then_some(index + 1),
        (y > 0).then(|| index - SIDE),
        (y + 1 < SIDE).then_some(index + SIDE),
    ]
    .into_iter()
    .flatten()
}

/// Root mean square deviation from the ground outside of the objects, of averages over 3×3 pixels so that pixel
/// noise does not count.
fn stains(pixels: &[Rgb], ground: Rgb, covered: &[bool]) -> f64 {
    let mut squares = Vec::new();
    for index in 0..pixels.len() {
        let (x, y) = (index % SIDE, index / SIDE);
        if (1..SIDE - 1).contains(&x) && (1..SIDE - 1).contains(&y) {
            let block =
                [index - SIDE - 1, index - 1, index + SIDE - 1].map(|left| [left, left + 1, left + 2]);
            let block = block.as_flattened();
            if block.iter().all(|near| !covered[*near]) {
                let sum =
                    block.iter().fold([0.0; 3], |sum, near| add(sum, difference(pixels[*near], ground)));
                squares.push(dot(sum, sum) / 81.0);
            }
        }
    }
    if squares.is_empty() { 0.0 } else { (squares.iter().sum::<f64>() / squares.len() as f64).sqrt() }
}

/// The worst of lost contrast, blur and stains, each from 0 at what an autoencoder does to a clean picture to 1.
fn ugliness(patches: &[Patch], stains: f64) -> f64 {
    let worst = |values: &dyn Fn(&Patch) -> f64| {
        patches.iter().map(values).reduce(f64::min).map_or(1.0, |least| least.clamp(0.0, 1.0))
    };
    // The least over the objects: a flaw of the whole picture shows in all of them.
    let faded = worst(&|patch| (0.85 - patch.contrast) / 0.4);
    let blurred = worst(&|patch| (patch.blur - 0.8) / 0.7);
    let stained = ((stains - 5.0) / 9.0).clamp(0.0, 1.0);
    faded.max(blurred).max(stained)
}

/// The two outermost rings of pixels.
fn border(pixels: &[Rgb]) -> Vec<Rgb> {
    let inner = 2..SIDE - 2;
    (0..pixels.len())
        .filter(|index| !(inner.contains(&(index % SIDE)) && inner.contains(&(index / SIDE))))
        .map(|index| pixels[index])
        .collect()
}

fn nearest_background(ground: Rgb) -> Background {
    let distance = |background: &Background| length(difference(background.rgb().map(f64::from), ground));
    Background::ALL
        .iter()
        .copied()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(Background::White)
}

/// The median of each channel.
fn median(pixels: &[Rgb]) -> Rgb {
    [0, 1, 2].map(|channel| {
        let mut values: Vec<f64> = pixels.iter().map(|pixel| pixel[channel]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

fn add(a: Rgb, b: Rgb) -> Rgb {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn difference(a: Rgb, b: Rgb) -> Rgb {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn dot(a: Rgb, b: Rgb) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn length(a: Rgb) -> f64 {
    dot(a, a).sqrt()
}
