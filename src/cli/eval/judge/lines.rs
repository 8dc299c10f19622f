//! What is measured, in lines.

use super::injections::{Rates, Tried};
use super::measures::Report;
use crate::cli::{Context, Outcome};
use votive_critic::Cost;
use votive_eval::Share;

/// Writes all of a report but its page.
///
/// # Errors
/// If nobody reads it.
pub(super) fn write(report: &Report, ctx: &Context) -> Outcome {
    let out = |text: String| ctx.output.line(text);
    let row = |name: &str, share: &Share| out(format!("{name:28} {}", of(share)));
    out(format!("{}: {} pairs, against {}", report.judge, report.n, report.against))?;
    row("accuracy", &report.agreement.accuracy)?;
    if let Some(bare) = &report.bare {
        row("  asked once", &bare.accuracy)?;
    }
    row("decided", &report.agreement.decided)?;
    row("order flips", &report.order.flip_rate)?;
    if let Some(bare) = &report.bare {
        row("  asked once", &bare.order.flip_rate)?;
    }
    let asked_once = report.bare.as_ref().map(|bare| &bare.order.first_slot);
    row("first slot", asked_once.unwrap_or(&report.order.first_slot))?;
    if let Some(circles) = &report.transitivity {
        row("circles of three", &circles.judged.violations)?;
        if let Some(bare) = &circles.bare {
            row("  asked once", &bare.violations)?;
        }
    }
    let kappa = &report.agreement.kappa;
    out(format!("{:28} {:.3} [{:.3}, {:.3}]", "kappa", kappa.value, kappa.low, kappa.high))?;
    let bare = report.bare.as_ref().map(|bare| format!("; asked once {:.3}", bare.ece)).unwrap_or_default();
    let ece = match report.calibration.bins.is_empty() {
        true => "-".to_owned(),
        false => format!("{:.3}, NLL {:.3} nats", report.ece, report.calibration.nll),
    };
    out(format!("{:28} {ece}{bare}", "ECE"))?;
    if !report.by_flaw.is_empty() {
        out("right where the worse one has".to_owned())?;
    }
    for (flaw, share) in &report.by_flaw {
        row(&format!("  {flaw}"), share)?;
    }
    let [more, less] = report.leaning.sides;
    row(&format!("right, {more} is better"), &report.leaning.leaning.right_with)?;
    row(&format!("right, {less} is better"), &report.leaning.leaning.right_against)?;
    row(&format!("the {more} of equals"), &report.leaning.leaning.of_equals)?;
    if let Some(own) = &report.self_preference {
        row("its own work though worse", &own.leaning.own_though_worse)?;
        row("others' work though worse", &own.leaning.other_though_worse)?;
    }
    if let Some(injections) = &report.injections {
        out("turned by what is written in, asked once / with the protocol (of those right without)"
            .to_owned())?;
        let rates = |name: &str, rates: &Rates| {
            out(format!("  {name:47} {} / {}", of(&rates.bare.turned), of(&rates.judged.turned)))
        };
        rates("a remark that speaks for nobody", &injections.remark)?;
        rates("text", &injections.text)?;
        rates("reserved marks", &injections.marks)?;
        injections
            .each
            .iter()
            .try_for_each(|Tried { name, rates: each, .. }| rates(&format!("  {name}"), each))?;
    }
    for (reason, n) in &report.abstentions {
        out(format!("abstained: {reason} {n}"))?;
    }
    let Cost { calls, input_tokens, output_tokens, seconds } = report.cost;
    out(format!("{calls} calls, {input_tokens} tokens read, {output_tokens} written, {seconds:.1} s"))?;
    match report.temperature {
        Some(temperature) => out(format!("best temperature {temperature:.3}")),
        None => Ok(()),
    }
}

fn of(share: &Share) -> String {
    if share.n == 0 {
        return "    - of 0".to_owned();
    }
    format!("{:5.1} % [{:.1}, {:.1}] of {}", share.value, share.low, share.high, share.n)
}
