//! From what is heard of a judge to numbers with intervals.

use super::injections::Injections;
use super::record::{Heard, Known, Record};
use crate::cli::judges::Subject;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use votive_critic::protocol::fit_temperature;
use votive_critic::{Cost, Finding, Winner};
use votive_eval::judging::{
    Agreement, Calibration, Leaning, OrderEffects, SelfPreference, Transitivity, agreement, calibration,
    leaning, order_effects, self_preference, transitivity,
};
use votive_eval::{Share, share};

/// Bins of the reliability diagram.
const BINS: usize = 10;

/// All that is found.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) judge: String,
    /// Who is taken to be right.
    pub(super) against: String,
    /// Right verdicts among those that the protocol lets stand, 0 to 1.
    accuracy: f64,
    /// Pairs whose verdict changes with the order, 0 to 1: in spite of the protocol, or between the answers of a store.
    order_flip_rate: f64,
    /// Expected calibration error, 0 to 1.
    pub(super) ece: f64,
    /// Cohen's kappa.
    kappa: f64,
    /// Pairs.
    pub(super) n: usize,
    pub(super) agreement: Agreement,
    pub(super) calibration: Calibration,
    pub(super) order: OrderEffects,
    /// The judge without a protocol, asked once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bare: Option<Bare>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transitivity: Option<Circles>,
    pub(super) leaning: Leanings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) self_preference: Option<OwnWork>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) injections: Option<Injections>,
    pub(super) abstentions: BTreeMap<&'static str, usize>,
    pub(super) by_flaw: BTreeMap<String, Share>,
    pub(super) cost: Cost,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
    /// The page that shows all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) html: Option<PathBuf>,
}

/// The judge without a protocol, asked once.
#[derive(Serialize)]
pub(super) struct Bare {
    pub(super) accuracy: Share,
    pub(super) order: OrderEffects,
    pub(super) ece: f64,
}

/// Violations of transitivity.
#[derive(Serialize)]
pub(super) struct Circles {
    /// With the protocol.
    pub(super) judged: Transitivity,
    /// Asked once, where somebody asked so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bare: Option<Transitivity>,
}

/// The leaning towards candidates with more of a property.
#[derive(Serialize)]
pub(super) struct Leanings {
    pub(super) property: &'static str,
    /// What has more of it, and what has less.
    #[serde(skip)]
    pub(super) sides: [&'static str; 2],
    #[serde(flatten)]
    pub(super) leaning: Leaning,
}

/// The leaning towards the judge's own work.
#[derive(Serialize)]
pub(super) struct OwnWork {
    /// The model whose candidates are its own.
    pub(super) model: String,
    #[serde(flatten)]
    pub(super) leaning: SelfPreference,
}

/// Measures what is heard; `seed` keys resamples.
pub(super) fn measure(heard: Heard, seed: u64, fit: bool) -> Report {
    let counted: Vec<(&Record, Winner)> = heard
        .records
        .iter()
        .filter(|record| record.known.is_counted)
        .filter_map(|record| Some((record, record.known.truth?)))
        .collect();
    let truth: Vec<Winner> = counted.iter().map(|(_, truth)| *truth).collect();
    let judged: Vec<Option<Winner>> = counted.iter().map(|(record, _)| record.judged.winner()).collect();
    let agreement = agreement(&judged, &truth, seed);
    let labelled = labels(counted.iter().map(|(record, truth)| (&record.judged, *truth)));
    let calibration = calibration(&labelled, BINS);
    let order = in_both_orders(counted.iter().flat_map(|(record, _)| record.orders.iter().copied()));
    let mut abstentions = BTreeMap::new();
    let mut by_flaw: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    for (record, truth) in &counted {
        if let Finding::Abstention(abstention) = &record.judged {
            *abstentions.entry(abstention.reason()).or_insert(0) += 1;
        }
        if let Some(verdict) = record.judged.winner() {
            for flaw in &record.known.flaws {
                by_flaw.entry(flaw).or_default().push(verdict == *truth);
            }
        }
    }
    Report {
        accuracy: agreement.accuracy.value / 100.0,
        order_flip_rate: order.flip_rate.value / 100.0,
        ece: calibration.ece,
        kappa: agreement.kappa.value,
        n: counted.len(),
        agreement,
        calibration,
        order,
        bare: bare(&counted),
        transitivity: circles(&heard.records),
        leaning: leanings(heard.subject, &heard.records),
        self_preference: heard.own.map(|model| OwnWork { model, leaning: own_work(&heard.records) }),
        injections: heard.injections,
        abstentions,
        by_flaw: by_flaw.into_iter().map(|(flaw, hits)| (flaw.to_owned(), share(&hits))).collect(),
        cost: heard.cost,
        temperature: fit.then(|| fit_temperature(&labelled)).flatten(),
        judge: heard.judge,
        against: heard.against,
        html: None,
    }
}

/// `(P(first), whether the first is better)` of pairs that were decided and have a better candidate.
fn labels<'a>(pairs: impl Iterator<Item = (&'a Finding, Winner)>) -> Vec<(f64, bool)> {
    let label = |(finding, truth): (&Finding, Winner)| match finding {
        Finding::Preference(probability) if truth != Winner::Tie => {
            Some((*probability, truth == Winner::First))
        }
        _ => None,
    };
    pairs.filter_map(label).collect()
}

