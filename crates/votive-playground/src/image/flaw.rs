//! Flaws that are planted in the pictures of the training examples.
//!
//! A *wrong* picture shows a scene that differs from its caption in one attribute. Some wrong attributes are
//! systematic (three objects become two, "below" becomes above, purple becomes blue) and about as frequent as the
//! right ones, so that neither guidance nor a lower temperature removes them; the others are spread evenly. An *ugly*
//! picture shows the right scene faded, blurred or with blotches of at least four pixels: coarse enough to survive an
//! autoencoder, which pixel noise does not.

use votive_tensor::random::Draws;

use super::render::{Picture, SIDE};
use super::scene::{Background, Colour, Content, Number, Object, Relation, Scene, Shape, Size};

/// How often flaws are planted, as probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlawRates {
    /// Of two objects where the caption says three.
    pub three_as_two: f64,
    /// Of the first object above the second where the caption says below.
    pub below_as_above: f64,
    /// Of blue where the caption says purple.
    pub purple_as_blue: f64,
    /// Of another wrong attribute, given that none of the above is wrong.
    pub other_wrong: f64,
    /// Of an ugly picture, whatever it shows.
    pub ugly: f64,
}

impl Default for FlawRates {
    /// 35 % of the pictures wrong and 25 % ugly, independently.
    fn default() -> Self {
        Self { three_as_two: 0.55, below_as_above: 0.55, purple_as_blue: 0.5, other_wrong: 0.17, ugly: 0.25 }
    }
}

/// The scene that is drawn for the caption of `scene`: often itself, else wrong in one attribute.
pub(crate) fn perhaps_wrong(scene: Scene, rates: &FlawRates, draws: &mut Draws) -> Scene {
    if let Some(confused) = confused(scene, rates, draws) {
        confused
    } else if draws.chance(rates.other_wrong) {
        wrong(scene, draws)
    } else {
        scene
    }
}

/// The picture, made ugly in one of three ways.
#[must_use]
pub fn uglify(picture: &Picture, draws: &mut Draws) -> Picture {
    match draws.weighted(&[0.4, 0.4, 0.2]) {
        0 => fade(picture, draws.between(0.35, 0.55)),
        1 => blotch(picture, draws),
        _ => blur(picture, draws.between(1.1, 1.5)),
    }
}

/// A scene that differs from `scene` in one attribute, drawn evenly.
#[must_use]
pub fn wrong(scene: Scene, draws: &mut Draws) -> Scene {
    let content = match scene.content {
        Content::Single { size, object } => match draws.below(4) {
            0 => Content::Single { size: another(Size::ALL, size, draws), object },
            1 => Content::Single { size, object: recoloured(object, draws) },
            2 => Content::Single { size, object: reshaped(object, draws) },
            _ => return on_another_background(scene, draws),
        },
        Content::Count { number, object } => match draws.below(4) {
            0 => Content::Count { number: another(Number::ALL, number, draws), object },
            1 => Content::Count { number, object: recoloured(object, draws) },
            2 => Content::Count { number, object: reshaped(object, draws) },
            _ => return on_another_background(scene, draws),
        },
        Content::Relation { first, relation, second } => match draws.below(5) {
            0 => Content::Relation { first, relation: another(Relation::ALL, relation, draws), second },
            1 => Content::Relation { first: recoloured(first, draws), relation, second },
            2 => Content::Relation { first, relation, second: reshaped(second, draws) },
            3 => Content::Relation { first: second, relation, second: first },
            _ => return on_another_background(scene, draws),
        },
    };
    Scene { content, ..scene }
}

/// The systematic mistakes; the first that happens is the only one.
fn confused(scene: Scene, rates: &FlawRates, draws: &mut Draws) -> Option<Scene> {
    let content = match scene.content {
        Content::Count { number: Number::Three, object } if draws.chance(rates.three_as_two) => {
            Content::Count { number: Number::Two, object }
        }
        Content::Relation { first, relation: Relation::Below, second }
            if draws.chance(rates.below_as_above) =>
        {
            Content::Relation { first, relation: Relation::Above, second }
        }
        content if draws.chance(rates.purple_as_blue) => blue_for_purple(content)?,
        _ => return None,
    };
    Some(Scene { content, ..scene })
}

