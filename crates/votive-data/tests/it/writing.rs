//! What is written is read back; what fails leaves nothing behind.

use serde_json::json;
use votive_data::{
    DataError, ImageDataSource, ImagePair, PreferencePair, RowNumbers, read_pairs, write_image_pairs,
    write_jsonl, write_text_pairs,
};

use crate::{Folder, check_message};

#[test]
fn text_pairs_survive_a_round_trip() {
    let folder = Folder::new();
    let turns = |role: &str, content: &str| json!([{"role": role, "content": content}]);
    let sources = [
        json!({"prompt": "a \u{2028} \"b\"\n", "chosen": "é", "rejected": "c", "weight": 2.0, "margin": 0.5}),
        json!({"chosen": "a b", "rejected": "a c"}),
        json!({"prompt": turns("user", "Hi"), "chosen": turns("assistant", "a"), "rejected": turns("assistant", "b"),
               "tools": [{"name": "f"}], "chat_template_kwargs": {"x": 1}}),
    ];
    for source in sources {
        let source = folder.write("source.jsonl", source.to_string());
        let pairs: Vec<PreferencePair> = read_pairs(&source).unwrap().rows;
        let file = folder.path().join("copy.jsonl");
        write_text_pairs(&file, &pairs).unwrap();
        assert_eq!(read_pairs(&file).unwrap().rows, pairs);
    }
}

#[test]
fn image_pairs_are_written_relative_to_their_file() {
    let folder = Folder::new();
    let image = |name: &str| folder.path().join("images").join(name);
    let elsewhere = std::path::PathBuf::from("/elsewhere/2.png");
    let mut pairs = [ImagePair::new(1, "a cat", image("1.png"), elsewhere)];
    pairs[0].numbers = RowNumbers { weight: Some(0.5), ..RowNumbers::default() };
    pairs[0].origin.models = [Some("xl".into()), None];
    let file = folder.path().join("pairs.jsonl");
    write_image_pairs(&file, &pairs).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        "{\"prompt\":\"a cat\",\"chosen\":\"images/1.png\",\"rejected\":\"/elsewhere/2.png\",\"chosen_model\":\"xl\",\
         \"weight\":0.5}\n"
    );
    assert_eq!(ImageDataSource::new(&file).read().unwrap().rows, pairs);
}

/// A row that cannot be written.
struct Broken;

impl serde::Serialize for Broken {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("the disk is full"))
    }
}

#[test]
fn a_failure_leaves_the_earlier_file_and_nothing_else() {
    let folder = Folder::new();
    let file = folder.write("pairs.jsonl", "earlier\n");
    let error = write_jsonl(&file, [Broken]).unwrap_err();
    assert!(matches!(error, DataError::Write { .. }));
    check_message(error, &["pairs.jsonl", "the disk is full", "unchanged"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "earlier\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no/such/folder.jsonl");
    check_message(write_jsonl(&nowhere, [1]).unwrap_err(), &["folder.jsonl", "cannot be written"]);
}

/// What a link leads to is written; a device and a folder stay what they are.
#[cfg(target_os = "linux")]
#[test]
fn only_a_regular_file_is_replaced() {
    let folder = Folder::new();
    let real = folder.write("real.jsonl", "earlier\n");
    let link = |name: &str, target: &str| {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(target, &link).unwrap();
        link
    };
    let (file, full) = (link("file.jsonl", "real.jsonl"), link("full.jsonl", "/dev/full"));
    write_jsonl(&file, [1, 2]).unwrap();
    assert_eq!(std::fs::read_to_string(&real).unwrap(), "1\n2\n");
    check_message(write_jsonl(&full, [1]).unwrap_err(), &["full.jsonl", "No space left"]);
    check_message(write_jsonl(folder.path(), [1]).unwrap_err(), &["directory"]);
    assert!(file.is_symlink() && full.is_symlink());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}
