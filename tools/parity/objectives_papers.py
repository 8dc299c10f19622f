"""Objective values and gradients, from the formulas of papers that no library here computes.

Writes objectives_papers/<id>.<case>.safetensors (inputs and outputs, f64) and objectives_papers/cases.json. Each formula is
written from its paper, in PyTorch's own words (softplus, logsumexp, Bernoulli's cross-entropy), and differentiated by
autograd; only the gamma mixture's series is summed by mpmath, which has no autograd, so its slope is summed too.

A new method is a function and its rows in CASES. `check_objectives.py` runs the same rows on random batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable

from common import Size, target_folder, torch, write_json, write_made_by, write_tensors

import mpmath
import torch.nn.functional as F

SIDES = ("chosen", "rejected")
# What is data and not a variable: objectives claim no gradient by it.
DATA = ("lengths", "labels", "margins", "mask", "scores", "uncertainties", "draws")


# --- inputs -------------------------------------------------------------------------------------


def pair_inputs(seed=21, size=Size(16, 1.5, 9)) -> dict:
    """Ordinary pairs, token by token, then pairs with margins of 0, ±1, ±40 and ±200 nats, and all that is judged of them.

    The span is that of a token's log-ratio.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    margins = torch.tensor([0.0, 1.0, -1.0, 40.0, -40.0, 200.0, -200.0] if size.extremes else [], dtype=torch.float64)
    ordinary = size.rows
    rows = ordinary + len(margins)
    inputs = {}
    for side, width, sign in zip(SIDES, (size.longest, max(size.longest - 2, 1)), (0.5, -0.5)):
        lengths = torch.randint(1, width + 1, (rows,), generator=generator)
        mask = (torch.arange(width)[None] < lengths[:, None]).double()
        # Multiples of 1/64, so that margins of the last rows are exact.
        reference = (draw(-4, 0, rows, width) * 64).round() / 64
        policy = reference + draw(-size.span, size.span, rows, width)
        policy[ordinary:] = reference[ordinary:]
        policy[ordinary:, 0] += sign * margins
        inputs |= {
            f"policy_{side}_logps": (policy * mask).sum(1),
            f"reference_{side}_logps": (reference * mask).sum(1),
            f"base_{side}_logps": (reference * mask).sum(1) + draw(-3, 3, rows),
            f"{side}_lengths": lengths.double(),
            f"{side}_token_mask": mask,
            f"policy_{side}_token_logps": policy,
            f"reference_{side}_token_logps": reference,
            f"{side}_token_kl": draw(0, 1, rows, width),
            f"{side}_token_weights": draw(0, 1, rows, width) * mask,
            f"{side}_token_kl_weights": draw(0, 1, rows, width) * mask,
            f"{side}_values": draw(-1, 1, rows),
        }
    low, high = draw(0, 1, rows), draw(0, 1, rows)
    inputs |= {"chosen_scores": torch.maximum(low, high), "rejected_scores": torch.minimum(low, high)}
    inputs |= {"margins": draw(0, 3, rows), "uncertainties": draw(0, math.log(2), rows)}
    inputs |= {"policy_gold_logps": draw(-40, -1, rows)}
    inputs |= {"gold_lengths": torch.randint(1, 12, (rows,), generator=generator).double()}
    inputs |= {"degree_logps": draw(-6, 0, rows)}
    return inputs


def proper_inputs(*how) -> dict:
    """The same with log-probabilities below 0, which odds need."""
    inputs = pair_inputs(*how)
    return inputs | {f"policy_{side}_logps": -inputs[f"policy_{side}_logps"].abs() - 1 / 8 for side in SIDES}


def unpaired_inputs(*how) -> dict:
    """The same completions, each by itself."""
    pairs = pair_inputs(*how)

    def both(name):
        first, second = (pairs[name.format(side)] for side in SIDES)
        width = max(first.shape[1:], second.shape[1:])
        first, second = (F.pad(x, (0, width[0] - x.shape[1])) if width else x for x in (first, second))
        return torch.cat([first, second])

    rows = len(pairs["margins"])
    return {
        "policy_logps": both("policy_{}_logps"),
        "reference_logps": both("reference_{}_logps"),
        "labels": torch.cat([torch.ones(rows), torch.zeros(rows)]).double(),
        "lengths": both("{}_lengths"),
        "token_mask": both("{}_token_mask"),
        "policy_token_logps": both("policy_{}_token_logps"),
        "reference_token_logps": both("reference_{}_token_logps"),
        "token_kl": both("{}_token_kl"),
        "scores": both("{}_scores"),
        "kl": torch.tensor(0.4, dtype=torch.float64),
    }


