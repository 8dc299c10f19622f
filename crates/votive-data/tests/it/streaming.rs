//! Text of tokens as they come, and stop strings.

use votive_data::{TextStream, TextTokenizer};

use crate::{Folder, fixture};

/// A vocabulary of all bytes, so that a character may be spread over tokens.
fn tokenizer() -> TextTokenizer {
    TextTokenizer::load(&fixture("../../models/tiny-lm")).unwrap()
}

/// Pushes all tokens; the pieces, the end's piece last.
fn pieces(stream: &mut TextStream, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap().to_owned()).collect();
    pieces.push(stream.finish().unwrap().to_owned());
    pieces
}

#[test]
fn the_pieces_are_the_text() {
    let tokenizer = tokenizer();
    for text in [
        "The cat sat on the mat.",
        "né à Zürich, 東京 🦀🦀",
        "  two  spaces\n\n\ttab ",
        "",
        "\u{fffd}a\u{fffd}",
    ] {
        let ids = tokenizer.encode(text, true).unwrap();
        let mut stream = TextStream::new(&tokenizer, &[]);
        let pieces = pieces(&mut stream, &ids);
        assert_eq!(pieces.concat(), text);
        assert_eq!(stream.text(), tokenizer.decode(&ids, true).unwrap());
        let is_broken = |piece: &&String| piece.contains('\u{fffd}') && !text.contains('\u{fffd}');
        assert_eq!(pieces.iter().find(is_broken), None, "half a character was given out");
    }
    // Any tokens at all, bytes that are no characters among them.
    let ids: Vec<u32> = (0..400).map(|i| (i * 7919 + 13) % tokenizer.vocab_size() as u32).collect();
    let mut stream = TextStream::new(&tokenizer, &[]);
    assert_eq!(pieces(&mut stream, &ids).concat(), stream.text());
}

#[test]
fn a_stop_string_is_held_back_until_it_is_decided_and_cut_off() {
    let tokenizer = tokenizer();
    let stops = ["\n\nUser:".to_owned(), "STOP".to_owned(), String::new()];
    let run = |text: &str| {
        let mut stream = TextStream::new(&tokenizer, &stops);
        let ids = tokenizer.encode(text, false).unwrap();
        let mut given = String::new();
        for id in &ids {
            given.push_str(stream.push(*id).unwrap());
            assert!(stops.iter().all(|stop| stop.is_empty() || !given.contains(stop.as_str())), "{given:?}");
            assert!(!given.ends_with("STO") && !given.ends_with("\n\nUser"), "{given:?}");
            if stream.stopped_by().is_some() {
                break;
            }
        }
        let by = stream.stopped_by().map(str::to_owned);
        (given + stream.finish().unwrap(), by)
    };
    assert_eq!(run("One\n\nUser: two"), ("One".to_owned(), Some("\n\nUser:".to_owned())));
    assert_eq!(run("One STOP\n\nUser: two"), ("One ".to_owned(), Some("STOP".to_owned())));
    assert_eq!(run("SSTOP"), ("S".to_owned(), Some("STOP".to_owned())));
    assert_eq!(run("One\n\nUse it"), ("One\n\nUse it".to_owned(), None));
    // What looked like the start of one at the very end is text after all.
    assert_eq!(run("One STO"), ("One STO".to_owned(), None));
}

#[test]
fn tokens_after_the_stop_string_add_nothing() {
    let tokenizer = tokenizer();
    let stops = ["b".to_owned()];
    let mut stream = TextStream::new(&tokenizer, &stops);
    let given = pieces(&mut stream, &tokenizer.encode("a b c d", false).unwrap());
    assert_eq!((given.concat(), stream.text()), ("a ".to_owned(), "a "));
}

/// A decoder that strips the first space of a text strips none within it.
#[test]
fn spaces_between_words_of_a_sentencepiece_vocabulary_stay() {
    let folder = Folder::new();
    let tokens = ["<unk>", "<s>", "</s>", "\u{2581}a", "\u{2581}b", "c", "<0xC3>", "<0xA9>"];
    let vocab: serde_json::Map<String, serde_json::Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let json = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": vocab, "merges": []},
    });
    folder.write("tokenizer.json", json.to_string());
    let tokenizer = TextTokenizer::load(folder.path()).unwrap();
    let mut stream = TextStream::new(&tokenizer, &[]);
    assert_eq!(pieces(&mut stream, &[3, 4, 5, 6, 7, 4]), ["a", " b", "c", "", "é", " b", ""]);
}
