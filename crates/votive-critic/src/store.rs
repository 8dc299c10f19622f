//! Everything that was judged and everything that was said of it, in one SQLite file.
//!
//! ```text
//! item (prompt, reference, what its maker says of it) ─ candidates, in order ─ blobs (stored images, by SHA-256)
//!   ─ judgments (who, which draw, what was found; withdrawn or not) ─ evidence (order shown, words, template, cost)
//! ```
//! A judgment is one transaction: after a crash it is there with all of its evidence, or not at all. Nothing is changed once
//! it is written, but that a judgment may be withdrawn.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use crate::candidate::{Candidate, Picture};
use crate::error::{CriticError, Result};
use crate::judgment::{Cost, Evidence, Finding, Judgment};
use crate::question::Question;
use crate::template::Template;

/// Number of the layout below, kept in SQLite's `user_version`.
const VERSION: i64 = 1;

const LAYOUT: &str = "
    CREATE TABLE blob (sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE template (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE item (
        id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL, origin TEXT NOT NULL
    ) STRICT;
    -- place -1 is the reference
    CREATE TABLE candidate (
        item INTEGER NOT NULL REFERENCES item(id), place INTEGER NOT NULL, text TEXT, image TEXT REFERENCES blob(sha256),
        PRIMARY KEY (item, place), CHECK ((text IS NULL) <> (image IS NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE judgment (
        id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES item(id), judge TEXT NOT NULL, draw INTEGER NOT NULL,
        finding TEXT NOT NULL, at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')), withdrawn INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE UNIQUE INDEX judged ON judgment (item, judge, draw) WHERE withdrawn = 0;
    CREATE TABLE evidence (
        judgment INTEGER NOT NULL REFERENCES judgment(id), n INTEGER NOT NULL, judge TEXT NOT NULL, question TEXT NOT NULL,
        is_reversed INTEGER NOT NULL, template TEXT, draw INTEGER NOT NULL, words TEXT NOT NULL, removed_marks INTEGER NOT NULL,
        finding TEXT NOT NULL, calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL, PRIMARY KEY (judgment, n)
    ) STRICT, WITHOUT ROWID;
";

/// A file of items and judgments.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
}

/// A question as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its number in the store.
    pub id: i64,
    /// The question, its candidates in the order in which they were added.
    pub question: Question,
    /// What its maker says of it: models, seeds, the truth if it is known.
    pub origin: Value,
}

/// A judgment as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredJudgment {
    /// Its number in the store.
    pub id: i64,
    /// What it is of.
    pub item: i64,
    /// Whose it is.
    pub judge: String,
    /// Which of the judge's draws it is.
    pub draw: u64,
    /// When it was written, RFC 3339, UTC.
    pub at: String,
    /// What was found, and what it rests on.
    pub judgment: Judgment,
}

impl Store {
    /// Opens a store, or makes an empty one.
    ///
    /// # Errors
    /// If the file cannot be opened, is no store, or one of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).map_err(|source| failed(path, source))?;
        let mut store = Self { path: path.to_owned(), connection };
        store.prepare().map_err(|source| failed(path, source))?;
        let version = store.version().map_err(|source| failed(path, source))?;
        if version == VERSION {
            return Ok(store);
        }
        let message = format!("its layout is number {version}, and this program reads number {VERSION}");
        Err(CriticError::Store { path: store.path, message })
    }

    fn prepare(&mut self) -> rusqlite::Result<()> {
        // Several programs may read while one writes, and what was acknowledged survives a loss of power.
        self.connection.busy_timeout(Duration::from_secs(30))?;
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        self.connection.pragma_update(None, "foreign_keys", true)?;
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let tables: i64 =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            transaction.execute_batch(LAYOUT)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()
    }

    fn version(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn within<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let path = self.path.clone();
        let immediate = rusqlite::TransactionBehavior::Immediate;
        let run = || {
            let transaction = self.connection.transaction_with_behavior(immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        run().map_err(|source| failed(&path, source))
    }

    /// Adds a question and gives its number; one that is there already keeps its number and origin.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, question: &Question, origin: &Value) -> Result<i64> {
        self.within(|transaction| {
            let hash = question.sha256();
            let known =
                transaction.query_row("SELECT id FROM item WHERE sha256 = ?1", [&hash], |row| row.get(0));
            if let Some(id) = known.optional()? {
                return Ok(id);
            }
            transaction.execute(
                "INSERT INTO item (sha256, prompt, origin) VALUES (?1, ?2, ?3)",
                params![hash, question.prompt(), origin.to_string()],
            )?;
            let id = transaction.last_insert_rowid();
            for (place, candidate) in (0_i64..).zip(question.candidates()) {
                put(transaction, id, place, candidate)?;
            }
            question.reference().map_or(Ok(()), |reference| put(transaction, id, -1, reference))?;
            Ok(id)
        })
    }

    /// Keeps a template, so that its hash in evidence can be read.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep_template(&mut self, template: &Template) -> Result<()> {
        self.within(|transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO template (sha256, name, text) VALUES (?1, ?2, ?3)",
                params![template.hash(), template.name(), template.text()],
            )?;
            Ok(())
        })
    }

    /// Writes what a judge says of an item, and gives the judgment's number.
    ///
    /// # Errors
    /// If the file cannot be written, there is no such item, or the judge has judged it with this draw and not withdrawn it.
    pub fn record(&mut self, item: i64, judge: &str, draw: u64, judgment: &Judgment) -> Result<i64> {
        let finding = json(&judgment.finding);
        self.within(|transaction| {
            transaction.execute(
                "INSERT INTO judgment (item, judge, draw, finding) VALUES (?1, ?2, ?3, ?4)",
                params![item, judge, draw as i64, finding],
            )?;
            let id = transaction.last_insert_rowid();
            let mut insert = transaction.prepare_cached(
                "INSERT INTO evidence (judgment, n, judge, question, is_reversed, template, draw, words, removed_marks, finding,
                 calls, input_tokens, output_tokens, seconds) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?;
            for (n, one) in (0_i64..).zip(&judgment.evidence) {
                insert.execute(params![
                    id,
                    n,
                    one.judge,
                    one.question,
                    one.is_reversed,
                    one.template,
                    one.draw as i64,
                    one.words,
                    one.removed_marks as i64,
                    json(&one.finding),
                    one.cost.calls as i64,
                    one.cost.input_tokens as i64,
                    one.cost.output_tokens as i64,
                    one.cost.seconds,
                ])?;
            }
            Ok(id)
        })
    }

    /// Withdraws a judgment: it stays in the file and counts no more. False if there is none that counts.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn withdraw(&mut self, judgment: i64) -> Result<bool> {
        self.within(|transaction| {
            let sql = "UPDATE judgment SET withdrawn = 1 WHERE id = ?1 AND withdrawn = 0";
            Ok(transaction.execute(sql, [judgment])? == 1)
        })
    }

    /// All items, in the order in which they were added.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn items(&self) -> Result<Vec<Item>> {
        self.item_numbers()?.into_iter().map(|id| self.item(id)).collect()
    }

    /// The numbers of all items, in the order in which they were added.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn item_numbers(&self) -> Result<Vec<i64>> {
        self.rows("SELECT id FROM item ORDER BY id", [], |row| row.get(0))
    }

    /// The item of a number.
    ///
    /// # Errors
    /// If there is none, or the file is damaged.
    pub fn item(&self, id: i64) -> Result<Item> {
        let found = self.rows("SELECT prompt, origin FROM item WHERE id = ?1", [id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let (prompt, origin) =
            found.into_iter().next().ok_or_else(|| self.damaged(format!("it has no item {id}")))?;
        let sql = "SELECT c.place, c.text, b.bytes FROM candidate c LEFT JOIN blob b ON b.sha256 = c.image
                   WHERE c.item = ?1 ORDER BY c.place";
        type Place = (i64, Option<String>, Option<Vec<u8>>);
        let places: Vec<Place> = self.rows(sql, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let (mut candidates, mut reference) = (Vec::new(), None);
        for (place, text, bytes) in places {
            let candidate = match (text, bytes) {
                (Some(text), _) => Candidate::Text(text),
                (None, bytes) => {
                    let name = format!("{}, item {id}, candidate {place}", self.path.display());
                    Candidate::Image(Picture::new(bytes.unwrap_or_default(), &name)?)
                }
            };
            if place < 0 { reference = Some(candidate) } else { candidates.push(candidate) }
        }
        let question = Question::rank(prompt, candidates)
            .ok_or_else(|| self.damaged(format!("item {id} has no candidates")))?;
        let question = match reference {
            Some(reference) => question.with_reference(reference),
            None => question,
        };
        let origin = serde_json::from_str(&origin)
            .map_err(|error| self.damaged(format!("the origin of item {id}: {error}")))?;
        Ok(Item { id, question, origin })
    }

    /// A stored image by the SHA-256 of its bytes.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn image(&self, sha256: &str) -> Result<Option<Picture>> {
        let found =
            self.rows("SELECT bytes FROM blob WHERE sha256 = ?1", [sha256], |row| row.get::<_, Vec<u8>>(0))?;
        found.into_iter().next().map(|bytes| Picture::new(bytes, sha256)).transpose()
    }

    /// Whether a judge has judged an item with this draw.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn is_judged(&self, item: i64, judge: &str, draw: u64) -> Result<bool> {
        let sql = "SELECT 1 FROM judgment WHERE item = ?1 AND judge = ?2 AND draw = ?3 AND withdrawn = 0";
        Ok(!self.rows(sql, params![item, judge, draw as i64], |_| Ok(()))?.is_empty())
    }

    /// All judges who have judged anything, by name.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn judges(&self) -> Result<Vec<String>> {
        self.rows("SELECT DISTINCT judge FROM judgment WHERE withdrawn = 0 ORDER BY judge", [], |row| {
            row.get(0)
        })
    }

    /// The judgments of an item, or of a judge, or all: those that were not withdrawn, in the order in which they came.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn judgments(&self, item: Option<i64>, judge: Option<&str>) -> Result<Vec<StoredJudgment>> {
        let sql = "SELECT id, item, judge, draw, finding, at FROM judgment WHERE withdrawn = 0
                   AND (?1 IS NULL OR item = ?1) AND (?2 IS NULL OR judge = ?2) ORDER BY id";
        type Line = (i64, i64, String, i64, String, String);
        let lines: Vec<Line> = self.rows(sql, params![item, judge], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })?;
        let whole = |(id, item, judge, draw, finding, at): Line| {
            let judgment = Judgment { finding: self.finding(&finding)?, evidence: self.evidence(id)? };
            Ok(StoredJudgment { id, item, judge, draw: draw as u64, at, judgment })
        };
        lines.into_iter().map(whole).collect()
    }

    fn evidence(&self, judgment: i64) -> Result<Vec<Evidence>> {
        let sql = "SELECT judge, question, is_reversed, template, draw, words, removed_marks, finding,
                   calls, input_tokens, output_tokens, seconds FROM evidence WHERE judgment = ?1 ORDER BY n";
        let read = |row: &Row<'_>| {
            let cost = Cost {
                calls: row.get::<_, i64>(8)? as u64,
                input_tokens: row.get::<_, i64>(9)? as u64,
                output_tokens: row.get::<_, i64>(10)? as u64,
                seconds: row.get(11)?,
            };
            let evidence = Evidence {
                judge: row.get(0)?,
                question: row.get(1)?,
                is_reversed: row.get(2)?,
                template: row.get(3)?,
                draw: row.get::<_, i64>(4)? as u64,
                words: row.get(5)?,
                removed_marks: row.get::<_, i64>(6)? as u64,
                finding: Finding::Preference(0.5),
                cost,
            };
            Ok((evidence, row.get::<_, String>(7)?))
        };
        let found = self.rows(sql, [judgment], read)?;
        found.into_iter().map(|(one, found)| Ok(Evidence { finding: self.finding(&found)?, ..one })).collect()
    }

    fn finding(&self, text: &str) -> Result<Finding> {
        serde_json::from_str(text).map_err(|error| self.damaged(format!("a finding is {text}: {error}")))
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let run =
            || self.connection.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<_>>();
        run().map_err(|source| failed(&self.path, source))
    }

    fn damaged(&self, message: String) -> CriticError {
        CriticError::Store { path: self.path.clone(), message }
    }
}