def logratio(inputs, side, over="reference"):
    """log π_θ − log π_over of a side."""
    return inputs[f"policy_{side}_logps"] - inputs[f"{over}_{side}_logps"]


def difference(inputs, name):
    return inputs[name.format("chosen")] - inputs[name.format("rejected")]


def margin(inputs):
    """DPO's h."""
    return difference(inputs, "policy_{}_logps") - difference(inputs, "reference_{}_logps")


def rewards(inputs, scale):
    return tuple(scale * logratio(inputs, side).detach() for side in SIDES)


def logistic_loss(x):
    """−log σ(x)."""
    return F.softplus(-x)


# --- games ----------------------------------------------------------------------------------------


def sppo(inputs, beta):
    errors = [logratio(inputs, side) - (inputs[f"{side}_scores"] - 0.5) / beta for side in SIDES]
    return sum(error**2 for error in errors) / 2, *rewards(inputs, beta)


def general_preference(inputs, beta):
    errors = [logratio(inputs, side) - inputs[f"{side}_scores"] / beta for side in SIDES]
    return sum(error**2 for error in errors) / 2, *rewards(inputs, beta)


def inpo(inputs, eta, tau):
    def anchored(side):
        anchor = tau / eta * inputs[f"base_{side}_logps"] + (1 - tau / eta) * inputs[f"reference_{side}_logps"]
        return inputs[f"policy_{side}_logps"] - anchor

    chosen, rejected = map(anchored, SIDES)
    return (chosen - rejected - 1 / (2 * eta)) ** 2, eta * chosen.detach(), eta * rejected.detach()


def egpo(inputs, beta):
    return (margin(inputs) - inputs["margins"] / beta) ** 2, *rewards(inputs, beta)


# --- pairs ----------------------------------------------------------------------------------------


def cardinal(inputs, beta, unit):
    return inputs["margins"] / unit * logistic_loss(beta * margin(inputs)), *rewards(inputs, beta)


def padll(inputs, beta):
    h = margin(inputs)
    return (0.9 - 0.45 * (h < 0).double()) * logistic_loss(beta * h), *rewards(inputs, beta)


def cell(inputs, beta):
    x = beta * margin(inputs)
    return 0.5 * logistic_loss(x) + 0.5 * torch.exp(-x), *rewards(inputs, beta)


def pfl(inputs, beta, tau):
    z = beta * margin(inputs) / tau
    ranked = inputs["policy_chosen_logps"] > inputs["policy_rejected_logps"]
    return torch.where(ranked, logistic_loss(z) / 2, 2 * F.relu(1 - z)), *rewards(inputs, beta)


def dbaql(inputs, beta, tau):
    x = beta * margin(inputs)
    share = torch.sigmoid((x / tau).var())
    return share * logistic_loss(x / 0.9) + (1 - share) * torch.exp(-0.9 * x), *rewards(inputs, beta)


def aql(inputs, beta, tau):
    x = beta * margin(inputs)
    quantile = 0.5 + 0.01 * (torch.sigmoid((x / tau).mean()) - 0.5)
    share = torch.sigmoid(tau * quantile - x)
    return share * logistic_loss(x) + (1 - share) * F.relu(1 - x), *rewards(inputs, beta)


def aqfl(inputs, beta, tau):
    x = beta * margin(inputs)
    first = torch.sigmoid(-x / tau).mean() * (x / tau).std()
    second = first + 0.05 * (torch.sigmoid((x / tau).mean()) - first)
    share = torch.sigmoid(0.1 * (x / tau - second).abs())
    return share * logistic_loss(x) + (1 - share) * F.relu(1 - x), *rewards(inputs, beta)


