//! Alarms in words: what goes wrong in a run without stopping it.
//!
//! A detector looks at the log's lines and nothing else, so a resumed run raises what an uninterrupted one does, and each
//! alarm is raised once. Batches differ, so detectors compare medians over windows of lines.

use crate::history::History;
use crate::run::MOST_UNDECIDED;
use serde::Serialize;

/// Lines of a window: the first of a run, and its latest.
pub(crate) const WINDOW: usize = 20;
/// Lines of a long window, for what is rare or noisy.
pub(crate) const LONG_WINDOW: usize = 50;
/// Lines after which something that never changes is no accident.
const SHORT_WINDOW: usize = 5;

/// Share of its size by which the chosen log-probability may fall.
const LIKELIHOOD_FALL: f64 = 0.1;
/// Share by which denoising errors may stand above what they are compared with.
const ERROR_RISE: f64 = 0.05;
/// Distance of the accuracy from one half that is no better than guessing.
const GUESSING: f64 = 0.05;
/// A margin in units of the reward, beyond which −log σ has no gradient left.
const LARGEST_MARGIN: f64 = 20.0;
/// Nats a token (or a latent) between policy and reference.
const LARGEST_LOG_RATIO: f64 = 1.0;
/// Nats a completion of the divergence estimate.
const LARGEST_KL: f64 = 100.0;
/// A gradient that is so many times the median one is a spike.
const SPIKE: f64 = 10.0;
/// Spikes in a long window.
const SPIKES: usize = 3;
/// Lines of a window in which nothing was preferred.
const UNDECIDED: usize = 10;
/// Distance of a loss from ln 2 within which nothing was learned.
const AT_LN_2: f64 = 1e-3;
/// Passes over the data.
const MOST_PASSES: f64 = 5.0;
/// Share by which the held-out loss may stand above its lowest.
const HELD_OUT_RISE: f64 = 0.05;
/// Evaluations in a row that stand above it.
const HELD_OUT_RISES: usize = 3;

/// An alarm that a run raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Steps done.
    pub step: u64,
    /// Which one, as in [`ALARMS`].
    #[serde(rename = "alarm")]
    pub id: &'static str,
    /// What was seen and what to do.
    pub message: String,
}

/// One kind of alarm.
pub struct AlarmSpec {
    /// Its name in the log.
    pub id: &'static str,
    /// When it is raised, with every threshold.
    pub raised: fn() -> String,
    /// What to do.
    pub advice: &'static str,
    /// What was seen, if it is to be raised.
    detect: fn(&History) -> Option<String>,
}

