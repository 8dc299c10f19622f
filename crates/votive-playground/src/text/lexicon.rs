//! The words that free sentences are made of, so that a garbled word is noticed.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::pattern::words;
use super::vocabulary::{ANIMALS, PLACES, PLAIN, RHYMES, THINGS, TONE_WORDS};
use super::{polite, rhyme, short, story};

static LEXICON: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let lists = [ANIMALS, THINGS, PLACES, PLAIN];
    lists
        .iter()
        .chain(TONE_WORDS)
        .chain(RHYMES)
        .chain(polite::TEXTS)
        .chain(rhyme::TEXTS)
        .chain(short::TEXTS)
        .chain(story::TEXTS)
        .flat_map(|texts| texts.iter().flat_map(|text| words(text)))
        .collect()
});

/// Whether every one of the words occurs in some answer of this world.
pub(super) fn all_known(words: &[String]) -> bool {
    words.iter().all(|word| LEXICON.contains(word))
}