def ilr_dpo(inputs, beta, alpha):
    longer = difference(inputs, "{}_lengths")
    return logistic_loss(beta * margin(inputs) + alpha * longer), *rewards(inputs, beta)


class GammaShare(torch.autograd.Function):
    """E[σ(b·h)] for b ~ Gamma(k, t): Σ_{n≥0} (−1)ⁿ (1 + n·t·|h|)^(−k), and 1 minus it where h is negative."""

    @staticmethod
    def forward(ctx, h, shape, scale):
        mpmath.mp.dps = 30
        values, slopes = zip(*(GammaShare.at(float(x), shape, scale) for x in h))
        ctx.save_for_backward(torch.tensor(slopes, dtype=torch.float64))
        return torch.tensor(values, dtype=torch.float64)

    @staticmethod
    def at(h, shape, scale):
        if h == 0:
            return 0.5, shape * scale / 4
        k, step = mpmath.mpf(shape), mpmath.mpf(scale) * abs(mpmath.mpf(h))
        sign = lambda n: -1 if int(n) % 2 else 1  # noqa: E731
        # The sum from 1: what is far smaller than 1 must not be what is left of 1.
        against = -mpmath.nsum(lambda n: sign(n) * (1 + n * step) ** -k, [1, mpmath.inf], method="alternating")
        term = lambda n: sign(n) * n * (1 + n * step) ** (-k - 1)  # noqa: E731
        slope = -k * scale * mpmath.nsum(term, [1, mpmath.inf], method="alternating")
        return float(1 - against if h > 0 else against), float(slope)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


def mixdpo_gamma(inputs, shape, scale):
    return -GammaShare.apply(margin(inputs), shape, scale).log(), *rewards(inputs, shape * scale)


def mixdpo_lognormal(inputs, beta, spread):
    points = torch.arange(-12, 13, dtype=torch.float64) / 2
    density = torch.distributions.Normal(0.0, 1.0).log_prob(points)
    log_weights = density - density.logsumexp(0)
    betas = (spread * points).exp()
    betas = beta * betas / (log_weights.exp() * betas).sum()
    terms = log_weights - logistic_loss(margin(inputs)[:, None] * betas)
    return -terms.logsumexp(1), *rewards(inputs, beta)


def sparsepo(inputs, beta, reward_sparsity, divergence_sparsity):
    def side(name):
        mask = inputs[f"{name}_token_mask"]
        reward, kl = inputs[f"{name}_token_weights"] * mask, inputs[f"{name}_token_kl_weights"] * mask
        ratios = inputs[f"policy_{name}_token_logps"] - inputs[f"reference_{name}_token_logps"]
        cost = reward_sparsity * reward.abs().sum(1) + divergence_sparsity * kl.abs().sum(1)
        return (reward * ratios).sum(1), (kl * inputs[f"{name}_token_kl"]).sum(1), cost

    (u_w, d_w, cost_w), (u_l, d_l, cost_l) = map(side, SIDES)
    loss = logistic_loss(beta * ((u_w - u_l) - (d_l - d_w))) + cost_w + cost_l
    return loss, beta * u_w.detach(), beta * u_l.detach()


def spo_sequential(inputs, beta, first_beta, alpha):
    first = difference(inputs, "reference_{}_logps") - difference(inputs, "base_{}_logps")
    return logistic_loss(beta * margin(inputs) - alpha * first_beta * first), *rewards(inputs, beta)


def mapl(inputs, beta):
    chosen, rejected = (beta * logratio(inputs, side) for side in SIDES)
    return torch.logaddexp(chosen, rejected) - chosen, chosen.detach(), rejected.detach()


def spo_self_supervised(inputs, beta, gamma):
    chosen, rejected = (beta * logratio(inputs, side) for side in SIDES)
    loss = torch.logaddexp(chosen, rejected) - chosen - gamma * inputs["degree_logps"]
    return loss, chosen.detach(), rejected.detach()


def svpo(inputs, beta, value_weight, margin_weight, margin_):
    squares = sum((inputs[f"{side}_values"] - inputs[f"{side}_scores"]) ** 2 for side in SIDES) / 2
    order = F.relu(margin_ - difference(inputs, "{}_values"))
    loss = logistic_loss(beta * margin(inputs)) + value_weight * squares + margin_weight * order
    return loss, *rewards(inputs, beta)


