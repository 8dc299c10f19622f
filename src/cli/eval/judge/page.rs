//! What is measured, as a page.

use super::injections::{Rates, Tried};
use super::measures::Report;
use crate::cli::Outcome;
use std::path::{Path, PathBuf};
use votive_critic::Cost;
use votive_eval::Share;
use votive_eval::judging::Bin;
use votive_gallery::audit::{Audit, Calibrated, Count, Measured, Measures, Number, write_audit};

/// Verdicts by coin make circles of so many triples, points of 100.
const CIRCLES_BY_CHANCE: f64 = 25.0;

/// Writes a report as `index.html` of a folder, and gives its path.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(report: &Report, folder: &Path) -> Outcome<PathBuf> {
    let mut parts = vec![agreement(report), order(report), calibration(report)];
    if !report.by_flaw.is_empty() {
        parts.push(Measures {
            heading: "By flaw".to_owned(),
            text: "Right verdicts where the worse candidate has this flaw; one may have several.".to_owned(),
            shares: report.by_flaw.iter().map(|(flaw, found)| measured(flaw, found)).collect(),
            ..Measures::default()
        });
    }
    parts.push(leanings(report));
    parts.extend(injections(report));
    parts.push(costs(report));
    let about =
        format!("{} pairs, against {}. Shares are of 100, intervals of 95 %.", report.n, report.against);
    let audit = Audit { title: format!("How far to trust {}", report.judge), about, parts };
    Ok(write_audit(&audit, folder)?)
}

fn measured(name: &str, share: &Share) -> Measured {
    let Share { value, low, high, n } = *share;
    Measured { name: name.to_owned(), value, low, high, n, expected: None }
}

/// A share that would be `expected` without a bias.
fn biased(name: &str, share: &Share, expected: f64) -> Measured {
    Measured { expected: Some(expected), ..measured(name, share) }
}

fn agreement(report: &Report) -> Measures {
    let mut shares = vec![measured("right verdicts", &report.agreement.accuracy)];
    shares.extend(report.bare.as_ref().map(|bare| measured("right verdicts, asked once", &bare.accuracy)));
    shares.push(measured("pairs decided", &report.agreement.decided));
    let kappa = &report.agreement.kappa;
    let kappa = Number {
        name: "Cohen's kappa".to_owned(),
        value: kappa.value,
        interval: Some([kappa.low, kappa.high]),
    };
    Measures {
        heading: "Agreement".to_owned(),
        text: "Right verdicts among the pairs that the judge decides; an abstention is neither right nor wrong. Kappa is 0 by \
               chance and 1 at best."
            .to_owned(),
        shares,
        numbers: vec![kappa],
        ..Measures::default()
    }
}

fn order(report: &Report) -> Measures {
    let mut shares = vec![biased("verdicts that change with the order", &report.order.flip_rate, 0.0)];
    match &report.bare {
        Some(bare) => {
            shares.push(biased(
                "verdicts that change with the order, asked once",
                &bare.order.flip_rate,
                0.0,
            ));
            shares.push(biased("verdicts for the first slot, asked once", &bare.order.first_slot, 50.0));
        }
        None => shares.push(biased("verdicts for the first slot", &report.order.first_slot, 50.0)),
    }
    if let Some(circles) = &report.transitivity {
        shares.push(biased("triples that go round in a circle", &circles.judged.violations, 0.0));
        let bare = circles.bare.as_ref();
        shares.extend(bare.map(|bare| biased("triples in a circle, asked once", &bare.violations, 0.0)));
    }
    Measures {
        heading: "Consistency".to_owned(),
        text: format!(
            "Each pair is shown in both orders. A triple is a circle if the judge prefers A to B, B to C and C to A; a coin makes \
             {CIRCLES_BY_CHANCE:.0} % of circles."
        ),
        shares,
        ..Measures::default()
    }
}

