//! Items as they are listed and shown: no image is read for it.

use rusqlite::params;
use serde::Deserialize;
use serde_json::Value;

use super::Store;
use crate::candidate::sha256;
use crate::error::Result;
use crate::judgment::Winner;
use crate::question::question_sha256;

/// A candidate or a reference, an image by its hash alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// Words.
    Text(String),
    /// SHA-256 of a stored image, hexadecimal.
    Image(String),
}

impl Shown {
    fn sha256(&self) -> String {
        match self {
            Self::Text(text) => sha256(text.as_bytes()),
            Self::Image(hash) => hash.clone(),
        }
    }
}

/// A stored question without its images.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Its number in the store.
    pub id: i64,
    /// What the candidates answer.
    pub prompt: String,
    /// The candidates in the order in which they were added.
    pub candidates: Vec<Shown>,
    /// An answer that is known to be right.
    pub reference: Option<Shown>,
    /// What its maker says of it.
    pub origin: Value,
}

impl Outline {
    /// The hash of the question, as [`Question::sha256`](crate::Question::sha256) gives it; `is_reversed` for the one
    /// whose candidates come in the other order.
    #[must_use]
    pub fn question_sha256(&self, is_reversed: bool) -> String {
        let mut candidates: Vec<String> = self.candidates.iter().map(Shown::sha256).collect();
        if is_reversed {
            candidates.reverse();
        }
        question_sha256(&self.prompt, candidates.into_iter(), self.reference.as_ref().map(Shown::sha256))
    }

    /// Who wins in truth, if the item's maker knows: `truth` in its origin, as `"first"`, `"second"` or `"tie"`.
    #[must_use]
    pub fn truth(&self) -> Option<Winner> {
        truth(&self.origin)
    }
}

fn truth(origin: &Value) -> Option<Winner> {
    Winner::deserialize(origin.get("truth")?).ok()
}

impl Store {
    /// An item without its images, if there is one of this number.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn outline(&self, id: i64) -> Result<Option<Outline>> {
        let sql = "SELECT prompt, origin FROM item WHERE id = ?1";
        let found = self.rows(sql, [id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let Some((prompt, origin)) = found.into_iter().next() else { return Ok(None) };
        let (mut candidates, mut reference) = (Vec::new(), None);
        type Place = (i64, Option<String>, Option<String>);
        let sql = "SELECT place, text, image FROM candidate WHERE item = ?1 ORDER BY place";
        let places: Vec<Place> = self.rows(sql, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for (place, text, image) in places {
            let shown = text.map_or_else(|| Shown::Image(image.unwrap_or_default()), Shown::Text);
            if place < 0 { reference = Some(shown) } else { candidates.push(shown) }
        }
        Ok(Some(Outline { id, prompt, candidates, reference, origin: self.origin(id, &origin)? }))
    }

    /// The numbers of items whose prompt has `words` in it, in the order in which they were added: at most `limit` of
    /// them from the one at `offset` on, and how many there are in all.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn search(&self, words: &str, offset: u64, limit: u64) -> Result<(Vec<i64>, u64)> {
        let sql = "SELECT id FROM item WHERE instr(lower(prompt), lower(?1)) > 0 OR ?1 = ''
                   ORDER BY id LIMIT ?2 OFFSET ?3";
        let clamped = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let found = self.rows(sql, params![words, clamped(limit), clamped(offset)], |row| row.get(0))?;
        let sql = "SELECT count(*) FROM item WHERE instr(lower(prompt), lower(?1)) > 0 OR ?1 = ''";
        let total: Vec<i64> = self.rows(sql, [words], |row| row.get(0))?;
        Ok((found, total.first().map_or(0, |total| *total as u64)))
    }

    /// The numbers of items with two candidates, in the order in which they were added.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn pair_numbers(&self) -> Result<Vec<i64>> {
        let sql =
            "SELECT item FROM candidate WHERE place >= 0 GROUP BY item HAVING count(*) = 2 ORDER BY item";
        self.rows(sql, [], |row| row.get(0))
    }

    /// The numbers of items with two candidates and no reference.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn pairs_without_reference(&self) -> Result<Vec<i64>> {
        let sql = "SELECT item FROM candidate GROUP BY item HAVING sum(place >= 0) = 2 AND min(place) >= 0 ORDER BY item";
        self.rows(sql, [], |row| row.get(0))
    }

    /// Who wins in truth, of every item of which that is known.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn truths(&self) -> Result<Vec<(i64, Winner)>> {
        let known = |(id, _, origin): (i64, String, Value)| truth(&origin).map(|truth| (id, truth));
        Ok(self.origins()?.into_iter().filter_map(known).collect())
    }

    /// The name of a template that was kept, by its hash.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn template_name(&self, sha256: &str) -> Result<Option<String>> {
        let found = self.rows("SELECT name FROM template WHERE sha256 = ?1", [sha256], |row| row.get(0))?;
        Ok(found.into_iter().next())
    }

    pub(super) fn origin(&self, id: i64, text: &str) -> Result<Value> {
        serde_json::from_str(text).map_err(|error| self.damaged(format!("the origin of item {id}: {error}")))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::candidate::{Candidate, Picture};
    use crate::question::Question;
    use image::RgbImage;
    use serde_json::json;

    #[test]
    fn an_outline_has_the_hash_of_its_question() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("store.sqlite")).unwrap();
        let picture = Candidate::Image(Picture::of_pixels(&RgbImage::new(2, 3)).unwrap());
        let question = Question::pair("Prompt", picture.clone(), Candidate::Text("t".into()));
        for question in [question.clone().with_reference(picture.clone()), question] {
            let id = store.add(&question, &json!({"truth": "second"})).unwrap();
            let outline = store.outline(id).unwrap().unwrap();
            assert_eq!(outline.question_sha256(false), question.sha256());
            assert_eq!(outline.question_sha256(true), question.reversed().sha256());
            assert_eq!(outline.candidates, [Shown::Image(picture.sha256()), Shown::Text("t".into())]);
            assert_eq!(outline.truth(), Some(Winner::Second));
        }
        assert_eq!(store.outline(99).unwrap(), None);
    }

    #[test]
    fn items_are_found_by_their_words_and_pairs_by_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("store.sqlite")).unwrap();
        let text = |text: &str| Candidate::Text(text.to_owned());
        store.add(&Question::grade("A 100% cat", text("x")), &json!(null)).unwrap();
        store.add(&Question::pair("a dog", text("x"), text("y")), &json!({"truth": "tie"})).unwrap();
        store.add(&Question::pair("another DOG", text("x"), text("y")), &json!({"truth": 3})).unwrap();
        assert_eq!(store.search("Dog", 0, 1).unwrap(), (vec![2], 2));
        assert_eq!(store.search("dog", 1, 9).unwrap(), (vec![3], 2));
        assert_eq!(store.search("0%", 0, 9).unwrap(), (vec![1], 1));
        assert_eq!(store.search("", 0, 9).unwrap(), (vec![1, 2, 3], 3));
        assert_eq!(store.pair_numbers().unwrap(), [2, 3]);
        assert_eq!(store.truths().unwrap(), [(2, Winner::Tie)]);
    }
}