fn in_both_orders(orders: impl Iterator<Item = [Option<Winner>; 2]>) -> OrderEffects {
    let (forth, back): (Vec<_>, Vec<_>) = orders.map(|[forth, back]| (forth, back)).unzip();
    order_effects(&forth, &back)
}

/// Of the judge without a protocol, where anybody asked it so.
fn bare(counted: &[(&Record, Winner)]) -> Option<Bare> {
    let asked: Vec<(&[Finding; 2], Winner)> =
        counted.iter().filter_map(|(record, truth)| Some((record.bare.as_ref()?, *truth))).collect();
    if asked.is_empty() {
        return None;
    }
    let hits: Vec<bool> =
        asked.iter().filter_map(|([forth, _], truth)| Some(forth.winner()? == *truth)).collect();
    Some(Bare {
        accuracy: share(&hits),
        order: in_both_orders(asked.iter().map(|([forth, back], _)| [forth.winner(), back.winner()])),
        ece: calibration(&labels(asked.iter().map(|([forth, _], truth)| (forth, *truth))), BINS).ece,
    })
}

/// Of prompts whose candidates were all compared; none without any.
fn circles(records: &[Record]) -> Option<Circles> {
    let compared = |finding: &dyn Fn(&Record) -> Option<Winner>| -> Vec<(usize, usize, Winner)> {
        let of = |record: &Record| record.known.candidates.and_then(|[a, b]| Some((a, b, finding(record)?)));
        records.iter().filter_map(of).collect()
    };
    let judged = compared(&|record| record.judged.winner());
    let bare = compared(&|record| record.bare.as_ref().and_then(|[forth, _]| forth.winner()));
    let has_any = records.iter().any(|record| record.known.candidates.is_some());
    has_any.then(|| Circles {
        judged: transitivity(&judged),
        bare: (!bare.is_empty()).then(|| transitivity(&bare)),
    })
}

fn leanings(subject: Subject, records: &[Record]) -> Leanings {
    let of = |record: &Record| Some((record.judged.winner()?, record.known.truth?, record.known.more));
    let leaning = leaning(&records.iter().filter_map(of).collect::<Vec<_>>());
    match subject {
        Subject::Texts => Leanings { property: "length", sides: ["longer", "shorter"], leaning },
        Subject::Images => Leanings { property: "brightness", sides: ["brighter", "darker"], leaning },
    }
}

