//! What the lists say of methods and wrappers, compared with what they do.

use votive_objective::{METHODS, WRAPPERS};

#[test]
fn every_file_begins_with_a_description() {
    let methods = METHODS.iter().map(|spec| (spec.id, spec.header(), true));
    let wrappers = WRAPPERS.iter().map(|spec| (spec.name, spec.header(), false));
    for (name, header, is_method) in methods.chain(wrappers) {
        let mut fields = vec![&header.summary, &header.source, &header.loss, &header.departures];
        if is_method {
            fields.push(&header.checked);
        }
        assert!(fields.iter().all(|field| field.ends_with(['.', '`'])), "{name}: {header:?}");
        assert!(header.loss.contains('`'), "{name}: no formula in {}", header.loss);
    }
}

/// Who reads a recipe's options or the list of methods is told what is a guess, and not only who opens the file.
#[test]
fn what_a_header_calls_a_guess_a_title_or_an_option_calls_one() {
    let admits = |text: &str| ["guess", "could not be confirmed"].iter().any(|words| text.contains(words));
    let methods = METHODS.iter().map(|spec| (spec.id, spec.title, spec.header(), spec.options));
    let wrappers = WRAPPERS.iter().map(|spec| (spec.name, spec.title, spec.header(), spec.options));
    let mut guesses = 0;
    for (name, title, header, options) in methods.chain(wrappers) {
        let is_guess = admits(&header.departures) || header.departures.contains("recalled");
        let is_said = admits(title) || options.iter().any(|option| admits(option.doc));
        assert_eq!(is_guess, is_said, "{name}: {} {title} {options:?}", header.departures);
        guesses += usize::from(is_guess);
    }
    assert!(guesses >= 10, "{guesses}");
}