/// Every alarm, in the order in which they are looked for.
pub const ALARMS: &[AlarmSpec] = &[
    AlarmSpec {
        id: "likelihood_falls",
        raised: || {
            format!(
                "The median of `logps/chosen` fell by more than {:.0} % of its size from the first {WINDOW} lines to the \
                 latest {WINDOW}, while that of `rewards/margins` grew.",
                100.0 * LIKELIHOOD_FALL
            )
        },
        advice: "add an SFT term, use DPOP or APO, or lower the learning rate",
        detect: likelihood_falls,
    },
    AlarmSpec {
        id: "both_rewards_fall",
        raised: || {
            format!(
                "The medians of `rewards/chosen` and `rewards/rejected` are below 0 and lower in the latest {WINDOW} lines \
                 than in the first {WINDOW}, and the chosen reward has lost more than the margin has gained. A reward model, whose \
                 rewards have no origin, does not raise it."
            )
        },
        advice: "raise beta, lower the learning rate, or add an SFT term, which holds the chosen completions up",
        detect: both_rewards_fall,
    },
    AlarmSpec {
        id: "both_errors_rise",
        raised: || {
            format!(
                "The medians of `error/chosen` and `error/rejected` over the latest {WINDOW} lines are more than {:.0} % above \
                 those of `reference_error/…`, or without a reference above those of the first {WINDOW} lines.",
                100.0 * ERROR_RISE
            )
        },
        advice: "the model denoises what people chose worse than before, too: raise beta, lower the learning rate, or train \
                 on noisier timesteps",
        detect: both_errors_rise,
    },
    AlarmSpec {
        id: "accuracy_stuck",
        raised: || {
            format!(
                "The mean of `rewards/accuracies` over the latest {LONG_WINDOW} lines is within {GUESSING} of one half, \
                 at a learning rate above 0."
            )
        },
        advice: "look at the data with `votive inspect`, check that chosen and rejected are not swapped or equal, and raise \
                 the learning rate",
        detect: accuracy_stuck,
    },
    AlarmSpec {
        id: "margin_explodes",
        raised: || {
            format!(
                "The median of `rewards/margins` over the latest {WINDOW} lines is above {LARGEST_MARGIN}."
            )
        },
        advice: "the pairs are learned by heart and give no gradient any more: stop earlier, or lower the learning rate or \
                 beta",
        detect: margin_explodes,
    },
    AlarmSpec {
        id: "reference_left",
        raised: || {
            format!(
                "The median over the latest {WINDOW} lines is above {LARGEST_LOG_RATIO} for `logratios/abs` (nats a token; \
                 an image counts as one) or above {LARGEST_KL} nats for `kl`."
            )
        },
        advice: "raise beta or lower the learning rate, and read some samples: the model is no longer the one that it \
                 started as",
        detect: reference_left,
    },
    AlarmSpec {
        id: "gradient_spikes",
        raised: || {
            format!(
                "{SPIKES} of the latest {LONG_WINDOW} lines have a `grad_norm` above {SPIKE} times the median of these lines."
            )
        },
        advice: "lower the learning rate, raise the batch size or the warm-up, and keep optimizer.max_grad_norm at 1",
        detect: gradient_spikes,
    },
    AlarmSpec {
        id: "no_gradient",
        raised: || format!("`grad_norm` is 0 in the latest {SHORT_WINDOW} lines."),
        advice: "nothing is learned any more: check the adapter's targets, and whether the loss is saturated",
        detect: no_gradient,
    },
    AlarmSpec {
        id: "nothing_preferred",
        raised: || {
            format!(
                "`rollout/kept` is 0 in {UNDECIDED} of the latest {WINDOW} lines: in these steps no two pictures of a prompt \
                 had scores that differ enough. After {MOST_UNDECIDED} such steps one after another the run stops."
            )
        },
        advice: "such steps have no gradient: lower rollout.min_gap, or raise rollout.candidates or rollout.eta",
        detect: nothing_preferred,
    },
    AlarmSpec {
        id: "loss_at_ln_2",
        raised: || {
            format!(
                "Each `loss` of the latest {LONG_WINDOW} lines is within {AT_LN_2} of ln 2, where a comparison of a policy \
                 with itself starts, at a learning rate above 0."
            )
        },
        advice: "raise the learning rate; an adapter needs ten times that of full fine-tuning",
        detect: loss_at_ln_2,
    },
    AlarmSpec {
        id: "no_learning_rate",
        raised: || format!("`learning_rate` is 0 in the latest {SHORT_WINDOW} lines."),
        advice: "set optimizer.lr above 0 and optimizer.warmup_steps below train.steps",
        detect: no_learning_rate,
    },
    AlarmSpec {
        id: "data_seen_often",
        raised: || format!("`epoch` is above {MOST_PASSES}."),
        advice: "preferences are learned by heart after a few passes: use fewer steps or more rows, and hold some out with \
                 data.eval_fraction",
        detect: data_seen_often,
    },
    AlarmSpec {
        id: "held_out_loss_rises",
        raised: || {
            format!(
                "Each of the latest {HELD_OUT_RISES} `eval_loss` is more than {:.0} % above the lowest before them.",
                100.0 * HELD_OUT_RISE
            )
        },
        advice: "take the best checkpoint, which best.json names, and use fewer steps",
        detect: held_out_loss_rises,
    },
];

/// The alarms that the log's latest line gives rise to, without those that were raised before.
pub(crate) fn raised(history: &History, step: u64) -> Vec<Alarm> {
    let fresh = ALARMS.iter().filter(|spec| !history.has_raised(spec.id));
    let alarm = |spec: &AlarmSpec| {
        let seen = (spec.detect)(history)?;
        Some(Alarm { step, id: spec.id, message: format!("{seen}; {}", spec.advice) })
    };
    fresh.filter_map(alarm).collect()
}

/// The middle of some numbers, the mean of two where two are in the middle; none of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// Medians of the first and of the latest window, if the two don't overlap.
fn change(history: &History, name: &str) -> Option<(f64, f64)> {
    if history.lines() < 2 * WINDOW {
        return None;
    }
    Some((median(history.first(name))?, median(history.latest(name, WINDOW)?)?))
}

/// The latest `n` numbers of a name, if the learning rate was above 0 in all of their lines.
fn while_learning(history: &History, name: &str, n: usize) -> Option<Vec<f64>> {
    let rates = history.latest("learning_rate", n)?;
    if rates.contains(&0.0) { None } else { history.latest(name, n) }
}

fn likelihood_falls(history: &History) -> Option<String> {
    let (before, now) = change(history, "logps/chosen")?;
    let (margin_before, margin) = change(history, "rewards/margins")?;
    let falls = now < before - LIKELIHOOD_FALL * before.abs() && margin > margin_before;
    falls.then(|| {
        format!(
            "the chosen completions become less likely (log-probability {before:.4} -> {now:.4}) while the margin grows \
             ({margin_before:.4} -> {margin:.4})"
        )
    })
}

fn both_rewards_fall(history: &History) -> Option<String> {
    // Only a reward model logs it.
    if history.latest("mean_reward", 1).is_some() {
        return None;
    }
    let (chosen_before, chosen) = change(history, "rewards/chosen")?;
    let (rejected_before, rejected) = change(history, "rewards/rejected")?;
    let falls = chosen < chosen_before.min(0.0) && rejected < rejected_before.min(0.0);
    (falls && -chosen > chosen - rejected).then(|| {
        format!(
            "both rewards fall (chosen {chosen_before:.4} -> {chosen:.4}, rejected {rejected_before:.4} -> \
             {rejected:.4}), the chosen one by more than the margin has grown"
        )
    })
}