fn put(transaction: &Transaction<'_>, item: i64, place: i64, candidate: &Candidate) -> rusqlite::Result<()> {
    let (text, image) = match candidate {
        Candidate::Text(text) => (Some(text.as_str()), None),
        Candidate::Image(picture) => {
            let hash = candidate.sha256();
            let sql = "INSERT OR IGNORE INTO blob (sha256, bytes) VALUES (?1, ?2)";
            transaction.execute(sql, params![hash, picture.bytes()])?;
            (None, Some(hash))
        }
    };
    let sql = "INSERT INTO candidate (item, place, text, image) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![item, place, text, image])?;
    Ok(())
}

fn json(finding: &Finding) -> String {
    // A finding has no map whose keys could fail.
    serde_json::to_string(finding).unwrap_or_default()
}

fn failed(path: &Path, source: rusqlite::Error) -> CriticError {
    CriticError::Store { path: path.to_owned(), message: source.to_string() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::judgment::Abstention;
    use image::RgbImage;
    use serde_json::json;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.sqlite")).unwrap();
        (folder, store)
    }

    fn judgment(finding: Finding) -> Judgment {
        Judgment::of(Evidence {
            judge: "inner".to_owned(),
            question: "abc".to_owned(),
            is_reversed: true,
            template: Some("t".to_owned()),
            draw: u64::MAX,
            words: "because ' \" \u{0} ☃".to_owned(),
            removed_marks: 2,
            finding,
            cost: Cost { calls: 1, input_tokens: 2, output_tokens: 3, seconds: 0.1 + 0.2 },
        })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (_folder, mut store) = store();
        let picture = Candidate::Image(Picture::of_pixels(&RgbImage::new(2, 3)).unwrap());
        let question = Question::pair("p'", picture.clone(), Candidate::Text("t".into()))
            .with_reference(picture.clone());
        let id = store.add(&question, &json!({"seed": 3})).unwrap();
        assert_eq!(store.add(&question, &json!(null)).unwrap(), id);
        let other = store.add(&question.reversed(), &json!(null)).unwrap();
        assert_ne!(other, id);
        assert_eq!(store.items().unwrap()[0], Item { id, question, origin: json!({"seed": 3}) });
        assert_eq!(store.image(&picture.sha256()).unwrap().map(Candidate::Image), Some(picture));
        assert_eq!(store.image("../store.sqlite").unwrap(), None);

        for (draw, finding) in [
            Finding::Preference(0.1 + 0.2),
            Finding::Ranking(vec![1, 0]),
            Finding::Grade(-1e300),
            Finding::Abstention(Abstention::Malformed("?".into())),
            Finding::Abstention(Abstention::OrderFlip),
        ]
        .into_iter()
        .enumerate()
        {
            let written = judgment(finding);
            store.record(id, "j", draw as u64, &written).unwrap();
            let read = store.judgments(Some(id), Some("j")).unwrap().pop().unwrap();
            assert_eq!((read.judgment, read.draw), (written, draw as u64));
        }
        assert!(store.is_judged(id, "j", 4).unwrap() && !store.is_judged(other, "j", 4).unwrap());
        assert_eq!(store.judges().unwrap(), ["j"]);
    }

    #[test]
    fn a_judge_judges_an_item_once_unless_it_is_withdrawn() {
        let (_folder, mut store) = store();
        let id = store.add(&Question::grade("p", Candidate::Text("t".into())), &json!(null)).unwrap();
        let first = store.record(id, "j", 0, &judgment(Finding::Grade(1.0))).unwrap();
        assert!(store.record(id, "j", 0, &judgment(Finding::Grade(2.0))).is_err());
        assert!(store.record(id + 1, "j", 0, &judgment(Finding::Grade(2.0))).is_err());
        assert!(store.withdraw(first).unwrap() && !store.withdraw(first).unwrap());
        store.record(id, "j", 0, &judgment(Finding::Grade(2.0))).unwrap();
        let left = store.judgments(None, None).unwrap();
        assert_eq!(
            left.iter().map(|one| one.judgment.finding.clone()).collect::<Vec<_>>(),
            [Finding::Grade(2.0)]
        );
    }

    #[test]
    fn two_programs_may_write() {
        let (_folder, mut store) = store();
        let mut other = Store::open(store.path()).unwrap();
        let of = |text: &str| Question::grade("p", Candidate::Text(text.into()));
        store.add(&of("a"), &json!(null)).unwrap();
        other.add(&of("b"), &json!(null)).unwrap();
        assert_eq!(store.item_numbers().unwrap(), other.item_numbers().unwrap());
    }

    #[test]
    fn a_file_that_is_no_store_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(
            &path,
            "not a store, and longer than the header of a file of SQLite has to be for it to be read",
        )
        .unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("notes.txt"), "{error}");
        let (_folder, store) = store();
        store.connection.pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(store.path()).unwrap_err().to_string();
        assert!(error.contains("99"), "{error}");
    }
}
