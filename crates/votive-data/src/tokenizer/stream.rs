//! Text of tokens that come one by one, up to a stop string.

use crate::error::Result;
use crate::tokenizer::TextTokenizer;

/// What a decoder writes for bytes that are no character yet.
const INCOMPLETE: char = '\u{FFFD}';

/// The text of a growing row of tokens.
///
/// A piece of text is given out once it is certain: not while it may be the start of a stop string, nor while its last
/// character lacks bytes. Tokens are decoded a few at a time, so that a long text does not take quadratic time.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    stops: &'a [String],
    ids: Vec<u32>,
    /// Tokens before this one are not looked at any more; those between it and `read` only give context.
    context: usize,
    /// Tokens whose text is in `text`.
    read: usize,
    text: String,
    /// Bytes of the text that were given out.
    given: usize,
    stopped_by: Option<&'a str>,
}

impl<'a> TextStream<'a> {
    /// A row without tokens, whose text ends before the first of `stops`; empty ones stop nothing.
    #[must_use]
    pub fn new(tokenizer: &'a TextTokenizer, stops: &'a [String]) -> Self {
        let (ids, text) = (Vec::new(), String::new());
        Self { tokenizer, stops, ids, context: 0, read: 0, text, given: 0, stopped_by: None }
    }

    /// Takes the next token, and gives the text that has become certain by it.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<&str> {
        if self.stopped_by.is_none() {
            self.ids.push(id);
            let new = self.new_text()?;
            if !new.ends_with(INCOMPLETE) {
                self.take(&new);
            }
        }
        Ok(self.give(self.certain()))
    }

    /// Ends the row, and gives the rest of its text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn finish(&mut self) -> Result<&str> {
        if self.stopped_by.is_none() {
            let new = self.new_text()?;
            self.take(&new);
        }
        Ok(self.give(self.text.len()))
    }

    /// The stop string that ended the text.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&'a str> {
        self.stopped_by
    }

    /// All text so far, what was not given out included.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text that the tokens from `read` on add to those before.
    fn new_text(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[self.context..self.read], true)?;
        let with = self.tokenizer.decode(&self.ids[self.context..], true)?;
        Ok(with.get(before.len()..).unwrap_or_default().to_owned())
    }

    fn take(&mut self, new: &str) {
        (self.context, self.read) = (self.read, self.ids.len());
        // A stop string that ends in the new text starts at most its own length before it.
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let mut from = self.text.len().saturating_sub(longest);
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        self.text.push_str(new);
        let found = self.stops.iter().filter(|stop| !stop.is_empty());
        let found = found.filter_map(|stop| Some((self.text[from..].find(stop.as_str())?, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, _)| *at) {
            self.text.truncate(from + at);
            self.stopped_by = Some(stop);
        }
    }

    /// Bytes of the text that no later token can take away.
    fn certain(&self) -> usize {
        if self.stopped_by.is_some() {
            return self.text.len();
        }
        let is_start = |from: &usize| {
            let tail = &self.text[*from..];
            self.stops.iter().any(|stop| stop.len() > tail.len() && stop.starts_with(tail))
        };
        let boundaries = self.text.char_indices().map(|(at, _)| at).filter(|at| *at >= self.given);
        boundaries.into_iter().find(is_start).unwrap_or(self.text.len())
    }

    fn give(&mut self, to: usize) -> &str {
        let from = self.given.min(to);
        self.given = to.max(from);
        &self.text[from..to]
    }
}