fn both_errors_rise(history: &History) -> Option<String> {
    let rise = |side: &str| {
        let name = format!("error/{side}");
        let (first, now) = change(history, &name)?;
        let reference = history.latest(&format!("reference_error/{side}"), WINDOW).and_then(median);
        let usual = reference.unwrap_or(first);
        (now > (1.0 + ERROR_RISE) * usual).then_some((usual, now))
    };
    let ((usual, now), (other_usual, other_now)) = (rise("chosen")?, rise("rejected")?);
    Some(format!(
        "the denoising errors of both sides rise (chosen {now:.4} where {usual:.4} is usual, rejected {other_now:.4} where \
         {other_usual:.4} is)"
    ))
}

fn accuracy_stuck(history: &History) -> Option<String> {
    let accuracies = while_learning(history, "rewards/accuracies", LONG_WINDOW)?;
    let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    ((mean - 0.5).abs() < GUESSING)
        .then(|| format!("the accuracy stays at that of guessing ({mean:.3} over {LONG_WINDOW} lines)"))
}

fn margin_explodes(history: &History) -> Option<String> {
    let margin = median(history.latest("rewards/margins", WINDOW)?)?;
    (margin > LARGEST_MARGIN).then(|| format!("the margin has grown to {margin:.1}"))
}

fn reference_left(history: &History) -> Option<String> {
    let now = |name| history.latest(name, WINDOW).and_then(median);
    if let Some(ratio) = now("logratios/abs").filter(|ratio| *ratio > LARGEST_LOG_RATIO) {
        return Some(format!("policy and reference are {ratio:.3} nats a token apart"));
    }
    let kl = now("kl").filter(|kl| *kl > LARGEST_KL)?;
    Some(format!("the divergence from the reference has grown to {kl:.1} nats a completion"))
}

fn gradient_spikes(history: &History) -> Option<String> {
    let norms = history.latest("grad_norm", LONG_WINDOW)?;
    let usual = median(norms.clone())?;
    let spikes = norms.iter().filter(|norm| **norm > SPIKE * usual).count();
    (usual > 0.0 && spikes >= SPIKES).then(|| {
        let largest = norms.iter().fold(0.0f64, |most, norm| most.max(*norm));
        format!(
            "{spikes} of {LONG_WINDOW} gradients are spikes, up to {largest:.3} where {usual:.3} is usual"
        )
    })
}

fn no_gradient(history: &History) -> Option<String> {
    let norms = history.latest("grad_norm", SHORT_WINDOW)?;
    let loss = history.latest("loss", 1)?;
    norms
        .iter()
        .all(|norm| *norm == 0.0)
        .then(|| format!("no gradient is left in {SHORT_WINDOW} lines, at a loss of {:.4}", loss[0]))
}

fn nothing_preferred(history: &History) -> Option<String> {
    let kept = history.latest("rollout/kept", WINDOW)?;
    let undecided = kept.iter().filter(|share| **share == 0.0).count();
    (undecided >= UNDECIDED)
        .then(|| format!("in {undecided} of the latest {WINDOW} lines nothing was preferred to anything"))
}

fn loss_at_ln_2(history: &History) -> Option<String> {
    let losses = while_learning(history, "loss", LONG_WINDOW)?;
    losses
        .iter()
        .all(|loss| (loss - std::f64::consts::LN_2).abs() < AT_LN_2)
        .then(|| format!("the loss is still ln 2 after {} lines, as at the start", history.lines()))
}

fn no_learning_rate(history: &History) -> Option<String> {
    let rates = history.latest("learning_rate", SHORT_WINDOW)?;
    rates.iter().all(|rate| *rate == 0.0).then(|| format!("the learning rate is 0 in {SHORT_WINDOW} lines"))
}

fn data_seen_often(history: &History) -> Option<String> {
    let epoch = *history.latest("epoch", 1)?.first()?;
    (epoch > MOST_PASSES).then(|| format!("every row was seen {epoch:.1} times"))
}

fn held_out_loss_rises(history: &History) -> Option<String> {
    let losses: Vec<f64> = history.evaluations().values().copied().collect();
    let (before, latest) = losses.split_at_checked(losses.len().checked_sub(HELD_OUT_RISES)?)?;
    let lowest = before.iter().copied().min_by(f64::total_cmp)?;
    latest.iter().all(|loss| *loss > lowest + HELD_OUT_RISE * lowest.abs()).then(|| {
        format!(
            "the loss on held-out rows rises (lowest {lowest:.4}, now {:.4})",
            latest.last().copied().unwrap_or(f64::NAN)
        )
    })
}

#[cfg(test)]
#[expect(clippy::panic, reason = "a test fails by panicking")]
mod tests;
