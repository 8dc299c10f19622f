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
//!
//! A template that asks for a critique (`read = "critique"`) may also say what is done about it: `[edit]` makes an edit of an
//! image of it, `[[revision]]` are the turns that ask for a better text, with `{prompt}`, `{candidate}` and `{critique}`.

use serde::Deserialize;
use std::path::Path;

use crate::candidate::sha256;
use crate::error::{CriticError, Result};
use crate::question::{Form, Question};
use crate::reading::{self, Read};
use crate::revision::{Critique, Edit, EditRule};
use crate::speaker::{Role, Talk};
use crate::wording::{FileTurn, Filling, Guard, Places, Slot, Wording};

/// A question's wording and how its answer is read.
pub struct Template {
    name: String,
    text: String,
    hash: String,
    form: Form,
    turns: Wording,
    next: Role,
    edit: Option<EditRule>,
    revision: Option<Wording>,
    pub(crate) reading: Box<dyn Read>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    form: String,
    read: String,
    turns: Vec<FileTurn>,
    #[serde(default)]
    options: toml::Table,
    edit: Option<EditRule>,
    revision: Option<Vec<FileTurn>>,
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
    ("image-critique", include_str!("../templates/image-critique.toml")),
    ("image-pair", include_str!("../templates/image-pair.toml")),
    ("image-reference", include_str!("../templates/image-reference.toml")),
    ("image-rubric", include_str!("../templates/image-rubric.toml")),
    ("image-rubric-flex", include_str!("../templates/image-rubric-flex.toml")),
    ("picture-critique", include_str!("../templates/picture-critique.toml")),
    ("picture-fit", include_str!("../templates/picture-fit.toml")),
    ("picture-pair", include_str!("../templates/picture-pair.toml")),
    ("picture-verdict", include_str!("../templates/picture-verdict.toml")),
    ("text-critique", include_str!("../templates/text-critique.toml")),
    ("text-fit", include_str!("../templates/text-fit.toml")),
    ("text-pair", include_str!("../templates/text-pair.toml")),
    ("text-reference", include_str!("../templates/text-reference.toml")),
    ("text-reference-score", include_str!("../templates/text-reference-score.toml")),
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
        let turns = Wording::parse(&file.turns, Places::Question(form)).map_err(wrong)?;
        let shown = |slot: &Slot| turns.shows(slot);
        let missing = match form {
            Form::Grade => (!shown(&Slot::Candidate(0))).then_some("{candidate}"),
            Form::Pair if !shown(&Slot::Candidate(0)) => Some("{first}"),
            Form::Pair => (!shown(&Slot::Candidate(1))).then_some("{second}"),
            Form::Rank => (!shown(&Slot::Candidates)).then_some("{candidates}"),
        };
        if let Some(missing) = missing {
            return Err(wrong(format!("no turn shows {missing}")));
        }
        let revision = file.revision.as_deref().map(|turns| Wording::parse(turns, Places::Revision));
        let revision = revision.transpose().map_err(wrong)?;
        if (file.edit.is_some() || revision.is_some()) && known.id != reading::CRITIQUE {
            let message = format!("`[edit]` and `[[revision]]` go with `read = \"{}\"`", reading::CRITIQUE);
            return Err(wrong(message));
        }
        if revision.as_ref().is_some_and(|revision| !revision.shows(&Slot::Critique)) {
            return Err(wrong("no turn of `[[revision]]` shows {critique}".to_owned()));
        }
        let (next, edit) = (reading.speaks(), file.edit);
        let (name, text, hash) = (name.to_owned(), text.to_owned(), sha256(text.as_bytes()));
        Ok(Self { name, text, hash, form, turns, next, edit, revision, reading })
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

    /// Whether it shows an answer that is known to be right.
    #[must_use]
    pub fn shows_reference(&self) -> bool {
        self.turns.shows(&Slot::Reference)
    }

    /// The talk in which the question is put. Marks that would have a meaning of their own, to the speaker or to the
    /// reading, are taken out of everything that is judged.
    ///
    /// # Errors
    /// If the template shows a reference and the question has none.
    pub fn render(&self, question: &Question, reserved: &[String]) -> Result<Rendered> {
        self.filled(&self.turns, &Filling { question, critique: None }, reserved, self.next)
    }

    /// What a critique in words says, if this template asks for critiques.
    ///
    /// # Errors
    /// What keeps the words from being read, in words.
    #[must_use]
    pub fn critique(&self, words: &str) -> Option<Result<Critique, String>> {
        self.reading.critique(words)
    }

    /// What to do about an image: none if this template makes no edits, or the critique leaves nothing to act on.
    #[must_use]
    pub fn edit(&self, prompt: &str, critique: &Critique) -> Option<Edit> {
        self.edit.as_ref()?.edit(prompt, critique)
    }

    /// Whether critiques become edits of images.
    #[must_use]
    pub fn edits_images(&self) -> bool {
        self.edit.is_some()
    }

    /// Whether critiques become requests for a better text.
    #[must_use]
    pub fn revises_texts(&self) -> bool {
        self.revision.is_some()
    }

    /// The talk that asks for a better text than the candidate of `question`, of which `critique` was said; none if this
    /// template has no such turns.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render_revision(
        &self,
        question: &Question,
        critique: &str,
        reserved: &[String],
    ) -> Result<Option<Rendered>> {
        let filling = Filling { question, critique: Some(critique) };
        let filled = |turns| self.filled(turns, &filling, reserved, Role::Assistant);
        self.revision.as_ref().map(filled).transpose()
    }

    fn filled(
        &self,
        turns: &Wording,
        filling: &Filling<'_>,
        reserved: &[String],
        next: Role,
    ) -> Result<Rendered> {
        let mut guard = Guard { marks: reserved, own: self.reading.marks(), removed: 0 };
        let turns = turns.fill(filling, &mut guard);
        let turns = turns.map_err(|message| CriticError::Template { name: self.name.clone(), message })?;
        Ok(Rendered { talk: Talk { turns, next }, removed_marks: guard.removed })
    }
}

impl Template {
    /// What other judges said, told to one of them; and how many marks were taken out of it.
    pub(crate) fn told(&self, others: &[String], reserved: &[String]) -> (String, u64) {
        let mut guard = Guard { marks: reserved, own: self.reading.marks(), removed: 0 };
        let said: Vec<String> = others.iter().map(|words| guard.clean(words)).collect();
        let told = format!(
            "Other judges said:\n\n{}\n\nSay whether that changes your mind, and give your verdict again as before.",
            said.join("\n\n---\n\n")
        );
        (told, guard.removed)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use image::RgbImage;

    use crate::candidate::{Candidate, Picture};
    use crate::speaker::Part;

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
            (
                "form = \"grade\"\nread = \"yes_no\"\nturns = [{ role = \"user\", text = \"{candidate}\" }]\nrevision = []",
                "read = \"critique\"",
            ),
            (
                "form = \"grade\"\nread = \"critique\"\nturns = [{ role = \"user\", text = \"{candidate}\" }]\nrevision = []",
                "{critique}",
            ),
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
