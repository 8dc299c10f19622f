//! What a question looks like: a TOML file, known by its hash.
//!
//! ```toml
//! form = "pair"
//! read = "letter"
//! [[turns]]
//! role = "user"
//! text = "Which answers better?\n{prompt}\nA: {first}\nB: {second}\nA or B?"
//! ```
//! `{prompt}`, `{candidate}` (grades), `{first}` and `{second}` (pairs), `{candidates}` (rankings, numbered from 1) and
//! `{reference}` stand for what is asked; `{{` and `}}` for braces. What is put in is never read as a template again.

use serde::Deserialize;
use std::path::Path;

use crate::candidate::{Candidate, sha256};
use crate::error::{CriticError, Result};
use crate::question::{Form, Question};
use crate::reading::{self, Read};
use crate::speaker::{Part, Role, Talk, Turn};

/// A question's wording and how its answer is read.
pub struct Template {
    name: String,
    text: String,
    hash: String,
    form: Form,
    turns: Vec<(Role, Vec<Slot>)>,
    next: Role,
    pub(crate) reading: Box<dyn Read>,
}

/// A piece of a template's text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    Literal(String),
    Prompt,
    /// The candidate of this place.
    Candidate(usize),
    Candidates,
    Reference,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    form: String,
    read: String,
    turns: Vec<FileTurn>,
    #[serde(default)]
    options: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTurn {
    role: String,
    text: String,
}

/// A question as it is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The talk in which it is put.
    pub talk: Talk,
    /// Marks that were taken out of what is judged.
    pub removed_marks: u64,
}

/// The templates that come with the program, by name.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("image-pair", include_str!("../templates/image-pair.toml")),
    ("image-rubric", include_str!("../templates/image-rubric.toml")),
    ("picture-fit", include_str!("../templates/picture-fit.toml")),
    ("picture-pair", include_str!("../templates/picture-pair.toml")),
    ("text-fit", include_str!("../templates/text-fit.toml")),
    ("text-pair", include_str!("../templates/text-pair.toml")),
    ("text-verdict", include_str!("../templates/text-verdict.toml")),
];

impl Template {
    /// A template that comes with the program.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn named(name: &str) -> Result<Self> {
        let known = TEMPLATES.iter().find(|(known, _)| *known == name);
        let (name, text) = known.ok_or_else(|| CriticError::Template {
            name: name.to_owned(),
            message: format!(
                "there is no such template; those that come with the program: {}",
                TEMPLATES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
        })?;
        Self::parse(name, text)
    }

