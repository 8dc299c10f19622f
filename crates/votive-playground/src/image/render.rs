//! Pictures of scenes: flat shapes that never touch, drawn at four times the size and averaged down.

use votive_tensor::random::Draws;

use super::scene::{Background, Content, Object, Scene, Shape, Size};

/// Width and height of every picture, in pixels.
pub const SIDE: usize = 32;

/// Samples per pixel along each axis.
const OVERSAMPLING: usize = 4;

/// Least distance of an object from the border, in pixels.
const MARGIN: f64 = 2.0;

/// A picture: rows from top to bottom, three bytes (red, green, blue) for each pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

/// An object and where it is: centre of its bounding box and radius, in pixels.
#[derive(Clone, Copy, Debug)]
struct Placed {
    object: Object,
    x: f64,
    y: f64,
    radius: f64,
}

impl Scene {
    /// A picture of the scene; places and exact sizes are drawn at random.
    #[must_use]
    pub fn render(&self, draws: &mut Draws) -> Picture {
        paint(self.background, &self.place(draws))
    }

    fn place(&self, draws: &mut Draws) -> Vec<Placed> {
        match self.content {
            Content::Single { size, object } => vec![place_single(size, object, draws)],
            Content::Count { number, object } => place_equal(number.value(), object, draws),
            Content::Relation { first, relation, second } => {
                place_pair(first, relation.direction(), second, draws)
            }
        }
    }
}

impl Shape {
    /// Half of the width and half of the height of a shape with radius 1. The factors bring the areas of the three
    /// shapes near to each other.
    pub(crate) fn half_extent(self) -> (f64, f64) {
        match self {
            Self::Circle => (1.0, 1.0),
            Self::Square => (0.9, 0.9),
            Self::Triangle => (1.1, 0.95),
        }
    }

    /// Area of the shape with radius 1.
    pub(crate) fn area(self) -> f64 {
        let (half_width, half_height) = self.half_extent();
        match self {
            Self::Circle => std::f64::consts::PI,
            Self::Square => 4.0 * half_width * half_height,
            Self::Triangle => 2.0 * half_width * half_height,
        }
    }

    /// How far the centre of mass of the shape with radius 1 is below the centre of its bounding box.
    pub(crate) fn centroid_below_centre(self) -> f64 {
        if self == Self::Triangle { self.half_extent().1 / 3.0 } else { 0.0 }
    }

    /// Whether the point is inside the shape with radius 1 whose bounding box is centred on the origin (y down).
    pub(crate) fn contains(self, x: f64, y: f64) -> bool {
        let (half_width, half_height) = self.half_extent();
        match self {
            Self::Circle => x * x + y * y <= 1.0,
            Self::Square => x.abs() <= half_width && y.abs() <= half_height,
            Self::Triangle => {
                let from_apex = (y + half_height) / (2.0 * half_height);
                from_apex <= 1.0 && x.abs() <= half_width * from_apex
            }
        }
    }
}

fn place_single(size: Size, object: Object, draws: &mut Draws) -> Placed {
    let radius = match size {
        Size::Small => draws.between(4.3, 5.3),
        Size::Large => draws.between(9.0, 10.5),
    };
    let (half_width, half_height) = object.shape.half_extent();
    let side = SIDE as f64;
    let mut along = |half: f64| draws.between(MARGIN + half * radius, side - MARGIN - half * radius);
    let (x, y) = (along(half_width), along(half_height));
    Placed { object, x, y, radius }
}

/// Equal objects in different quarters of the picture, so that they stay apart.
fn place_equal(count: usize, object: Object, draws: &mut Draws) -> Vec<Placed> {
    let radius = draws.between(4.1, 4.7);
    let mut quarters = [(8.5, 8.5), (23.5, 8.5), (8.5, 23.5), (23.5, 23.5)];
    draws.shuffle(&mut quarters);
    quarters[..count]
        .iter()
        .map(|&(x, y)| Placed {
            object,
            x: x + draws.between(-1.0, 1.0),
            y: y + draws.between(-1.0, 1.0),
            radius,
        })
        .collect()
}

/// Two objects on the two sides of a point near the middle, `direction` being that of the first.
fn place_pair(first: Object, direction: (f64, f64), second: Object, draws: &mut Draws) -> Vec<Placed> {
    let apart = draws.between(15.0, 16.4);
    let (shift_along, shift_across) = (draws.between(-0.4, 0.4), draws.between(-6.0, 6.0));
    let mut at = |object, side: f64| {
        let across = shift_across + draws.between(-1.5, 1.5);
        let along = shift_along + side * apart / 2.0;
        let (dx, dy) = direction;
        let middle = SIDE as f64 / 2.0;
        let (x, y) = (middle + along * dx + across * dy.abs(), middle + along * dy + across * dx.abs());
        Placed { object, x, y, radius: draws.between(4.8, 5.4) }
    };
    vec![at(first, 1.0), at(second, -1.0)]
}

fn paint(background: Background, objects: &[Placed]) -> Picture {
    let mut rgb = Vec::with_capacity(SIDE * SIDE * 3);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let mut pixel = background.rgb().map(f64::from);
            for placed in objects {
                let share = coverage(
                    placed.object.shape,
                    placed.radius,
                    column as f64 - placed.x,
                    row as f64 - placed.y,
                );
                let colour = placed.object.colour.rgb().map(f64::from);
                for (value, target) in pixel.iter_mut().zip(colour) {
                    *value += share * (target - *value);
                }
            }
            rgb.extend(pixel.map(|value| value.round() as u8));
        }
    }
    Picture { width: SIDE, height: SIDE, rgb }
}

/// Share of the pixel whose upper left corner is at `(x, y)` that lies within the shape around the origin.
pub(crate) fn coverage(shape: Shape, radius: f64, x: f64, y: f64) -> f64 {
    let reach = 1.1 * radius + 1.0;
    if x.abs() > reach || y.abs() > reach {
        return 0.0;
    }
    let at = |start: f64, index: usize| (start + (index as f64 + 0.5) / OVERSAMPLING as f64) / radius;
    let inside = (0..OVERSAMPLING * OVERSAMPLING)
        .filter(|index| shape.contains(at(x, index % OVERSAMPLING), at(y, index / OVERSAMPLING)))
        .count();
    inside as f64 / (OVERSAMPLING * OVERSAMPLING) as f64
}
