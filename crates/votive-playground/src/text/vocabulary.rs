//! The closed word lists of the text world.

use votive_tensor::random::Draws;

/// Animals from small to large.
pub(super) const ANIMALS: &[&str] =
    &["ant", "bee", "mouse", "owl", "cat", "fox", "goat", "wolf", "lion", "horse", "elephant", "whale"];

/// Things that can be carried, lent and written about.
pub(super) const THINGS: &[&str] = &[
    "lamp", "book", "clock", "drum", "ladder", "letter", "mirror", "rope", "boat", "basket", "bell", "broom",
    "candle", "umbrella", "violin", "wagon",
];

/// Places; all take "at the".
pub(super) const PLACES: &[&str] =
    &["lake", "market", "station", "farm", "castle", "harbour", "library", "museum", "school", "beach"];

/// Numbers from zero.
pub(super) const NUMBERS: &[&str] = &[
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
];

/// Days from the first of the week.
pub(super) const DAYS: &[&str] =
    &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Adjectives without a tone.
pub(super) const PLAIN: &[&str] = &["young", "old", "small", "big", "brown", "white", "clever", "strange"];

/// Names of the tones.
pub(super) const TONES: &[&str] = &["cheerful", "gloomy", "spooky", "calm"];

/// For each tone the adjectives that carry it; no adjective is in two lists.
pub(super) const TONE_WORDS: &[&[&str]] = &[
    &["merry", "jolly", "sunny", "happy", "joyful", "lively", "gleeful", "bright"],
    &["sad", "weary", "lonely", "dreary", "tearful", "bleak", "mournful", "grim"],
    &["eerie", "ghostly", "creepy", "haunted", "shadowy", "uncanny", "chilling", "sinister"],
    &["quiet", "gentle", "peaceful", "serene", "mellow", "tranquil", "restful", "placid"],
];

/// Plural names of the categories that lists are made of, each with its members.
pub(super) const CATEGORIES: &[(&str, &[&str])] = &[
    ("animals", ANIMALS),
    ("fruits", &["apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum"]),
    (
        "vegetables",
        &["bean", "cabbage", "carrot", "celery", "leek", "onion", "pea", "potato", "radish", "tomato"],
    ),
    ("colours", &["black", "blue", "brown", "gray", "green", "pink", "purple", "red", "white", "yellow"]),
    ("clothes", &["belt", "boot", "cap", "coat", "dress", "glove", "hat", "scarf", "shirt", "sock"]),
    ("tools", &["axe", "chisel", "drill", "file", "hammer", "pliers", "rake", "saw", "shovel", "wrench"]),
    ("drinks", &["cider", "cocoa", "coffee", "juice", "lemonade", "milk", "soda", "tea", "water", "wine"]),
    (
        "sports",
        &[
            "archery", "boxing", "cricket", "football", "golf", "hockey", "rowing", "rugby", "skiing",
            "tennis",
        ],
    ),
    ("trees", &["ash", "beech", "birch", "cedar", "elm", "fir", "maple", "oak", "pine", "willow"]),
    (
        "instruments",
        &["banjo", "cello", "flute", "guitar", "harp", "oboe", "organ", "piano", "trumpet", "tuba"],
    ),
    (
        "rooms",
        &["attic", "bathroom", "bedroom", "cellar", "garage", "hall", "kitchen", "office", "pantry", "study"],
    ),
    ("metals", &["brass", "bronze", "copper", "gold", "iron", "lead", "nickel", "silver", "steel", "tin"]),
];

/// Nouns of one sound for each rhyme.
pub(super) const RHYMES: &[&[&str]] = &[
    &["hay", "clay", "bay", "tray", "day"],
    &["tree", "sea", "knee", "key", "bumblebee"],
    &["moon", "spoon", "balloon", "lagoon", "tune"],
    &["hat", "mat", "flat", "vat", "doormat"],
    &["light", "night", "knight", "sight", "kite"],
    &["hill", "mill", "windmill", "sill", "thrill"],
    &["rain", "train", "chain", "grain", "lane"],
    &["stone", "bone", "throne", "cone", "phone"],
];

/// The number that a word stands for.
pub(super) fn number(word: &str) -> Option<usize> {
    NUMBERS.iter().position(|number| *number == word)
}

/// An entry of `list` drawn at random.
pub(super) fn one_of(list: &[&'static str], draws: &mut Draws) -> &'static str {
    list[draws.below(list.len())]
}

/// `count` different entries of `list` in random order; fewer if the list is shorter.
pub(super) fn sample(list: &[&'static str], count: usize, draws: &mut Draws) -> Vec<&'static str> {
    let mut shuffled = list.to_vec();
    draws.shuffle(&mut shuffled);
    shuffled.truncate(count);
    shuffled
}

/// An entry of `list` other than `current`.
pub(super) fn another(list: &[&'static str], current: &str, draws: &mut Draws) -> &'static str {
    let others: Vec<&'static str> = list.iter().copied().filter(|entry| *entry != current).collect();
    one_of(&others, draws)
}

/// One of the adjectives of a tone.
pub(super) fn tone_word(tone: &str, draws: &mut Draws) -> &'static str {
    let index = TONES.iter().position(|name| *name == tone).unwrap_or_default();
    one_of(TONE_WORDS[index], draws)
}

/// Whether the words carry the tone and no other.
pub(super) fn has_tone(tone: &str, words: &[String]) -> bool {
    TONES
        .iter()
        .zip(TONE_WORDS)
        .all(|(name, list)| words.iter().any(|word| list.contains(&word.as_str())) == (*name == tone))
}