def upo(inputs, beta, label_noise, lambda_):
    unsure = inputs["uncertainties"].detach()
    printed = 1 / ((1 - unsure) / (1 - unsure).sum() + 1)
    alpha = {"entropy": unsure / math.log(4), "half": unsure / 2, "printed": printed}[label_noise]
    loss = F.binary_cross_entropy_with_logits(beta * margin(inputs), 1 - alpha, reduction="none")
    return loss - lambda_ * inputs["policy_chosen_logps"] / inputs["chosen_lengths"], *rewards(inputs, beta)


def vpo(inputs, beta, alpha):
    loss = logistic_loss(beta * margin(inputs)) - alpha * beta * logratio(inputs, "chosen")
    return loss, *rewards(inputs, beta)


def weighed(inputs, side):
    """A side's log-ratio over its weighed tokens."""
    weights = inputs[f"{side}_token_weights"] * inputs[f"{side}_token_mask"]
    return (weights * (inputs[f"policy_{side}_token_logps"] - inputs[f"reference_{side}_token_logps"])).sum(1)


def iterpref(inputs, beta, alpha):
    chosen, rejected = (weighed(inputs, side) for side in SIDES)
    loss = logistic_loss(beta * (chosen - rejected))
    likelihood = inputs["policy_chosen_logps"] / inputs["chosen_lengths"]
    return loss - alpha * likelihood, beta * chosen.detach(), beta * rejected.detach()


def preflexor(inputs, beta, epsilon):
    chosen, rejected = (weighed(inputs, side) for side in SIDES)
    x = beta * (chosen - rejected)
    won = torch.sigmoid(x) * (-logistic_loss(x) - math.log(1 - epsilon))
    lost = torch.sigmoid(-x) * (-logistic_loss(-x) - math.log(epsilon))
    return won + lost, beta * chosen.detach(), beta * rejected.detach()


def selm(inputs, beta, alpha):
    return logistic_loss(beta * margin(inputs)) + alpha * beta * inputs["policy_gold_logps"], *rewards(inputs, beta)


def typo(inputs, lambda_):
    chosen, rejected = (inputs[f"policy_{side}_logps"] for side in SIDES)
    odds = chosen - torch.logaddexp(chosen, rejected)
    return -odds - lambda_ * inputs["policy_gold_logps"], chosen.detach(), rejected.detach()


def rdpo_rationale(inputs, beta, gamma):
    return logistic_loss(beta * margin(inputs)) + logistic_loss(gamma * inputs["policy_gold_logps"]), *rewards(inputs, beta)


def rorpo(inputs, lambda_, gamma):
    means = [inputs[f"policy_{side}_logps"] / inputs[f"{side}_lengths"] for side in SIDES]
    chosen, rejected = (mean - torch.log(-torch.expm1(mean)) for mean in means)
    loss = -means[0] + lambda_ * logistic_loss(chosen - rejected) + logistic_loss(gamma * inputs["policy_gold_logps"])
    return loss, *(lambda_ * mean.detach() for mean in means)


# --- single completions ---------------------------------------------------------------------------


def apo_action(inputs, beta, desirable_weight, undesirable_weight, desirable_rate, undesirable_rate):
    ratio = inputs["policy_logps"] - inputs["reference_logps"]
    errors, is_desirable = inputs["scores"].detach(), inputs["labels"] == 1
    share = (errors + 1e-4) / (errors.sum() + 1e-4)
    loss = torch.where(
        is_desirable,
        desirable_weight * (1 - torch.exp(-desirable_rate * share)) * torch.sigmoid(-beta * (ratio - inputs["kl"].detach())),
        undesirable_weight * torch.exp(-undesirable_rate * share) * torch.sigmoid(beta * (ratio - inputs["kl"].detach())),
    )
    return loss, beta * ratio.detach(), None


def pmpo(inputs, alpha, beta):
    labels = inputs["labels"].detach()
    likelihood = ((1 - labels) * (1 - alpha) - labels * alpha) * inputs["policy_logps"]
    divergence = (inputs["token_kl"] * inputs["token_mask"]).sum(1)
    return likelihood + beta * divergence, (inputs["policy_logps"] - inputs["reference_logps"]).detach(), None