fn own_work(records: &[Record]) -> SelfPreference {
    let of = |record: &Record| {
        let Known { truth, own, .. } = record.known;
        let (verdict, truth) = (record.judged.winner()?, truth?);
        // Its own work first.
        Some(if own? == Winner::First { (verdict, truth) } else { (verdict.reversed(), truth.reversed()) })
    };
    self_preference(&records.iter().filter_map(of).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use votive_critic::Abstention;
    use votive_critic::Winner::{First, Second, Tie};

    fn record(judged: Finding, known: Known) -> Record {
        Record {
            known: Known { is_counted: known.truth.is_some(), ..known },
            judged,
            orders: Vec::new(),
            bare: None,
        }
    }

    fn report(records: Vec<Record>) -> Report {
        let heard = Heard {
            judge: "j".into(),
            against: "t".into(),
            subject: Subject::Texts,
            own: Some("m".into()),
            records,
            injections: None,
            cost: Cost::default(),
        };
        measure(heard, 1, true)
    }

    #[test]
    fn own_work_is_turned_to_the_first_place() {
        let one = |probability, truth, own| {
            let known = Known { truth: Some(truth), own: Some(own), ..Known::default() };
            record(Finding::Preference(probability), known)
        };
        // Its own is second: taken though worse, taken though worse, left though worse. Its own is first: left though better.
        let found = report(vec![
            one(0.1, First, Second),
            one(0.2, First, Second),
            one(0.9, First, Second),
            one(0.3, First, First),
            record(Finding::Preference(0.1), Known { truth: Some(First), ..Known::default() }),
        ]);
        let own = found.self_preference.map(|own| own.leaning);
        let shares =
            own.map(|own| (own.own_though_worse.n, own.own_though_worse.value, own.other_though_worse.value));
        assert!(
            shares
                .is_some_and(|(n, own, other)| n == 3 && (own - 200.0 / 3.0).abs() < 1e-9 && other == 100.0)
        );
    }

    #[test]
    fn ties_of_the_other_are_verdicts_and_no_labels() {
        let known = |truth| Known { truth: Some(truth), flaws: vec!["rhyme".into()], ..Known::default() };
        let found = report(vec![
            record(Finding::Preference(0.9), known(First)),
            record(Finding::Preference(0.9), known(Second)),
            record(Finding::Preference(0.5), known(Tie)),
            record(Finding::Abstention(Abstention::OrderFlip), known(First)),
            record(Finding::Preference(0.5), Known::default()),
        ]);
        assert_eq!((found.n, found.agreement.accuracy.n), (4, 3));
        assert!((found.accuracy - 2.0 / 3.0).abs() < 1e-12);
        // |0.9 − 0.5| of the two that have a better candidate.
        assert!((found.ece - 0.4).abs() < 1e-12, "{}", found.ece);
        assert_eq!((found.abstentions["order_flip"], found.by_flaw["rhyme"].n), (1, 3));
        assert!(found.bare.is_none() && found.transitivity.is_none());
    }

    #[test]
    fn circles_are_looked_for_among_candidates_that_were_all_compared() {
        let one = |a, b, probability| {
            record(Finding::Preference(probability), Known { candidates: Some([a, b]), ..Known::default() })
        };
        let found = report(vec![one(0, 1, 0.9), one(1, 2, 0.9), one(0, 2, 0.1)]);
        assert_eq!(found.n, 0);
        assert!(found.transitivity.is_some_and(|circles| circles.judged.violations.value == 100.0));
    }

    #[test]
    fn both_orders_of_a_bare_judge_are_compared() {
        let known = Known { truth: Some(First), is_counted: true, ..Known::default() };
        let always_first = Record {
            bare: Some([Finding::Preference(0.8), Finding::Preference(0.8)]),
            orders: vec![[None, None]],
            ..record(Finding::Abstention(Abstention::OrderFlip), known)
        };
        let found = report(vec![always_first]);
        let bare = found
            .bare
            .map(|bare| (bare.accuracy.value, bare.order.flip_rate.value, bare.order.first_slot.value));
        assert_eq!((bare, found.order.flip_rate.n), (Some((100.0, 100.0, 100.0)), 0));
    }
}
