//! The pieces of a SentencePiece model, as far as they say how text is cut.
//!
//! Source: `sentencepiece_model.proto`: field 1 of the message are the pieces (1 text, 2 score, 3 kind), field 3 is the
//! normalizer (3 whether a space is put before a text); the wire format is that of protocol buffers.

use super::llama_cpp::TokenKind;

/// A piece with its score.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: TokenKind,
}

/// What is read of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SentencePieceModel {
    pub(super) pieces: Vec<Piece>,
    pub(super) add_space: bool,
}

/// Reads a model; none if the bytes are not one.
pub(super) fn parse(bytes: &[u8]) -> Option<SentencePieceModel> {
    let mut model = SentencePieceModel { pieces: Vec::new(), add_space: true };
    for field in fields(bytes)? {
        match field {
            (1, Wire::Bytes(bytes)) => model.pieces.push(piece(bytes)?),
            (3, Wire::Bytes(bytes)) => {
                for field in fields(bytes)? {
                    if let (3, Wire::Number(add)) = field {
                        model.add_space = add != 0;
                    }
                }
            }
            _ => {}
        }
    }
    (!model.pieces.is_empty()).then_some(model)
}

fn piece(bytes: &[u8]) -> Option<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: TokenKind::Normal };
    for field in fields(bytes)? {
        match field {
            (1, Wire::Bytes(text)) => piece.text = String::from_utf8(text.to_vec()).ok()?,
            (2, Wire::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (3, Wire::Number(kind)) => piece.kind = token_kind(kind)?,
            _ => {}
        }
    }
    Some(piece)
}

fn token_kind(number: u64) -> Option<TokenKind> {
    use TokenKind::{Byte, Control, Normal, Unknown, Unused, UserDefined};
    [Normal, Unknown, Control, UserDefined, Unused, Byte].into_iter().find(|kind| *kind as u64 == number)
}

/// The value of a field.
enum Wire<'a> {
    Number(u64),
    Four([u8; 4]),
    Bytes(&'a [u8]),
    Eight,
}

/// The fields of a message with their numbers; none if it is cut off or malformed.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = number(&mut bytes)?;
        let value = match key & 7 {
            0 => Wire::Number(number(&mut bytes)?),
            1 => {
                bytes = bytes.get(8..)?;
                Wire::Eight
            }
            2 => {
                let length = usize::try_from(number(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk::<4>()?;
                bytes = rest;
                Wire::Four(*value)
            }
            _ => return None,
        };
        found.push((key >> 3, value));
    }
    Some(found)
}

/// A number of seven bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0x0a, text.len() as u8];
        bytes.extend(text.as_bytes());
        bytes.push(0x15);
        bytes.extend(score.to_le_bytes());
        bytes.extend([0x18, kind]);
        [vec![0x0a, bytes.len() as u8], bytes].concat()
    }

    #[test]
    fn pieces_scores_and_the_space_before_a_text() {
        // The trainer's settings, field 2, are passed over.
        let settings = vec![0x12, 0x02, 0x08, 0x01];
        let normalizer = vec![0x1a, 0x02, 0x18, 0x00];
        let model = [piece("<unk>", 0.0, 2), settings, piece("\u{2581}a", -1.5, 1), normalizer].concat();
        let expected = |text: &str, score, kind| Piece { text: text.to_owned(), score, kind };
        let pieces =
            [expected("<unk>", 0.0, TokenKind::Unknown), expected("\u{2581}a", -1.5, TokenKind::Normal)];
        assert_eq!(parse(&model), Some(SentencePieceModel { pieces: pieces.to_vec(), add_space: false }));
    }

    #[test]
    fn what_is_no_model_is_none() {
        let whole = piece("abc", 1.0, 1);
        assert!((0..whole.len()).all(|end| parse(&whole[..end]).is_none()));
        assert!(parse(&[0xff; 40]).is_none());
        assert!(parse(&piece("a", 0.0, 9)).is_none());
    }
}
