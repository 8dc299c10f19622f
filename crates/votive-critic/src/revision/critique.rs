//! What is said of one candidate.

/// What a critic says of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Critique {
    /// Whether nothing is wrong.
    pub is_content: bool,
    /// What is shown, whatever was asked for.
    pub shown: Option<String>,
    /// What is wrong with it.
    pub wrong: Vec<String>,
    /// What to change; none if there is nothing to act on.
    pub instruction: Option<String>,
}

impl Critique {
    /// Minus the number of things that are wrong; if it does not say which, 1 is.
    pub(crate) fn grade(&self) -> f64 {
        0.0 - self.wrong.len().max(usize::from(!self.is_content)) as f64
    }
}
