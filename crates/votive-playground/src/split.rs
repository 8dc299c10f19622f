//! Which prompts are kept out of training, decided by a stable hash of the prompt itself.

use serde::{Deserialize, Serialize};

/// A part of a world's prompts. The three parts are disjoint, and only [`Split::Train`] occurs in training examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Prompts that training examples are made of.
    Train,
    /// Held-out prompts on which settings are chosen.
    Select,
    /// Held-out prompts on which results are reported.
    Test,
}

impl Split {
    /// The part that `key` belongs to, when `held_out_share` of all keys is kept out of training: two thirds of those
    /// for the test, one third for selection.
    pub(crate) fn of(key: &str, held_out_share: f64) -> Self {
        let position = stable_hash(key) as f64 / 2f64.powi(64);
        if position >= held_out_share {
            Self::Train
        } else if position >= held_out_share / 3.0 {
            Self::Test
        } else {
            Self::Select
        }
    }
}

/// FNV-1a over the bytes, with MurmurHash3's finalizer, because FNV's high bits alone are poorly mixed on short keys.
fn stable_hash(key: &str) -> u64 {
    let fnv = key
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_the_hash_never_changes() {
        let keys: Vec<String> = (0..30_000).map(|index| format!("key {index}")).collect();
        let count = |split| keys.iter().filter(|key| Split::of(key, 0.3) == split).count();
        assert!((20_600..21_400).contains(&count(Split::Train)), "{}", count(Split::Train));
        assert!((5_700..6_300).contains(&count(Split::Test)), "{}", count(Split::Test));
        assert!((2_800..3_200).contains(&count(Split::Select)), "{}", count(Split::Select));
        assert_eq!(stable_hash(""), 0xEFD0_1F60_BA99_2926);
    }
}