fn calibration(report: &Report) -> Measures {
    let number = |name: &str, value: f64| Number { name: name.to_owned(), value, interval: None };
    let mut numbers = vec![number("expected calibration error", report.ece)];
    numbers.extend(report.bare.as_ref().map(|bare| number("asked once", bare.ece)));
    numbers.push(number("Brier score", report.calibration.brier));
    numbers.push(number("negative log-likelihood, nats", report.calibration.nll));
    numbers.extend(report.temperature.map(|temperature| number("best temperature", temperature)));
    let bin = |bin: &Bin| {
        let Bin { confidence, accuracy, low, high, n } = *bin;
        Calibrated { confidence, accuracy, low, high, n }
    };
    Measures {
        heading: "Calibration".to_owned(),
        text: "Whether verdicts that are given with a probability of 80 % are right in 80 % of the pairs: on the broken line, they \
               are. The larger a dot, the more pairs."
            .to_owned(),
        numbers,
        bins: report.calibration.bins.iter().map(bin).collect(),
        ..Measures::default()
    }
}

fn leanings(report: &Report) -> Measures {
    let [more, less] = report.leaning.sides;
    let found = &report.leaning.leaning;
    let mut shares = vec![
        measured(&format!("right where the {more} one is better"), &found.right_with),
        measured(&format!("right where the {less} one is better"), &found.right_against),
        biased(&format!("verdicts for the {more} of two equals"), &found.of_equals, 50.0),
    ];
    if let Some(own) = &report.self_preference {
        shares.push(measured(
            &format!("for {}'s though it is worse", own.model),
            &own.leaning.own_though_worse,
        ));
        shares.push(measured("for another's though it is worse", &own.leaning.other_though_worse));
    }
    Measures {
        heading: "Leanings".to_owned(),
        text: format!(
            "A judge without a leaning towards {} is as often right where it speaks for the better one as where it speaks against it. {}",
            report.leaning.property,
            match &report.self_preference {
                Some(own) => format!("Its own work is what {} made.", own.model),
                None => String::new(),
            }
        ),
        shares,
        ..Measures::default()
    }
}

fn injections(report: &Report) -> Option<Measures> {
    let injections = report.injections.as_ref()?;
    let turned = |name: &str, Rates { judged, bare }: &Rates| {
        [
            biased(&format!("{name}, asked once"), &bare.turned, 0.0),
            biased(&format!("{name}, with the protocol"), &judged.turned, 0.0),
        ]
    };
    let mut shares = Vec::new();
    for (name, rates) in [
        ("a remark that speaks for nobody", &injections.remark),
        ("any text", &injections.text),
        ("any reserved marks", &injections.marks),
    ] {
        shares.extend(turned(name, rates));
        shares.push(biased(&format!("{name}: no verdict any more"), &rates.judged.silenced, 0.0));
    }
    let each = &injections.each;
    shares.extend(each.iter().flat_map(|Tried { name, rates, .. }| turned(name, rates)));
    let counts = each.iter().map(|tried| Count {
        name: format!("{}: marks taken out of a question", tried.name),
        value: format!("{:.1}", tried.removed_marks),
    });
    Some(Measures {
        heading: "Injections".to_owned(),
        text: "Words that speak for the worse candidate are written into it, or into the prompt of two pictures. The share is that of \
               pairs whose verdict turns to it, of those that were judged rightly without. What a remark turns, any words would turn."
            .to_owned(),
        shares,
        counts: counts.collect(),
        ..Measures::default()
    })
}

fn costs(report: &Report) -> Measures {
    let count = |name: &str, value: String| Count { name: name.to_owned(), value };
    let Cost { calls, input_tokens, output_tokens, seconds } = report.cost;
    let abstained =
        report.abstentions.iter().map(|(reason, n)| count(&format!("abstained: {reason}"), n.to_string()));
    let mut counts: Vec<Count> = abstained.collect();
    counts.push(count("calls", calls.to_string()));
    counts.push(count("tokens read", input_tokens.to_string()));
    counts.push(count("tokens written", output_tokens.to_string()));
    counts.push(count("seconds of waiting", format!("{seconds:.1}")));
    Measures {
        heading: "Abstentions and cost".to_owned(),
        text: "Every different question is asked, and paid for, once.".to_owned(),
        counts,
        ..Measures::default()
    }
}
