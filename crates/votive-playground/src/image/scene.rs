//! Scenes, and the captions that name them one to one.

use serde::{Deserialize, Serialize};
use votive_tensor::random::Draws;

/// A value of a closed list with one word for each.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$item_doc])* $item),+ }

        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$item),+];

            /// The word that captions use.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$item => $word),+ }
            }

            /// The value that a caption's word names.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == word)
            }
        }
    };
}

words! {
    /// Colour of an object.
    Colour {
        /// Red.
        Red = "red",
        /// Orange.
        Orange = "orange",
        /// Yellow.
        Yellow = "yellow",
        /// Green.
        Green = "green",
        /// Cyan.
        Cyan = "cyan",
        /// Blue.
        Blue = "blue",
        /// Purple.
        Purple = "purple",
    }
}

words! {
    /// Outline of an object.
    Shape {
        /// A disc.
        Circle = "circle",
        /// A square that stands on its side.
        Square = "square",
        /// A triangle that points up.
        Triangle = "triangle",
    }
}

words! {
    /// Size of the only object of a scene.
    Size {
        /// About 10 pixels across.
        Small = "small",
        /// About 20 pixels across.
        Large = "large",
    }
}

words! {
    /// Number of equal objects.
    Number {
        /// 2.
        Two = "two",
        /// 3.
        Three = "three",
    }
}

words! {
    /// Where the first object is, seen from the second.
    Relation {
        /// To the left.
        Left = "left of",
        /// To the right.
        Right = "right of",
        /// Higher.
        Above = "above",
        /// Lower.
        Below = "below",
    }
}

words! {
    /// Colour of everything that is not an object.
    Background {
        /// White.
        White = "white",
        /// Gray.
        Gray = "gray",
        /// Black.
        Black = "black",
    }
}

words! {
    /// Kind of a scene, after GenEval's categories.
    Category {
        /// One object with a size.
        Single = "single",
        /// Two or three equal objects.
        Count = "count",
        /// Two different objects and where they are.
        Relation = "relation",
    }
}

impl Colour {
    /// The colour in sRGB, 0 to 255.
    #[must_use]
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [220, 30, 40],
            Self::Orange => [240, 115, 20],
            Self::Yellow => [245, 220, 45],
            Self::Green => [30, 165, 60],
            Self::Cyan => [45, 205, 225],
            Self::Blue => [40, 75, 215],
            Self::Purple => [160, 50, 195],
        }
    }
}

impl Background {
    /// The colour in sRGB, 0 to 255.
    #[must_use]
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [246, 246, 244],
            Self::Gray => [130, 130, 132],
            Self::Black => [20, 20, 24],
        }
    }
}

impl Number {
    /// The number as such.
    #[must_use]
    pub fn value(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

impl Relation {
    /// The relation seen from the other object.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// Unit vector from the second object to the first; x to the right, y down.
    pub(crate) fn direction(self) -> (f64, f64) {
        match self {
            Self::Left => (-1.0, 0.0),
            Self::Right => (1.0, 0.0),
            Self::Above => (0.0, -1.0),
            Self::Below => (0.0, 1.0),
        }
    }
}

/// A colour and a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: Shape,
}

impl Object {
    /// "red circle".
    pub(crate) fn phrase(self) -> String {
        format!("{} {}", self.colour.word(), self.shape.word())
    }

    /// The object that [`Self::phrase`] names.
    pub(crate) fn from_phrase(phrase: &str) -> Option<Self> {
        let (colour, shape) = phrase.split_once(' ')?;
        Some(Self { colour: Colour::from_word(colour)?, shape: Shape::from_word(shape)? })
    }

    fn all() -> impl Iterator<Item = Self> {
        Colour::ALL.iter().flat_map(|&colour| Shape::ALL.iter().map(move |&shape| Self { colour, shape }))
    }
}

/// What is on the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// One object.
    Single {
        /// Its size.
        size: Size,
        /// The object.
        object: Object,
    },
    /// Equal objects.
    Count {
        /// How many.
        number: Number,
        /// What each of them is.
        object: Object,
    },
    /// Two objects.
    Relation {
        /// The object whose place is told.
        first: Object,
        /// Where it is, seen from the second.
        relation: Relation,
        /// The object it is compared with.
        second: Object,
    },
}

/// Everything that a caption says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scene {
    /// The objects.
    pub content: Content,
    /// What they are on.
    pub background: Background,
}

/// Share of each category among drawn scenes, in the order of [`Category::ALL`].
pub(crate) const CATEGORY_SHARES: [f64; 3] = [0.30, 0.25, 0.45];

