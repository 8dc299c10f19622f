//! The exact checker: which parts of a caption a picture satisfies.

use serde::{Deserialize, Serialize};

use super::render::{Picture, SIDE};
use super::scene::{Category, Content, Object, Relation, Scene, Size};
use super::see::{Seen, SeenObject, look};
use crate::PlaygroundError;

/// Radius in pixels of a disc with the area of an object from which the object is large. Small ones have up to 5.4,
/// large ones 7.3 and more.
const LARGE_RADIUS: f64 = 6.3;

/// Least distance of two objects along the axis of their relation, in pixels.
const RELATION_DISTANCE: f64 = 4.0;

/// What the checker says about a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Category of the caption.
    pub category: Category,
    /// Whether the objects have the right shapes.
    pub object: bool,
    /// Whether each object has its colour.
    pub colour: bool,
    /// Whether the number of objects is right.
    pub count: bool,
    /// Whether the objects are where the caption says; only for relations.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relation: Option<bool>,
    /// Whether the object has the right size; only for single objects.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<bool>,
    /// Whether the background is right.
    pub background: bool,
    /// Whether everything is right.
    pub exact: bool,
    /// Share of the parts that are right, among those that apply.
    pub part: f64,
    /// How faded, blurred or stained the picture is, 0 to 1.
    pub ugliness: f64,
    /// What the picture is worth in a comparison: `part + 0.5·exact − 0.4·ugliness`.
    pub utility: f64,
}

/// What is right about the objects.
struct Parts {
    object: bool,
    colour: bool,
    count: bool,
    relation: Option<bool>,
    size: Option<bool>,
}

/// Checks a picture against its caption.
///
/// # Errors
/// [`PlaygroundError::UnknownCaption`] if the caption is not one of this world, [`PlaygroundError::PictureSize`] if the
/// picture does not have [`SIDE`] times [`SIDE`] pixels.
pub fn check(caption: &str, picture: &Picture) -> Result<Verdict, PlaygroundError> {
    let scene = Scene::parse(caption)
        .ok_or_else(|| PlaygroundError::UnknownCaption { caption: caption.to_owned() })?;
    Ok(judge(&scene, &see(picture)?))
}

/// What is to be seen in a picture, whatever its caption.
///
/// # Errors
/// [`PlaygroundError::PictureSize`] if the picture does not have [`SIDE`] times [`SIDE`] pixels.
pub fn see(picture: &Picture) -> Result<Seen, PlaygroundError> {
    let expected = SIDE * SIDE * 3;
    if (picture.width, picture.height, picture.rgb.len()) != (SIDE, SIDE, expected) {
        let (width, height, bytes) = (picture.width, picture.height, picture.rgb.len());
        return Err(PlaygroundError::PictureSize { width, height, bytes, side: SIDE, expected });
    }
    Ok(look(picture))
}

fn judge(scene: &Scene, seen: &Seen) -> Verdict {
    let parts = match scene.content {
        Content::Single { size, object } => {
            let large = seen.objects.iter().all(|seen| seen.radius >= LARGE_RADIUS);
            let small = seen.objects.iter().all(|seen| seen.radius < LARGE_RADIUS);
            let right = !seen.objects.is_empty() && if size == Size::Large { large } else { small };
            Parts { size: Some(right), ..equal_objects(object, 1, &seen.objects) }
        }
        Content::Count { number, object } => equal_objects(object, number.value(), &seen.objects),
        Content::Relation { first, relation, second } => two_objects(first, relation, second, &seen.objects),
    };
    verdict(scene.category(), &parts, seen.background == scene.background, seen.ugliness)
}

fn verdict(category: Category, parts: &Parts, background: bool, ugliness: f64) -> Verdict {
    let applicable: Vec<bool> = [Some(parts.object), Some(parts.colour), Some(parts.count), Some(background)]
        .into_iter()
        .chain([parts.relation, parts.size])
        .flatten()
        .collect();
    let right = applicable.iter().filter(|part| **part).count();
    let exact = right == applicable.len();
    let part = right as f64 / applicable.len() as f64;
    Verdict {
        category,
        object: parts.object,
        colour: parts.colour,
        count: parts.count,
        relation: parts.relation,
        size: parts.size,
        background,
        exact,
        part,
        ugliness,
        utility: part + if exact { 0.5 } else { 0.0 } - 0.4 * ugliness,
    }
}

fn equal_objects(object: Object, count: usize, seen: &[SeenObject]) -> Parts {
    let all = |right: &dyn Fn(&SeenObject) -> bool| !seen.is_empty() && seen.iter().all(right);
    Parts {
        object: all(&|seen| seen.shape == Some(object.shape)),
        colour: all(&|seen| seen.colour == Some(object.colour)),
        count: seen.len() == count,
        relation: None,
        size: None,
    }
}

/// Takes for the two objects those that resemble them most; shape counts for more than colour.
fn two_objects(first: Object, relation: Relation, second: Object, seen: &[SeenObject]) -> Parts {
    let shape = |object: Object, seen: &SeenObject| seen.shape == Some(object.shape);
    let colour = |object: Object, seen: &SeenObject| seen.colour == Some(object.colour);
    let likeness = |object: Object, seen: &SeenObject| {
        3 * usize::from(shape(object, seen)) + 2 * usize::from(colour(object, seen))
    };
    let pairs = seen.iter().enumerate().flat_map(|(index, a)| {
        seen.iter().enumerate().filter(move |(other, _)| *other != index).map(move |(_, b)| (a, b))
    });
    let best = pairs.max_by_key(|(a, b)| likeness(first, a) + likeness(second, b));
    let holds = |right: &dyn Fn(&SeenObject, &SeenObject) -> bool| best.is_some_and(|(a, b)| right(a, b));
    Parts {
        object: holds(&|a, b| shape(first, a) && shape(second, b)),
        colour: holds(&|a, b| colour(first, a) && colour(second, b)),
        count: seen.len() == 2,
        relation: Some(holds(&|a, b| {
            likeness(first, a) > 0 && likeness(second, b) > 0 && is_placed(a, relation, b)
        })),
        size: None,
    }
}

fn is_placed(first: &SeenObject, relation: Relation, second: &SeenObject) -> bool {
    let (dx, dy) = relation.direction();
    let (x, y) = (first.x - second.x, first.y - second.y);
    let (along, across) = (x * dx + y * dy, x * dy - y * dx);
    along > RELATION_DISTANCE && along > across.abs()
}