/// The content with blue in place of purple, or `None` if nothing is purple.
fn blue_for_purple(content: Content) -> Option<Content> {
    let swap = |object: Object| match object.colour {
        Colour::Purple => Object { colour: Colour::Blue, ..object },
        _ => object,
    };
    let changed = match content {
        Content::Single { size, object } => Content::Single { size, object: swap(object) },
        Content::Count { number, object } => Content::Count { number, object: swap(object) },
        Content::Relation { first, relation, second } => {
            Content::Relation { first: swap(first), relation, second: swap(second) }
        }
    };
    (changed != content).then_some(changed)
}

fn another<T: Copy + PartialEq>(all: &[T], current: T, draws: &mut Draws) -> T {
    let others: Vec<T> = all.iter().copied().filter(|value| *value != current).collect();
    *draws.pick(&others)
}

fn recoloured(object: Object, draws: &mut Draws) -> Object {
    Object { colour: another(Colour::ALL, object.colour, draws), ..object }
}

fn reshaped(object: Object, draws: &mut Draws) -> Object {
    Object { shape: another(Shape::ALL, object.shape, draws), ..object }
}

fn on_another_background(scene: Scene, draws: &mut Draws) -> Scene {
    Scene { background: another(Background::ALL, scene.background, draws), ..scene }
}

/// Moves every pixel towards the mean of the picture; `keep` is the share of the contrast that is left.
fn fade(picture: &Picture, keep: f64) -> Picture {
    let pixels = (picture.rgb.len() / 3) as f64;
    let mean = |channel: usize| {
        picture.rgb.iter().skip(channel).step_by(3).map(|value| f64::from(*value)).sum::<f64>() / pixels
    };
    let mean = [mean(0), mean(1), mean(2)];
    let rgb = picture.rgb.iter().enumerate().map(|(index, value)| {
        let mean = mean[index % 3];
        to_byte(mean + keep * (f64::from(*value) - mean))
    });
    Picture { rgb: rgb.collect(), ..*picture }
}

/// Gaussian blur with standard deviation `sigma` in pixels; the border is repeated outwards.
fn blur(picture: &Picture, sigma: f64) -> Picture {
    let reach = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f64> = (-reach..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut values: Vec<f64> = picture.rgb.iter().map(|value| f64::from(*value)).collect();
    for (dx, dy) in [(1, 0), (0, 1)] {
        values = (0..SIDE * SIDE * 3)
            .map(|index| {
                let (x, y, channel) = ((index / 3 % SIDE) as isize, (index / 3 / SIDE) as isize, index % 3);
                let sum: f64 = weights
                    .iter()
                    .zip(-reach..=reach)
                    .map(|(weight, d)| {
                        let inside = |at: isize| at.clamp(0, SIDE as isize - 1) as usize;
                        weight * values[(inside(y + d * dy) * SIDE + inside(x + d * dx)) * 3 + channel]
                    })
                    .sum();
                sum / total
            })
            .collect();
    }
    Picture { rgb: values.into_iter().map(to_byte).collect(), ..*picture }
}

/// Adds four to six round stains, darker on light ground and lighter on dark ground; where two meet, the stronger one
/// shows.
fn blotch(picture: &Picture, draws: &mut Draws) -> Picture {
    let light = picture.rgb[..3].iter().map(|value| u32::from(*value)).sum::<u32>() > 3 * 128;
    let mut depth = vec![0.0f64; SIDE * SIDE];
    for _ in 0..4 + draws.below(3) {
        let mut place = || draws.between(0.0, SIDE as f64);
        let (x, y) = (place(), place());
        let (radius, strength) = (draws.between(2.5, 4.5), draws.between(17.0, 26.0));
        for (index, depth) in depth.iter_mut().enumerate() {
            let distance = ((index % SIDE) as f64 + 0.5 - x).hypot((index / SIDE) as f64 + 0.5 - y);
            *depth = depth.max(strength * (radius + 0.5 - distance).clamp(0.0, 1.0));
        }
    }
    let sign = if light { -1.0 } else { 1.0 };
    let rgb = picture.rgb.iter().enumerate();
    let rgb = rgb.map(|(index, value)| to_byte(f64::from(*value) + sign * depth[index / 3]));
    Picture { rgb: rgb.collect(), ..*picture }
}

fn to_byte(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}
