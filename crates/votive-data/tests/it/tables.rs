//! Parquet tables as pyarrow writes them, on the fixtures of `tools/parity/tables.py`, and damaged ones.

use votive_data::{DataError, PairText, TextRecords, TextSource, read_pairs, read_text};

use crate::{Folder, check_message, fixture};

#[test]
fn every_codec_and_page_version_gives_the_rows_of_the_json_lines() {
    let expected = read_pairs(&fixture("tables/rows.jsonl")).unwrap();
    assert_eq!((expected.rows.len(), expected.format), (5, Some("ultrafeedback-binarized")));
    for codec in ["none", "snappy", "gzip", "zstd", "lz4"] {
        let found = read_pairs(&fixture(&format!("tables/{codec}.parquet"))).unwrap();
        assert_eq!(found.rows, expected.rows, "{codec}");
        assert_eq!(found.ignored_columns["tags"], 5, "{codec}");
    }
}

#[test]
fn shards_of_a_hub_folder_are_one_data_set() {
    let expected = read_pairs(&fixture("tables/rows.jsonl")).unwrap();
    let mut source = TextSource::new(fixture("tables/hub"));
    check_message(source.read().unwrap_err(), &["tables/hub", "the splits test, train"]);
    source.split = Some("train".to_owned());
    let TextRecords::Pairs(found) = source.read().unwrap() else { panic!("pairs") };
    assert_eq!(found.rows, expected.rows);
    assert_eq!(found.place(5).1, 2);
    source.split = Some("test".to_owned());
    let TextRecords::Pairs(found) = source.read().unwrap() else { panic!("pairs") };
    assert_eq!(found.rows, expected.rows[..1]);
}

#[test]
fn bytes_are_text_if_they_can_be_and_otherwise_ignored() {
    let records = read_pairs(&fixture("tables/binary.parquet")).unwrap();
    assert!(matches!(&records.rows[1].text, PairText::Plain { prompt, .. } if prompt == "Say"));
    assert_eq!(records.ignored_columns["blob"], 2);
}

#[test]
fn a_file_cut_short_is_named() {
    let folder = Folder::new();
    let whole = std::fs::read(fixture("tables/snappy.parquet")).unwrap();
    for length in [0, 3, 11, 200, whole.len() / 2, whole.len() - 1] {
        let file = folder.write("cut.parquet", &whole[..length]);
        let error = read_text(&file).unwrap_err();
        assert!(matches!(error, DataError::Parquet { .. }), "{length}: {error}");
        check_message(error, &["cut.parquet: after row 0: not a whole Parquet file", "cut short"]);
    }
}

/// A flipped byte may go unnoticed in a text, but it never ends the program.
#[test]
fn damaged_files_are_errors_and_never_panics() {
    let folder = Folder::new();
    let mut noticed = 0;
    for codec in ["none", "snappy", "zstd"] {
        let whole = std::fs::read(fixture(&format!("tables/{codec}.parquet"))).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            let file = folder.write("damaged.parquet", bytes);
            noticed += usize::from(read_text(&file).is_err());
        }
    }
    assert!(noticed > 100, "{noticed}");
}