# --- lists ------------------------------------------------------------------------------------------


def list_inputs(seed=22, size=Size(23, 6.0, 4)) -> dict:
    """Lists of completions, as many as a completion would have tokens; two of some have equal scores, none of them the best."""
    generator = torch.Generator().manual_seed(seed)
    shape, dtype = (size.rows, size.longest), torch.float64
    scores = torch.rand(shape, generator=generator, dtype=dtype) * 3
    order, tied = scores.argsort(1), size.rows // 3 + 1 if size.longest > 2 else 0
    scores[:tied] = scores[:tied].scatter(1, order[:tied, 1:2], scores[:tied].gather(1, order[:tied, :1]))
    reference = -40 * torch.rand(shape, generator=generator, dtype=dtype)
    policy = reference + 2 * size.span * torch.rand(shape, generator=generator, dtype=dtype) - size.span
    draws = torch.rand(size.rows, generator=generator, dtype=dtype)
    return {"policy_logps": policy, "reference_logps": reference, "scores": scores, "draws": draws}


def list_rewards(inputs, beta):
    return beta * (inputs["policy_logps"] - inputs["reference_logps"])


def mc_po(inputs, beta, negatives):
    losses = []
    for row, rewards in enumerate(list_rewards(inputs, beta)):
        best = int(inputs["scores"][row].argmax())
        others = [place for place in range(len(rewards)) if place != best]
        if negatives == "kernel":
            shares = torch.softmax(rewards.detach()[others], 0).cumsum(0)
            others = [others[int(torch.searchsorted(shares, inputs["draws"][row].detach(), right=True))]]
        losses.append(F.cross_entropy(rewards[[best, *others]][None], torch.tensor([0])))
    return torch.stack(losses), list_rewards(inputs, beta).detach(), None


def tpo_tree(inputs, beta, weights):
    losses = []
    for rewards, scores in zip(list_rewards(inputs, beta), inputs["scores"].detach()):
        ranks = (-rewards.detach()).argsort().argsort() + 1
        loss = torch.zeros((), dtype=torch.float64)
        for i in range(len(rewards)):
            for j in range(len(rewards)):
                if scores[i] > scores[j]:
                    gain = 2 ** scores[i] - 2 ** scores[j]
                    discount = abs(1 / math.log(1 + ranks[i]) - 1 / math.log(1 + ranks[j]))
                    weight = gain * discount if weights == "lambda" else 1.0
                    loss = loss + weight * logistic_loss(rewards[i] - rewards[j])
        losses.append(loss)
    return torch.stack(losses), list_rewards(inputs, beta).detach(), None


# --- the table of cases -----------------------------------------------------------------------------

SEQUENCES = [f"{who}_{side}_logps" for who in ("policy", "reference") for side in SIDES]
LENGTHS = [f"{side}_lengths" for side in SIDES]
BASE = [f"base_{side}_logps" for side in SIDES]
SCORES = [f"{side}_scores" for side in SIDES]
VALUES = [f"{side}_values" for side in SIDES]
GOLD = ["policy_gold_logps", "gold_lengths"]
TOKENS = [
    *(f"{side}_token_mask" for side in SIDES),
    *(f"{who}_{side}_token_logps" for who in ("policy", "reference") for side in SIDES),
    *(f"{side}_token_kl" for side in SIDES),
]
WEIGHTS = [f"{side}_token_{of}weights" for side in SIDES for of in ("", "kl_")]
UNPAIRED = ["policy_logps", "reference_logps", "labels"]
LISTS = ["policy_logps", "reference_logps", "scores"]
UNPAIRED_TOKENS = ["token_mask", "policy_token_logps", "reference_token_logps", "token_kl"]


@dataclass
class Case:
    objective: str
    name: str
    run: Callable
    options: dict
    inputs: list
    draw: Callable


def case(objective, run, reads, draw=pair_inputs):
    """Cases of one objective by their names."""
    return lambda **cases: [Case(objective, name, run, options, reads, draw) for name, options in cases.items()]


