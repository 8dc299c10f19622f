//! Rounds of labelling and training, and what came of them.

use super::super::labels::{Labelled, Labeller, win};
use super::super::{Failure, Outcome};
use super::{Setting, align, report};
use std::path::Path;
use votive_critic::Candidate;
use votive_eval::{Outcome as Graded, paired_gain, share};
use votive_gallery::{Labels, ModalityReport, Round, Settings, Side};
use votive_playground::image::LEAST_DIFFERENCE;

/// Seeds of a round's prompts and samples are that far from those of the round before.
const ROUND_SEEDS: u64 = 1 << 10;

/// A world in which a model is aligned.
pub(super) trait Learner {
    /// A model, ready to be asked.
    type Model;
    /// Its answers to the held-out prompts.
    type Answers;

    /// The recipe, as it is shipped.
    const RECIPE: &'static str;

    /// Loads a model.
    fn load(&self, folder: &Path) -> Outcome<Self::Model>;

    /// Draws samples of training prompts from a model, labels them, and writes pairs below `out`.
    fn label(&self, model: &Self::Model, by: (&Labeller, f64), seed: u64, out: &Path) -> Outcome<Labelled>;

    /// The held-out prompts.
    fn tests(&self) -> &[String];

    /// The first of the seeds with which they are answered; the same for every model.
    fn first_test_seed(&self) -> u64;

    /// How they are answered, for the report.
    fn settings(&self) -> Settings;

    /// A model's answers to them.
    fn answer(&self, model: &Self::Model) -> Outcome<Self::Answers>;

    /// What the exact checker says of the answers.
    fn grade(&self, answers: &Self::Answers) -> Outcome<Vec<Graded>>;

    /// The answers as judges see them.
    fn candidates(&self, answers: &Self::Answers) -> Outcome<Vec<Candidate>>;

    /// An answer in the gallery.
    fn show(&self, i: usize, is_aligned: bool, answers: &Self::Answers) -> Side;

    /// Writes what the gallery shows of the first answers.
    fn save(&self, shown: usize, before: &Self::Answers, after: &Self::Answers) -> Outcome;
}

/// Answers with what truth and labeller say of them.
struct Judged<A> {
    answers: A,
    truth: Vec<Graded>,
    utilities: Vec<Option<f64>>,
}

/// Aligns a model in rounds, and compares what came of it with the base.
pub(super) fn run<L: Learner>(
    learner: &L,
    setting: &Setting,
    (labeller, flipped): (&Labeller, f64),
) -> Outcome<ModalityReport> {
    let ctx = setting.ctx;
    let judged = |model: &L::Model| -> Outcome<Judged<L::Answers>> {
        let answers = learner.answer(model)?;
        let truth = learner.grade(&answers)?;
        let utilities = labeller.utilities(learner.tests(), &learner.candidates(&answers)?, ctx)?;
        Ok(Judged { answers, truth, utilities })
    };
    let mut model = learner.load(&setting.model)?;
    let mut folder = setting.model.clone();
    let base = judged(&model)?;
    let mut last = None;
    let (mut rounds, mut training, mut pairs) = (Vec::new(), Vec::new(), 0);
    for round in 0..setting.rounds.get() {
        let out = match round {
            0 => setting.out.clone(),
            later => setting.out.join(format!("round-{}", later + 1)),
        };
        std::fs::create_dir_all(&out).map_err(|error| Failure::file(&out, error))?;
        let seed = setting.seed + round * ROUND_SEEDS;
        let labelled = learner.label(&model, (labeller, flipped), seed, &out)?;
        let run = align(L::RECIPE, &folder, &labelled.file, &out, setting)?;
        folder = run.final_folder();
        model = learner.load(&folder)?;
        let after = judged(&model)?;
        rounds.push(compare(labeller, &labelled, &base, &after, setting.seed));
        training.extend(report::training(run.path(), training.len() as u64)?);
        pairs += labelled.pairs;
        last = Some(after);
    }
    let after = last.ok_or_else(|| Failure::usage("--rounds: there is nothing to do"))?;
    let content = |i: usize, is_aligned: bool| {
        learner.show(i, is_aligned, if is_aligned { &after.answers } else { &base.answers })
    };
    let (tests, first) = (learner.tests(), learner.first_test_seed());
    let mut part = report::compare(tests, (&base.truth, &after.truth), first, setting.seed, &content);
    learner.save(part.entries.len(), &base.answers, &after.answers)?;
    part.settings = learner.settings();
    part.labels = Some(Labels { source: labeller.name().to_owned(), pairs, flipped });
    part.rounds = rounds;
    part.training = training;
    Ok(part)
}

/// Wins of a round's model over the base, by the labeller and in truth.
fn compare<A>(
    labeller: &Labeller,
    labelled: &Labelled,
    base: &Judged<A>,
    after: &Judged<A>,
    seed: u64,
) -> Round {
    let by_labeller: Vec<f64> = base
        .utilities
        .iter()
        .zip(&after.utilities)
        .map(|(base, after)| labeller.win(*base, *after))
        .collect();
    let in_truth: Vec<f64> = base
        .truth
        .iter()
        .zip(&after.truth)
        .map(|(base, after)| win(after.utility - base.utility, LEAST_DIFFERENCE))
        .collect();
    let gap = paired_gain(&in_truth, &by_labeller, seed);
    Round {
        pairs: labelled.pairs,
        labels_right: labelled.right,
        exact: share(&after.truth.iter().map(|graded| graded.exact).collect::<Vec<_>>()).value,
        labeller_wins: gap.aligned,
        true_wins: gap.base,
        gap: gap.gain,
        gap_low: gap.gain_low,
        gap_high: gap.gain_high,
    }
}
