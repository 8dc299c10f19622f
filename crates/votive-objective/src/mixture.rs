//! A weighted sum of objectives, each averaged in its own way.
//!
//! Source: trl's `loss_type` lists; Pang et al. 2024, arXiv:2404.19733, Eq. 1 is DPO + SFT, Wang et al. 2024,
//! arXiv:2411.10442, Eq. 4 (MPO) is DPO + BCO + SFT.

use crate::needs::Needs;
use crate::spec::{MethodSpec, Objective, Reduction};

/// One objective of a mixture.
#[derive(Debug)]
pub struct Term {
    /// Its method.
    pub spec: &'static MethodSpec,
    /// With its options.
    pub objective: Objective,
    /// What its mean counts in the whole loss.
    pub weight: f64,
    /// What the sum of its losses over a step is divided by.
    pub reduction: Reduction,
}

/// What a row of data holds for an objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompletionFacts {
    /// Whether it is chosen, or labelled desirable.
    pub is_desirable: bool,
    /// Its length in tokens, as objectives count it.
    pub tokens: f64,
}

impl Term {
    /// What the sum of this term's losses over a step's rows is divided by; 0 if none of them has a loss.
    ///
    /// Each row is the completions that belong together: two of a pair, one of an example.
    pub fn denominator(&self, rows: &[Vec<CompletionFacts>]) -> f64 {
        let reads_all = self.objective.reads_undesirable();
        let has_loss = |completion: &&CompletionFacts| completion.is_desirable || reads_all;
        let completions = || rows.iter().flatten().filter(has_loss);
        match (self.reduction, &self.objective) {
            (Reduction::Sum, _) => 1.0,
            (Reduction::Tokens, _) => completions().map(|completion| completion.tokens).sum(),
            (Reduction::Mean, Objective::Pair(_) | Objective::List(_)) => rows.len() as f64,
            (Reduction::Mean, Objective::Unpaired(_)) => completions().count() as f64,
        }
    }
}

/// The objective of a run.
#[derive(Debug)]
pub struct Mixture(Vec<Term>);

impl Mixture {
    /// The sum of some terms.
    #[must_use]
    pub fn new(terms: Vec<Term>) -> Self {
        Self(terms)
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.0
    }

    /// What any term reads.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.0.iter().fold(Needs::NONE, |needs, term| needs.or(term.objective.needs()))
    }

    /// Whether any term compares whole lists of completions.
    #[must_use]
    pub fn reads_lists(&self) -> bool {
        self.0.iter().any(|term| matches!(term.objective, Objective::List(_)))
    }

    /// Whether completions that are not desirable have a loss under any term.
    #[must_use]
    pub fn reads_undesirable(&self) -> bool {
        self.0.iter().any(|term| term.objective.reads_undesirable())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::registry::find;

    #[test]
    fn what_each_term_is_divided_by() {
        let facts = |is_desirable, tokens| CompletionFacts { is_desirable, tokens };
        let rows = [vec![facts(true, 3.0), facts(false, 5.0)], vec![facts(true, 2.0), facts(false, 7.0)]];
        for (id, [mean, sum, tokens]) in
            [("dpo", [2.0, 1.0, 17.0]), ("kto", [4.0, 1.0, 17.0]), ("sft", [2.0, 1.0, 5.0])]
        {
            let spec = find(id).unwrap();
            for (reduction, expected) in
                [(Reduction::Mean, mean), (Reduction::Sum, sum), (Reduction::Tokens, tokens)]
            {
                let objective = (spec.build)((spec.defaults)()).unwrap();
                let term = Term { spec, objective, weight: 1.0, reduction };
                assert_eq!(term.denominator(&rows), expected, "{id} {reduction:?}");
            }
        }
    }
}
