//! Sentences with holes, used both to write a text and to read it back, and the words of an answer.

/// `pattern` with its holes `{}` filled in order.
pub(super) fn fill(pattern: &str, slots: &[&str]) -> String {
    let mut literals = pattern.split("{}");
    let mut text = literals.next().unwrap_or_default().to_owned();
    for (slot, literal) in slots.iter().zip(literals) {
        text.push_str(slot);
        text.push_str(literal);
    }
    text
}

/// What stands in the `N` holes of `pattern` in `text`, each hole as short as possible, or `None` if the text does not
/// fit.
pub(super) fn slots<'text, const N: usize>(pattern: &str, text: &'text str) -> Option<[&'text str; N]> {
    let mut literals = pattern.split("{}");
    let mut rest = text.strip_prefix(literals.next()?)?;
    let literals: Vec<&str> = literals.collect();
    let mut found = Vec::with_capacity(N);
    for (index, literal) in literals.iter().enumerate() {
        let end = if index + 1 == literals.len() {
            rest.ends_with(literal).then(|| rest.len() - literal.len())?
        } else {
            rest.find(literal)?
        };
        found.push(&rest[..end]);
        rest = &rest[end + literal.len()..];
    }
    found.try_into().ok()
}

/// The words in lower case: runs of letters and apostrophes.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphabetic() && letter != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The noun, perhaps with adjectives before it, after "a" or "an".
pub(super) fn with_article(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {phrase}")
}

/// The phrase without its "a" or "an", or `None` if that is not the right article.
pub(super) fn without_article(phrase: &str) -> Option<&str> {
    let (_, noun) = phrase.split_once(' ')?;
    (with_article(noun) == phrase).then_some(noun)
}

/// `text` with its first letter in upper case.
pub(super) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The entry of a closed list that equals `word`.
pub(super) fn known(list: &[&'static str], word: &str) -> Option<&'static str> {
    list.iter().copied().find(|entry| *entry == word)
}

/// Whether `words` hold `wanted` and no other entry of `list`.
pub(super) fn only(list: &[&str], wanted: &str, words: &[String]) -> bool {
    words.iter().any(|word| word == wanted)
        && !words.iter().any(|word| word != wanted && list.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_what_was_filled_in() {
        let text = fill("Name {} {}. Include {}.", &["two", "pieces of clothing", "scarf"]);
        assert_eq!(text, "Name two pieces of clothing. Include scarf.");
        assert_eq!(slots("Name {} {}. Include {}.", &text), Some(["two", "pieces of clothing", "scarf"]));
        assert_eq!(slots::<2>("Name {} {}.", "Name two"), None);
        assert_eq!(slots::<3>("Name {} {}.", "Name two apples."), None);
    }

    #[test]
    fn articles_follow_the_sound() {
        assert_eq!(with_article("owl"), "an owl");
        assert_eq!(without_article("an eerie fox"), Some("eerie fox"));
        assert_eq!(without_article("a owl"), None);
    }
}
