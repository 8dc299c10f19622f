//! The page's content security policy: its own style and script by hash, images beside it, nothing else.

use sha2::{Digest, Sha256};

/// The policy for a page whose only inline style and script are `style` and `script`; without a script, none may run.
///
/// A hash rather than `'unsafe-inline'`: should text ever slip through unescaped, the browser still refuses to run it.
/// `file:` stands beside `'self'` because a page opened from disk has an origin that `'self'` does not match.
pub(crate) fn content_security_policy(style: &str, script: Option<&str>) -> String {
    let hash = |text: &str| format!("'sha256-{}'", base64(&Sha256::digest(text)));
    format!(
        "default-src 'none'; img-src 'self' file:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(style),
        script.map_or("'none'".to_owned(), hash),
    )
}

/// Base64 with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = (group >> (18 - 6 * position) & 0x3f) as usize;
            text.push(if position > chunk.len() { '=' } else { char::from(ALPHABET[sextet]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_gives_the_test_vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn the_policy_names_hashes_and_no_unsafe_source() {
        let policy = content_security_policy("", Some(""));
        // SHA-256 of nothing, in base64.
        assert!(policy.contains("script-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"));
        assert!(!policy.contains("unsafe"));
        assert!(content_security_policy("", None).contains("script-src 'none';"));
    }
}
