//! Key phrases of a text, and copies of it without some of them.
//!
//! Source: Rose et al. 2010, "Automatic keyword extraction from individual documents" (RAKE): a phrase is a run of words between
//! function words and punctuation; a word's score is its degree (the words of all phrases that it stands in) over its
//! frequency, and a phrase's the sum of its words'.
//!
//! Departures: the list of function words is a short English one, so in other languages phrases end at punctuation alone.

use std::collections::BTreeMap;
use std::ops::Range;

/// English function words, sorted.
const FUNCTION_WORDS: [&str; 102] = [
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be",
    "because", "been", "before", "being", "but", "by", "can", "cannot", "could", "did", "do", "does",
    "don't", "for", "from", "had", "has", "have", "he", "her", "him", "his", "how", "i", "if", "in", "into",
    "is", "it", "its", "just", "may", "me", "more", "most", "my", "no", "not", "of", "on", "once", "only",
    "or", "other", "our", "out", "over", "own", "she", "should", "so", "some", "such", "than", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "those", "to", "too", "under", "until", "up",
    "very", "was", "we", "were", "what", "when", "where", "which", "while", "who", "why", "will", "with",
    "would", "yes", "you", "your", "yours", "yourself",
];

/// Bytes of every key phrase of a text, the most important one first; equal ones in the order of the text.
#[must_use]
pub fn key_phrases(text: &str) -> Vec<Range<usize>> {
    let phrases = candidates(text);
    let mut words: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for phrase in &phrases {
        for word in phrase {
            let [frequency, degree] = words.entry(text[word.clone()].to_lowercase()).or_default();
            *frequency += 1;
            *degree += phrase.len();
        }
    }
    let score = |word: &Range<usize>| {
        let [frequency, degree] = words.get(&text[word.clone()].to_lowercase()).copied().unwrap_or([1, 1]);
        degree as f64 / frequency as f64
    };
    let mut scored: Vec<(f64, Range<usize>)> = phrases
        .iter()
        .filter_map(|phrase| {
            let span = phrase.first()?.start..phrase.last()?.end;
            Some((phrase.iter().map(score).sum(), span))
        })
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().map(|(_, span)| span).collect()
}

/// Runs of words that nothing parts.
fn candidates(text: &str) -> Vec<Vec<Range<usize>>> {
    let mut phrases = vec![Vec::new()];
    let mut end = 0;
    for word in words(text) {
        let is_apart = text[end..word.start].chars().any(|c| !c.is_whitespace());
        end = word.end;
        if is_apart {
            phrases.push(Vec::new());
        }
        if FUNCTION_WORDS.binary_search(&text[word.clone()].to_lowercase().as_str()).is_ok() {
            phrases.push(Vec::new());
        } else if let Some(phrase) = phrases.last_mut() {
            phrase.push(word);
        }
    }
    phrases.retain(|phrase| !phrase.is_empty());
    phrases
}

/// Bytes of every word: letters and digits, and apostrophes and hyphens among them.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, first)) = chars.next() {
        if !first.is_alphanumeric() {
            continue;
        }
        let mut end = start + first.len_utf8();
        while let Some((at, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() || ['\'', '’', '-'].contains(c))
        {
            end = at + c.len_utf8();
        }
        words.push(start..end);
    }
    words
}

/// The text without some spans, and without the spaces that they leave behind.
#[must_use]
pub fn without_spans(text: &str, spans: &[Range<usize>]) -> String {
    let mut spans: Vec<&Range<usize>> = spans.iter().collect();
    spans.sort_by_key(|span| span.start);
    let (mut kept, mut from) = (String::new(), 0);
    for span in spans {
        kept += &text[from..span.start.max(from)];
        from = from.max(span.end);
    }
    kept += &text[from..];
    let begins_with_space = text.starts_with(' ');
    let squeezed = kept.split(' ').filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(" ");
    if begins_with_space { format!(" {squeezed}") } else { squeezed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        key_phrases(text).into_iter().map(|span| &text[span]).collect()
    }

    #[test]
    fn phrases_lie_between_function_words_and_punctuation() {
        assert!(FUNCTION_WORDS.is_sorted());
        // Degrees over frequencies: old 4/2, red 3/1, book 5/2, table 1/1; a phrase is their sum.
        assert_eq!(
            found("The old red book and the old book. It is on my table."),
            ["old red book", "old book", "table"]
        );
        assert_eq!(found(" No, sorry; please do not borrow!"), ["sorry", "please", "borrow"]);
        assert!(found("It is so.").is_empty() && found("").is_empty());
        assert_eq!(found("größte Bücher’s-Welt, dann"), ["größte Bücher’s-Welt", "dann"]);
    }

    #[test]
    fn what_is_taken_out_leaves_no_hole() {
        let text = " The old red book is on my table.";
        let phrases = key_phrases(text);
        assert_eq!(without_spans(text, &phrases[..1]), " The is on my table.");
        assert_eq!(without_spans(text, &phrases), " The is on my .");
        assert_eq!(without_spans(text, &[]), text);
    }
}
