//! What the head of a method's file says: the one place where a method is described, for readers of the code and of lists.

/// The description at the head of a method's or wrapper's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name and, in a few words, what it is.
    pub summary: String,
    /// Papers and code that it comes from.
    pub source: String,
    /// What is minimised, with its symbols.
    pub loss: String,
    /// What differs from a method that is better known, and that method's name.
    pub against: Option<(String, String)>,
    /// Where it departs from its source, and what is a guess.
    pub departures: String,
    /// What it was compared with.
    pub checked: String,
}

const SOURCE: &str = "Source";
const LOSS: &str = "Loss";
const DEPARTURES: &str = "Departures";
const CHECKED: &str = "Checked against";
const AGAINST: &str = "Against ";

impl Header {
    /// Reads the `//!` lines at the head of a source text.
    pub(crate) fn of(source: &str) -> Self {
        let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
        let mut fields: Vec<(&str, String)> = vec![("", String::new())];
        for line in lines.filter(|line| !line.is_empty()) {
            let field = line.split_once(": ").filter(|(name, _)| {
                [SOURCE, LOSS, DEPARTURES, CHECKED].contains(name) || name.starts_with(AGAINST)
            });
            match (field, fields.last_mut()) {
                (Some((name, text)), _) => fields.push((name, text.to_owned())),
                (None, Some((_, text))) if text.is_empty() => line.clone_into(text),
                (None, Some((_, text))) => *text = format!("{text} {line}"),
                (None, None) => {}
            }
        }
        let field = |wanted: &str| {
            let found = fields.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, text)| without_links(text)).unwrap_or_default()
        };
        let against = fields.iter().find_map(|(name, text)| {
            name.strip_prefix(AGAINST).map(|method| (method.to_owned(), without_links(text)))
        });
        Self {
            summary: field(""),
            source: field(SOURCE),
            loss: field(LOSS),
            against,
            departures: field(DEPARTURES),
            checked: field(CHECKED),
        }
    }
}

/// A text whose links to items of the code, which lead nowhere outside of it, are their words alone.
fn without_links(text: &str) -> String {
    let mut pieces = text.split("](");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match (piece.split_once(')'), plain.rfind('[')) {
            (Some((target, rest)), Some(start)) if target.contains("::") => {
                plain.remove(start);
                plain += rest;
            }
            _ => plain = format!("{plain}]({piece}"),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_the_code_are_their_words() {
        let text =
            "This is [`dpo`](super::dpo) with [`nll`](crate::wrap::nll), see [x] and [here](https://a.b/c).";
        let plain = "This is `dpo` with `nll`, see [x] and [here](https://a.b/c).";
        assert_eq!(without_links(text), plain);
    }

    #[test]
    fn fields_go_on_over_lines_and_end_where_the_next_begins() {
        let source = "//! A method (AM): what it is.\n//!\n//! Source: a paper,\n//! its page.\n//! Loss: `x²`.\n//! More.\n\
                      //! Against DPO: not\n//! convex.\n//! Departures: none.\n\nuse x;\n//! Checked against: nothing.\n";
        let header = Header::of(source);
        assert_eq!(header.summary, "A method (AM): what it is.");
        assert_eq!(header.source, "a paper, its page.");
        assert_eq!(header.loss, "`x²`. More.");
        assert_eq!(header.against, Some(("DPO".to_owned(), "not convex.".to_owned())));
        assert_eq!((header.departures.as_str(), header.checked.as_str()), ("none.", ""));
    }
}
