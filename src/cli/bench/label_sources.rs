//! `votive bench label-sources`: the same samples labelled by the truth, by a critic, by a critic that is often wrong, and by a CLIP
//! model; what a model makes of each.

use super::study::{Seed, Study, StudyArgs};
use crate::cli::embedded;
use crate::cli::judges::{CHECKER, EMBEDDED, Subject};
use crate::cli::labels::Labeller;
use crate::cli::world_pairs::Drawn;
use crate::cli::{Context, Failure, Outcome};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

/// All labels train by the same recipe.
const RECIPE: &str = include_str!("../../../examples/recipes/image/dpo.toml");

#[derive(Debug, clap::Args)]
pub(super) struct LabelSourcesArgs {
    /// Folder for data, runs and results; what is there already is kept and counted.
    #[arg(long, value_name = "DIR", default_value = "runs/label-sources")]
    out: PathBuf,
    /// The critic: `embedded`, or the folder of a language model with vision.
    #[arg(long, value_name = "NAME|DIR", default_value = EMBEDDED)]
    critic: String,
    /// The CLIP model [default: the shipped one].
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,
    #[command(flatten)]
    study: StudyArgs,
}

pub(super) fn run(args: &LabelSourcesArgs, ctx: &Context) -> Outcome {
    let clip = match &args.clip {
        Some(folder) => folder.clone(),
        None => embedded::folder("tiny-clip")?,
    };
    let clip = clip.to_str().ok_or_else(|| Failure::usage("--clip: the folder's name is not UTF-8"))?;
    // Name, who labels, share of the labels that are turned round.
    let sources = [
        ("truth", CHECKER, 0.0),
        ("critic", args.critic.as_str(), 0.0),
        ("critic-flipped-10", args.critic.as_str(), 0.1),
        ("critic-flipped-30", args.critic.as_str(), 0.3),
        ("clip", clip, 0.0),
    ];
    let mut study = Study::new(&args.study, &args.out, ctx)?;
    for seed in study.seeds()? {
        study.measure_base(&seed)?;
        let mut samples = Samples::default();
        for (name, judge, flipped) in sources {
            study.align(&seed, name, RECIPE, |study, _| {
                let labeller = Labeller::open(judge, Subject::Images, ctx)?;
                let (drawn, utilities) = samples.judged(study, &seed, &labeller)?;
                let out = seed.folder.join(format!("{name}-labels"));
                let labelled = drawn.label((&labeller, utilities), flipped, &out, ctx)?;
                Ok((labelled.file, Some(labelled.right)))
            })?;
        }
    }
    study.report(("truth", "labels by the truth"), "labels by")
}

/// The samples of a seed, which all labels are about, and what was said of them.
#[derive(Default)]
struct Samples {
    drawn: Option<Drawn>,
    utilities: BTreeMap<String, Vec<Option<f64>>>,
}

impl Samples {
    /// The samples with what a labeller says of them; nothing is drawn or asked twice.
    fn judged(
        &mut self,
        study: &Study,
        seed: &Seed,
        labeller: &Labeller,
    ) -> Outcome<(&Drawn, &[Option<f64>])> {
        let drawn = match &mut self.drawn {
            Some(drawn) => drawn,
            none => none.insert(study.drawn(seed)?),
        };
        let utilities = match self.utilities.entry(labeller.name().to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(open) => open.insert(drawn.utilities(labeller, study.ctx)?),
        };
        Ok((drawn, utilities))
    }
}