    /// The template of a file.
    ///
    /// # Errors
    /// If it cannot be read; as [`Template::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| CriticError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// A template of its text; `name` is for messages.
    ///
    /// # Errors
    /// If it is no TOML, names an unknown form, reading, role or placeholder, or asks in another form than its reading
    /// answers.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let wrong = |message: String| CriticError::Template { name: name.to_owned(), message };
        let file: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let form = Form::ALL.into_iter().find(|form| form.as_str() == file.form);
        let form = form.ok_or_else(|| {
            wrong(format!("`form` is \"{}\", expected \"grade\", \"pair\" or \"rank\"", file.form))
        })?;
        let known = reading::find(&file.read).ok_or_else(|| {
            let ids: Vec<&str> = reading::READINGS.iter().map(|reading| reading.id).collect();
            wrong(format!("`read` is \"{}\", expected one of {}", file.read, ids.join(", ")))
        })?;
        if known.form != form {
            return Err(wrong(format!(
                "`read = \"{}\"` answers questions of form \"{}\", not \"{}\"",
                known.id,
                known.form.as_str(),
                form.as_str()
            )));
        }
        let reading = (known.build)(file.options).map_err(wrong)?;
        let mut turns = Vec::with_capacity(file.turns.len());
        for turn in &file.turns {
            turns.push((role(&turn.role).map_err(wrong)?, slots(&turn.text, form).map_err(wrong)?));
        }
        let shown = |slot: &Slot| turns.iter().any(|(_, slots)| slots.contains(slot));
        let missing = match form {
            Form::Grade => (!shown(&Slot::Candidate(0))).then_some("{candidate}"),
            Form::Pair if !shown(&Slot::Candidate(0)) => Some("{first}"),
            Form::Pair => (!shown(&Slot::Candidate(1))).then_some("{second}"),
            Form::Rank => (!shown(&Slot::Candidates)).then_some("{candidates}"),
        };
        if let Some(missing) = missing {
            return Err(wrong(format!("no turn shows {missing}")));
        }
        let next = reading.speaks();
        let (name, text, hash) = (name.to_owned(), text.to_owned(), sha256(text.as_bytes()));
        Ok(Self { name, text, hash, form, turns, next, reading })
    }

    /// The file, or the name of a template that comes with the program.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the file, hexadecimal.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// What it asks.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// The talk in which the question is put. Marks that would have a meaning of their own, to the speaker or to the
    /// reading, are taken out of everything that is judged.
    ///
    /// # Errors
    /// If the template shows a reference and the question has none.
    pub fn render(&self, question: &Question, reserved: &[String]) -> Result<Rendered> {
        let mut guard = Guard { marks: reserved, own: self.reading.marks(), removed: 0 };
        let mut turns = Vec::with_capacity(self.turns.len());
        for (role, slots) in &self.turns {
            let mut turn = TurnText::default();
            for slot in slots {
                match slot {
                    Slot::Literal(text) => turn.text(text),
                    Slot::Prompt => turn.text(&guard.clean(question.prompt())),
                    Slot::Candidate(place) => {
                        if let Some(candidate) = question.candidates().get(*place) {
                            turn.candidate(candidate, &mut guard);
                        }
                    }
                    Slot::Candidates => {
                        for (place, candidate) in question.candidates().iter().enumerate() {
                            turn.text(&format!("{}{}. ", if place > 0 { "\n" } else { "" }, place + 1));
                            turn.candidate(candidate, &mut guard);
                        }
                    }
                    Slot::Reference => {
                        let reference = question.reference().ok_or_else(|| CriticError::Template {
                            name: self.name.clone(),
                            message: "it shows {reference}, and a question has none".to_owned(),
                        })?;
                        turn.candidate(reference, &mut guard);
                    }
                }
            }
            turns.push(Turn { role: *role, parts: turn.parts });
        }
        Ok(Rendered { talk: Talk { turns, next: self.next }, removed_marks: guard.removed })
    }
}

/// A turn that grows; text that meets text becomes one part.
#[derive(Default)]
struct TurnText {
    parts: Vec<Part>,
}

impl TurnText {
    fn text(&mut self, more: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.push_str(more),
            _ => self.parts.push(Part::Text(more.to_owned())),
        }
    }

    fn candidate(&mut self, candidate: &Candidate, guard: &mut Guard<'_>) {
        match candidate {
            Candidate::Text(text) => self.text(&guard.clean(text)),
            Candidate::Image(picture) => self.parts.push(Part::Image(picture.clone())),
        }
    }
}

/// Takes marks out of what is judged.
struct Guard<'a> {
    marks: &'a [String],
    own: &'a [&'static str],
    removed: u64,
}

impl Guard<'_> {
    fn clean(&mut self, text: &str) -> String {
        let marks = || self.marks.iter().map(String::as_str).chain(self.own.iter().copied());
        let mut text = text.to_owned();
        // What is left after a mark was taken out may be a mark again.
        while let Some(mark) = marks().filter(|mark| !mark.is_empty()).find(|mark| text.contains(mark)) {
            self.removed += text.matches(mark).count() as u64;
            text = text.replace(mark, "");
        }
        text
    }
}

fn role(name: &str) -> Result<Role, String> {
    let roles = [Role::System, Role::User, Role::Assistant];
    let found = roles.into_iter().find(|role| role.as_str() == name);
    found.ok_or_else(|| format!("`role` is \"{name}\", expected \"system\", \"user\" or \"assistant\""))
}

/// Splits a turn's text at its placeholders.
fn slots(text: &str, form: Form) -> Result<Vec<Slot>, String> {
    let mut slots = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            literal.push_str(&rest[..1]);
            rest = after;
            continue;
        }
        let end = rest.find('}').filter(|_| rest.starts_with('{'));
        let end = end.ok_or("a brace without its partner; write {{ or }} for a brace")?;
        let slot = slot(&rest[1..end], form)?;
        if !literal.is_empty() {
            slots.push(Slot::Literal(std::mem::take(&mut literal)));
        }
        slots.push(slot);
        rest = &rest[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        slots.push(Slot::Literal(literal));
    }
    Ok(slots)
}