CASES = [
    *case("apo-action", apo_action, [*UNPAIRED, "kl", "scores"], unpaired_inputs)(
        published=dict(beta=0.1, desirable_weight=1.0, undesirable_weight=1.0, desirable_rate=1.0, undesirable_rate=1.0),
        weighted=dict(beta=0.5, desirable_weight=1.5, undesirable_weight=0.75, desirable_rate=20.0, undesirable_rate=5.0),
    ),
    *case("cardinal", cardinal, [*SEQUENCES, "margins"])(
        plain=dict(beta=0.1, unit=1.0), coarse=dict(beta=0.5, unit=2.5)
    ),
    *case("discopop-aqfl", aqfl, SEQUENCES)(published=dict(beta=0.05, tau=0.05), blunt=dict(beta=0.2, tau=2.0)),
    *case("discopop-aql", aql, SEQUENCES)(published=dict(beta=0.05, tau=0.05), blunt=dict(beta=0.2, tau=2.0)),
    *case("discopop-cell", cell, SEQUENCES)(published=dict(beta=0.05), strong=dict(beta=0.2)),
    *case("discopop-dbaql", dbaql, SEQUENCES)(published=dict(beta=0.05, tau=0.05), blunt=dict(beta=0.01, tau=1.0)),
    *case("discopop-padll", padll, SEQUENCES)(published=dict(beta=0.05), strong=dict(beta=0.5)),
    *case("discopop-pfl", pfl, SEQUENCES)(published=dict(beta=0.05, tau=0.05), strong=dict(beta=0.5, tau=0.8)),
    *case("egpo", egpo, [*SEQUENCES, "margins"])(beta01=dict(beta=0.1), beta2=dict(beta=2.0)),
    *case("general-preference", general_preference, [*SEQUENCES, *SCORES])(
        published=dict(beta=0.001), gentle=dict(beta=0.1)
    ),
    *case("ilr_dpo", ilr_dpo, [*SEQUENCES, *LENGTHS])(
        published=dict(beta=0.1, alpha=0.02), strong=dict(beta=0.5, alpha=0.3)
    ),
    *case("inpo-nash", inpo, [*SEQUENCES, *BASE])(
        published=dict(eta=0.0075, tau=0.0025), free=dict(eta=0.1, tau=0.0), bound=dict(eta=0.1, tau=0.1)
    ),
    *case("iterpref", iterpref, [*SEQUENCES, *LENGTHS, *TOKENS, *WEIGHTS])(
        published=dict(beta=0.1, alpha=1.0), focal=dict(beta=0.5, alpha=0.0)
    ),
    *case("mapl", mapl, SEQUENCES)(default=dict(beta=0.1), strong=dict(beta=0.5)),
    *case("mc_po", mc_po, [*LISTS, "draws"], list_inputs)(kernel=dict(beta=0.1, negatives="kernel")),
    *case("mc_po", mc_po, LISTS, list_inputs)(all=dict(beta=0.5, negatives="all")),
    *case("mixdpo-gamma", mixdpo_gamma, SEQUENCES)(
        narrow=dict(shape=4.0, scale=0.025), broad=dict(shape=0.5, scale=1.0)
    ),
    *case("mixdpo-lognormal", mixdpo_lognormal, SEQUENCES)(
        narrow=dict(beta=0.1, spread=0.5), broad=dict(beta=0.5, spread=2.0)
    ),
    *case("pmpo", pmpo, [*UNPAIRED, *UNPAIRED_TOKENS], unpaired_inputs)(
        half=dict(alpha=0.5, beta=1.0), positive=dict(alpha=1.0, beta=0.0), negative=dict(alpha=0.0, beta=2.0)
    ),
    *case("preflexor", preflexor, [*SEQUENCES, *TOKENS, *WEIGHTS])(
        published=dict(beta=0.5, epsilon=0.005), noisy=dict(beta=0.1, epsilon=0.2)
    ),
    *case("rdpo-rationale", rdpo_rationale, [*SEQUENCES, *GOLD])(
        published=dict(beta=0.1, gamma=0.1), strong=dict(beta=0.5, gamma=1.0)
    ),
    *case("rorpo", rorpo, [*SEQUENCES, *LENGTHS, *GOLD], proper_inputs)(
        published=dict(**{"lambda": 0.1}, gamma=1.0), weak=dict(**{"lambda": 2.0}, gamma=0.05)
    ),
    *case("selm", selm, [*SEQUENCES, *GOLD])(published=dict(beta=0.01, alpha=0.001), strong=dict(beta=0.5, alpha=0.3)),
    *case("sparsepo", sparsepo, [*SEQUENCES, *TOKENS, *WEIGHTS])(
        free=dict(beta=0.1, reward_sparsity=0.0, divergence_sparsity=0.0),
        sparse=dict(beta=0.8, reward_sparsity=0.01, divergence_sparsity=0.003),
    ),
    *case("spo-self-supervised", spo_self_supervised, [*SEQUENCES, "degree_logps"])(
        default=dict(beta=0.1, gamma=0.1), strong=dict(beta=0.5, gamma=2.0)
    ),
    *case("spo-sequential", spo_sequential, [*SEQUENCES, *BASE])(
        first=dict(beta=0.1, first_beta=0.1, alpha=1.0), uneven=dict(beta=0.5, first_beta=0.2, alpha=0.4)
    ),
    *case("sppo", sppo, [*SEQUENCES, *SCORES])(published=dict(beta=0.001), gentle=dict(beta=0.1)),
    *case("svpo", svpo, [*SEQUENCES, *SCORES, *VALUES])(
        plain=dict(beta=0.1, value_weight=1.0, margin_weight=1.0, margin=0.1),
        strict=dict(beta=0.5, value_weight=0.2, margin_weight=3.0, margin=0.7),
    ),
    *case("tpo-tree", tpo_tree, LISTS, list_inputs)(
        published=dict(beta=0.5, weights="lambda"), weak=dict(beta=0.1, weights="lambda"),
        equal=dict(beta=0.2, weights="equal"),
    ),
    *case("typo", typo, [*SEQUENCES, *GOLD])(tenth=dict(**{"lambda": 0.1}), strong=dict(**{"lambda": 5.0})),
    *case("upo", upo, [*SEQUENCES, *LENGTHS, "uncertainties"])(
        entropy=dict(beta=0.1, label_noise="entropy", **{"lambda": 1.0}),
        half=dict(beta=0.5, label_noise="half", **{"lambda": 0.0}),
        printed=dict(beta=0.1, label_noise="printed", **{"lambda": 0.2}),
    ),
    *case("vpo", vpo, SEQUENCES)(weak=dict(beta=0.1, alpha=0.1), strong=dict(beta=0.5, alpha=2.0)),
]