impl Scene {
    /// A scene drawn at random: its category by the world's shares, all else evenly.
    #[must_use]
    pub fn draw(draws: &mut Draws) -> Self {
        let content = match Category::ALL[draws.weighted(&CATEGORY_SHARES)] {
            Category::Single => Content::Single { size: *draws.pick(Size::ALL), object: draw_object(draws) },
            Category::Count => {
                Content::Count { number: *draws.pick(Number::ALL), object: draw_object(draws) }
            }
            Category::Relation => {
                let first = draw_object(draws);
                let others: Vec<Object> = Object::all().filter(|object| *object != first).collect();
                let relation = *draws.pick(Relation::ALL);
                Content::Relation { first, relation, second: *draws.pick(&others) }
            }
        };
        Self { content, background: *draws.pick(Background::ALL) }
    }

    /// All scenes that have a caption, in a fixed order.
    pub fn all() -> impl Iterator<Item = Self> {
        Background::ALL
            .iter()
            .flat_map(|&background| all_contents().map(move |content| Self { content, background }))
    }

    /// The category.
    #[must_use]
    pub fn category(&self) -> Category {
        match self.content {
            Content::Single { .. } => Category::Single,
            Content::Count { .. } => Category::Count,
            Content::Relation { .. } => Category::Relation,
        }
    }

    /// The caption, which names this scene and no other.
    #[must_use]
    pub fn caption(&self) -> String {
        let content = match self.content {
            Content::Single { size, object } => format!("a {} {}", size.word(), object.phrase()),
            Content::Count { number, object } => format!("{} {}s", number.word(), object.phrase()),
            Content::Relation { first, relation, second } => {
                format!("{} {} {}", with_article(first), relation.word(), with_article(second))
            }
        };
        format!("{content} on a {} background", self.background.word())
    }

    /// The scene that `caption` names, or `None` if it is not a caption of this world. Letter case, a full stop at the
    /// end and the amount of white space do not matter.
    #[must_use]
    pub fn parse(caption: &str) -> Option<Self> {
        let lower = caption.trim().trim_end_matches('.').to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let [content @ .., "on", "a", background, "background"] = words.as_slice() else { return None };
        Some(Self { content: parse_content(content)?, background: Background::from_word(background)? })
    }

    /// The caption of the scene, or of its mirror image in words: "A right of B" has the key of "B left of A".
    pub(crate) fn key(&self) -> String {
        match self.content {
            Content::Relation { first, relation: relation @ (Relation::Right | Relation::Below), second } => {
                let content =
                    Content::Relation { first: second, relation: relation.inverse(), second: first };
                Self { content, ..*self }.caption()
            }
            _ => self.caption(),
        }
    }
}

fn draw_object(draws: &mut Draws) -> Object {
    Object { colour: *draws.pick(Colour::ALL), shape: *draws.pick(Shape::ALL) }
}

fn all_contents() -> impl Iterator<Item = Content> {
    let singles =
        Size::ALL.iter().flat_map(|&size| Object::all().map(move |object| Content::Single { size, object }));
    let counts = Number::ALL
        .iter()
        .flat_map(|&number| Object::all().map(move |object| Content::Count { number, object }));
    let relations = Relation::ALL.iter().flat_map(|&relation| {
        Object::all().flat_map(move |first| {
            Object::all().filter(move |second| *second != first).map(move |second| Content::Relation {
                first,
                relation,
                second,
            })
        })
    });
    singles.chain(counts).chain(relations)
}

fn with_article(object: Object) -> String {
    let article = if object.colour == Colour::Orange { "an" } else { "a" };
    format!("{article} {}", object.phrase())
}

fn parse_content(words: &[&str]) -> Option<Content> {
    match words {
        ["a", size, colour, shape] => {
            Some(Content::Single { size: Size::from_word(size)?, object: parse_object(colour, shape)? })
        }
        [number, colour, shapes] => Some(Content::Count {
            number: Number::from_word(number)?,
            object: parse_object(colour, shapes.strip_suffix('s')?)?,
        }),
        ["a" | "an", colour, shape, relation @ .., "a" | "an", other_colour, other_shape] => {
            let first = parse_object(colour, shape)?;
            let second = parse_object(other_colour, other_shape)?;
            let relation = Relation::from_word(&relation.join(" "))?;
            (first != second).then_some(Content::Relation { first, relation, second })
        }
        _ => None,
    }
}

fn parse_object(colour: &str, shape: &str) -> Option<Object> {
    Object::from_phrase(&format!("{colour} {shape}"))
}