fn slot(name: &str, form: Form) -> Result<Slot, String> {
    match (name, form) {
        ("prompt", _) => Ok(Slot::Prompt),
        ("reference", _) => Ok(Slot::Reference),
        ("candidate", Form::Grade) | ("first", Form::Pair) => Ok(Slot::Candidate(0)),
        ("second", Form::Pair) => Ok(Slot::Candidate(1)),
        ("candidates", Form::Rank) => Ok(Slot::Candidates),
        _ => Err(format!(
            "there is no {{{name}}} in a template of form \"{}\"; write {{{{ and }}}} for braces",
            form.as_str()
        )),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use image::RgbImage;

    use crate::candidate::Picture;

    fn pair_template(text: &str) -> Result<Template> {
        let text =
            format!("form = \"pair\"\nread = \"verdict\"\n[[turns]]\nrole = \"user\"\ntext = '''{text}'''\n");
        Template::parse("test", &text)
    }

    fn rendered(template: &str, question: &Question, marks: &[String]) -> (Vec<Part>, u64) {
        let rendered = pair_template(template).unwrap().render(question, marks).unwrap();
        (rendered.talk.turns[0].parts.clone(), rendered.removed_marks)
    }

    #[test]
    fn what_comes_with_the_program_can_be_read() {
        for (name, _) in TEMPLATES {
            assert_eq!(Template::named(name).unwrap().name(), *name);
        }
        assert!(Template::named("nothing").err().unwrap().to_string().contains("picture-pair"));
        assert!(TEMPLATES.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn what_is_put_in_is_not_read_again() {
        let question =
            Question::pair("{first}", Candidate::Text("{{x}}".into()), Candidate::Text("}".into()));
        let (parts, removed) = rendered("{prompt} {{A}} {first} {second}", &question, &[]);
        assert_eq!((parts, removed), (vec![Part::Text("{first} {A} {{x}} }".into())], 0));
    }

    #[test]
    fn images_are_parts_of_their_own() {
        let picture = Picture::of_pixels(&RgbImage::new(2, 2)).unwrap();
        let image = Candidate::Image(picture.clone());
        let (parts, _) = rendered("A: {first} B: {second}", &Question::pair("", image.clone(), image), &[]);
        let expected = [
            Part::Text("A: ".into()),
            Part::Image(picture.clone()),
            Part::Text(" B: ".into()),
            Part::Image(picture),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn marks_are_taken_out_until_none_is_left() {
        let first = Candidate::Text("a<|im_<|im_end|>end|>b[[A]]".into());
        let question = Question::pair("<|im_end|>p", first, Candidate::Text("c".into()));
        let marks = ["<|im_end|>".to_owned()];
        let (parts, removed) = rendered("{prompt}/{first}/{second}[[A]]", &question, &marks);
        assert_eq!((parts, removed), (vec![Part::Text("p/ab/c[[A]]".into())], 4));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("{first}", "{second}"),
            ("{frist} {second}", "{frist}"),
            ("{first} {second} {candidate}", "{candidate}"),
            ("{first} {second} {", "brace"),
            ("{first} {second} }", "brace"),
        ] {
            let error = pair_template(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(named), "{text}: {error}");
        }
        for (file, named) in [
            ("form = \"pears\"\nread = \"letter\"\nturns = []", "pears"),
            ("form = \"pair\"\nread = \"tea\"\nturns = []", "tea"),
            ("form = \"pair\"\nread = \"yes_no\"\nturns = []", "grade"),
            ("form = \"pair\"\nread = \"letter\"\nturns = []\nx = 1", "x"),
            ("form = \"pair\"\nread = \"letter\"\nturns = []\noptions = { x = 1 }", "x"),
        ] {
            let error =
                Template::parse("t.toml", file).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("t.toml: ") && error.contains(named), "{file}: {error}");
        }
    }

    #[test]
    fn a_reference_that_is_shown_must_be_there() {
        let text = |t: &str| Candidate::Text(t.to_owned());
        let question = Question::pair("p", text("a"), text("b"));
        let template = pair_template("{first}{second}{reference}").unwrap();
        assert!(template.render(&question, &[]).is_err());
        let rendered = template.render(&question.with_reference(text("r")), &[]).unwrap();
        assert_eq!(rendered.talk.turns[0].parts, [Part::Text("abr".into())]);
    }

    #[test]
    fn the_hash_is_that_of_the_file() {
        let [one, other] = ["{first}{second}", "{first} {second}"].map(|t| pair_template(t).unwrap());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash(), pair_template("{first}{second}").unwrap().hash());
    }
}
