//! Secrets that a program must know to be let in.

use sha2::{Digest, Sha256};

/// 256 random bits, as 64 hexadecimal digits.
pub(crate) struct Secret(String);

impl Secret {
    /// A new one, from the operating system's random numbers.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is the secret. Hashes are compared, so the time that it takes says nothing about the secret.
    pub(crate) fn is(&self, other: &str) -> bool {
        Sha256::digest(&self.0) == Sha256::digest(other)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_know_themselves() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_eq!(one.as_str().len(), 64);
        assert!(
            one.is(one.as_str()) && !one.is(other.as_str()) && !one.is(&one.as_str()[1..]) && !one.is("")
        );
    }
}