# Options whose names Python or a helper above has taken.
RENAMED = {"lambda": "lambda_", "margin": "margin_"}


def evaluate(case: Case, drawn: dict) -> dict:
    inputs = {name: drawn[name].clone().requires_grad_() for name in case.inputs}
    options = {RENAMED.get(name, name): value for name, value in case.options.items()}
    losses, first_rewards, second_rewards = case.run(inputs, **options)
    losses.sum().backward()
    is_data = lambda name: name == "kl" or name.endswith(DATA)  # noqa: E731
    gradients = {
        f"grad.{name}": torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        for name, tensor in inputs.items()
        if not is_data(name)
    }
    names = ["rewards"] if second_rewards is None else ["chosen_rewards", "rejected_rewards"]
    implied = dict(zip(names, (first_rewards, second_rewards)))
    return inputs | {"per_pair_loss": losses} | implied | gradients


def main() -> None:
    folder = target_folder("objectives_papers", __doc__)
    index = []
    for case in CASES:
        tensors = evaluate(case, case.draw())
        assert all(tensor.dtype == torch.float64 and tensor.isfinite().all() for tensor in tensors.values()), case
        file = f"{case.objective}.{case.name}.safetensors"
        write_tensors(folder / file, tensors)
        index.append({
            "file": file, "objective": case.objective, "options": case.options, "inputs": case.inputs,
            "outputs": [name for name in tensors if name not in case.inputs],
        })  # fmt: skip
    write_json(folder / "cases.json", index)
    write_made_by(folder, "objectives_papers.py", ["torch", "mpmath"], {
        "gradients": "grad.<input> is the gradient of the sum of per_pair_loss",
    })  # fmt: skip


if __name__ == "__main__":
    main()
