//! HTML under construction, in which markup can only be a literal and everything else is escaped.

use std::fmt::{self, Display, Write};

/// A growing piece of HTML. Templates are `&'static str`, so text from a report cannot become markup by mistake.
///
/// # Examples
/// ```
/// use votive_gallery::html::Html;
///
/// let mut html = Html::default();
/// html.put("<p title=\"{}\">{}</p>", &[&"a \"b\"", &"<script>"]);
/// assert_eq!(html.as_str(), "<p title=\"a &quot;b&quot;\">&lt;script&gt;</p>");
/// ```
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Appends `template`, with each `{}` in turn replaced by a value, escaped for text and quoted attributes alike.
    pub fn put(&mut self, template: &'static str, values: &[&dyn Display]) -> &mut Self {
        debug_assert_eq!(
            template.matches("{}").count(),
            values.len(),
            "slots and values differ in {template}"
        );
        let mut values = values.iter();
        for (position, literal) in template.split("{}").enumerate() {
            if position > 0
                && let Some(value) = values.next()
            {
                // Writing to a String cannot fail.
                let _ = write!(Escaped(&mut self.0), "{value}");
            }
            self.0.push_str(literal);
        }
        self
    }

    /// Appends HTML that was built in the same way.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// The markup built so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Writes into a string and escapes on the way. Control characters, which HTML forbids, become U+FFFD.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(character),
                other if other.is_control() => self.0.push(char::REPLACEMENT_CHARACTER),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

/// A relative path as the value of `src` or `href`: every byte that has a meaning in a URL, `:` included, is encoded.
#[derive(Clone, Copy, Debug)]
pub struct RelativeUrl<'a>(pub &'a str);

impl Display for RelativeUrl<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                formatter.write_char(char::from(byte))?;
            } else {
                write!(formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// A number with `decimals` places and a typographic minus.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    value: f64,
    decimals: usize,
    plus: bool,
}

/// `value` to `decimals` places.
#[must_use]
pub fn number(value: f64, decimals: usize) -> Number {
    Number { value, decimals, plus: false }
}

/// `value` to `decimals` places, with its sign even if positive.
#[must_use]
pub fn signed(value: f64, decimals: usize) -> Number {
    Number { value, decimals, plus: true }
}

impl Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.*}", self.decimals, self.value.abs());
        // A value that rounds to zero has no sign.
        let zero = digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
        match (zero, self.value < 0.0, self.plus) {
            (false, true, _) => write!(formatter, "−{digits}"),
            (false, false, true) => write!(formatter, "+{digits}"),
            _ => formatter.write_str(&digits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_escape(text: &str, expected: &str) {
        let mut html = Html::default();
        html.put("<p title=\"{}\">", &[&text]);
        assert_eq!(html.as_str(), format!("<p title=\"{expected}\">"));
    }

    #[test]
    fn text_cannot_leave_an_attribute_or_open_a_tag() {
        check_escape("\"><script>", "&quot;&gt;&lt;script&gt;");
        check_escape("' onload='x&amp;", "&#39; onload=&#39;x&amp;amp;");
        check_escape("nul \0 and \u{1b}", "nul \u{fffd} and \u{fffd}");
        check_escape("{} stays", "{} stays");
    }

    #[test]
    fn urls_encode_whatever_has_a_meaning() {
        assert_eq!(RelativeUrl("images/a b.png").to_string(), "images/a%20b.png");
        assert_eq!(RelativeUrl("javascript:x?#%").to_string(), "javascript%3Ax%3F%23%25");
    }

    #[test]
    fn numbers_have_a_sign_only_if_they_round_to_something() {
        assert_eq!(signed(12.34, 1).to_string(), "+12.3");
        assert_eq!(signed(-12.34, 1).to_string(), "−12.3");
        assert_eq!(signed(-0.04, 1).to_string(), "0.0");
        assert_eq!(number(3.0, 0).to_string(), "3");
    }
}
