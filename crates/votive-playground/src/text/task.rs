//! The instruction families as one type.

use serde::{Deserialize, Serialize};
use votive_tensor::random::Draws;

use super::{
    count::Count, list::List, order::Order, polite::Polite, rhyme::Rhyme, short::Short, story::Story,
    turn::Turn,
};

/// What every family of instructions can do.
pub(super) trait Instruction: Sized {
    /// An instruction drawn at random.
    fn draw(draws: &mut Draws) -> Self;

    /// The instruction in words; [`Self::parse`] is the inverse.
    fn prompt(&self) -> String;

    /// The instruction that `prompt` states. May accept more than [`Self::prompt`] writes; the caller compares.
    fn parse(prompt: &str) -> Option<Self>;

    /// An answer that satisfies every constraint.
    fn right_answer(&self, draws: &mut Draws) -> String;

    /// An answer that violates at least one constraint.
    fn flawed_answer(&self, draws: &mut Draws) -> String;

    /// Each constraint and whether `answer` satisfies it.
    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)>;
}

macro_rules! families {
    ($($(#[$doc:meta])* $family:ident($task:ty): share $share:literal, flawed $flawed:literal;)+) => {
        /// A family of instructions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Family { $($(#[$doc])* $family),+ }

        impl Family {
            /// All families.
            pub const ALL: &[Self] = &[$(Self::$family),+];
            const SHARES: &[f64] = &[$($share),+];

            /// Probability that a training answer of this family is flawed.
            #[must_use]
            pub fn flaw_rate(self) -> f64 {
                match self { $(Self::$family => $flawed),+ }
            }
        }

        /// An instruction.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Task(Spec);

        #[derive(Clone, Debug, PartialEq, Eq)]
        enum Spec { $($family($task)),+ }

        impl Task {
            /// An instruction drawn at random: its family by the world's shares.
            #[must_use]
            pub fn draw(draws: &mut Draws) -> Self {
                match Family::ALL[draws.weighted(Family::SHARES)] {
                    $(Family::$family => Self(Spec::$family(<$task>::draw(draws)))),+
                }
            }

            /// The instruction that `prompt` states, or `None` if it is not one of this world.
            #[must_use]
            pub fn parse(prompt: &str) -> Option<Self> {
                let prompt = prompt.trim();
                $(if let Some(task) = <$task>::parse(prompt).filter(|task| task.prompt() == prompt) {
                    return Some(Self(Spec::$family(task)));
                })+
                None
            }

            /// The family.
            #[must_use]
            pub fn family(&self) -> Family {
                match self.0 { $(Spec::$family(_) => Family::$family),+ }
            }

            /// The instruction in words.
            #[must_use]
            pub fn prompt(&self) -> String {
                match &self.0 { $(Spec::$family(task) => task.prompt()),+ }
            }

            /// An answer drawn at random. If `flawed`, it violates at least one constraint, else none.
            #[must_use]
            pub fn answer(&self, draws: &mut Draws, flawed: bool) -> String {
                match &self.0 {
                    $(Spec::$family(task) if flawed => task.flawed_answer(draws),
                      Spec::$family(task) => task.right_answer(draws)),+
                }
            }

            pub(super) fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
                match &self.0 { $(Spec::$family(task) => task.constraints(answer)),+ }
            }
        }
    };
}

families! {
    /// Name members of a category.
    List(List): share 2.0, flawed 0.35;
    /// Put words into an order.
    Order(Order): share 1.5, flawed 0.60;
    /// Tell a short story.
    Story(Story): share 3.0, flawed 0.42;
    /// Reply politely.
    Polite(Polite): share 2.0, flawed 0.60;
    /// Describe something within a number of words.
    Short(Short): share 2.0, flawed 0.40;
    /// Write two lines that rhyme.
    Rhyme(Rhyme): share 1.5, flawed 0.50;
    /// Turn a sentence about two shapes around.
    Turn(Turn): share 2.0, flawed 0.40;
    /// Count shapes.
    Count(Count): share 1.5, flawed 0.35;
}
