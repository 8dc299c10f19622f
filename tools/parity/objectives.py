"""Objective values and gradients, from TRL's own loss code, on given log-probabilities.

Writes objectives/<id>.<case>.safetensors (inputs and outputs, f64) and objectives/cases.json
(the options of each case, under TRL's names and under this project's).

How TRL is called: `DPOTrainer._compute_loss` and `KTOTrainer._compute_loss` are run unbound on a
stand-in trainer whose model returns the wanted log-probabilities, one row at a time (TRL returns
the batch mean only), or all rows at once where ranks over the batch are compared;
`RewardTrainer.compute_loss` gets a stand-in model that returns the wanted rewards;
`CPOTrainer.cpo_loss` and `ORPOTrainer.odds_ratio_loss` are plain functions of two tensors. What
TRL rounds to f32 on the way (constants, odds) is kept in f64. Where TRL has no code for a case
(label smoothing with the sigmoid loss), the paper's formula is written here and the case says
`"source": "formula"`.

A new TRL loss is one row of CASES. `check_objectives.py` runs the same rows on random batches.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace

from common import Size, target_folder, torch, write_json, write_made_by, write_tensors

import torch.nn.functional as F
from trl import DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

PAIR_INPUTS = [
    "policy_chosen_logps",
    "policy_rejected_logps",
    "reference_chosen_logps",
    "reference_rejected_logps",
    "chosen_lengths",
    "rejected_lengths",
]
SIDES = ["chosen", "rejected"]
POLICY_INPUTS = ["policy_chosen_logps", "policy_rejected_logps", "chosen_lengths", "rejected_lengths"]
TOKEN_INPUTS = [
    *PAIR_INPUTS,
    *(f"{side}_token_mask" for side in SIDES),
    *(f"{who}_{side}_token_logps" for who in ("policy", "reference") for side in SIDES),
    *(f"{side}_token_kl" for side in SIDES),
]
DENOISED_INPUTS = [
    *(f"{who}_{side}_logps" for who in ("policy", "reference") for side in SIDES),
    *(f"{who}_{side}_errors" for who in ("policy", "reference") for side in SIDES),
    *(f"{side}_distances" for side in SIDES),
    "margins",
]
# Inputs that are data, not variables: no gradient is claimed for them.
DATA = {
    *("labels", "kl", "mean_logratio", "margins", "lengths", "gold_lengths"),
    *(f"{side}_{what}" for side in SIDES for what in ("lengths", "token_mask", "alignment")),
}


# --- inputs -------------------------------------------------------------------------------------


EXTREMES = [0.0, 1.0, -1.0, 40.0, -40.0, 200.0, -200.0]


def uniform(generator, low, high, *shape):
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def pair_inputs(seed=7, size=Size(24)) -> dict:
    """Ordinary pairs, then pairs whose margin is 0, ±1, ±40 and ±200 nats (exactly)."""
    generator = torch.Generator().manual_seed(seed)
    margins = torch.tensor(EXTREMES if size.extremes else [], dtype=torch.float64)
    count, total = size.rows, size.rows + len(margins)
    reference_chosen, reference_rejected = (uniform(generator, -120, -5, total) for _ in SIDES)
    # Multiples of 1/8 keep the exact margins exact through the subtractions.
    reference_chosen[count:] = (reference_chosen[count:] * 8).round() / 8
    reference_rejected[count:] = (reference_rejected[count:] * 8).round() / 8
    policy_chosen = reference_chosen + uniform(generator, -size.span, size.span, total)
    policy_rejected = reference_rejected + uniform(generator, -size.span, size.span, total)
    policy_chosen[count:] = reference_chosen[count:] + margins / 2
    policy_rejected[count:] = reference_rejected[count:] - margins / 2
    return {
        "policy_chosen_logps": policy_chosen,
        "policy_rejected_logps": policy_rejected,
        "reference_chosen_logps": reference_chosen,
        "reference_rejected_logps": reference_rejected,
        "chosen_lengths": torch.randint(1, size.longest + 1, (total,), generator=generator).double(),
        "rejected_lengths": torch.randint(1, size.longest + 1, (total,), generator=generator).double(),
    }


def ordinary_inputs(seed=12, size=Size(24)) -> dict:
    """Ordinary pairs alone: where a score grows exponentially, extremes have no numbers."""
    return pair_inputs(seed, Size(size.rows, min(size.span, 30.0), size.longest, extremes=False))


def scored_inputs(seed=13, size=Size(24)) -> dict:
    """Pairs with the difference of their scores, above 0."""
    inputs = pair_inputs(seed, size)
    generator = torch.Generator().manual_seed(seed + 1)
    return inputs | {"margins": uniform(generator, 0.05, 3, len(inputs["chosen_lengths"]))}


def aligned_inputs(seed=15, size=Size(24)) -> dict:
    """Pairs with how likely each completion is beside what the policy would write."""
    inputs = pair_inputs(seed, size)
    generator = torch.Generator().manual_seed(seed + 1)
    rows = len(inputs["chosen_lengths"])
    return inputs | {f"{side}_alignment": uniform(generator, -1.5, 0.5, rows) for side in SIDES}


def policy_inputs(seed=17, size=Size(24)) -> dict:
    """Pairs of log-probabilities below 0, without a reference; of the last ones nearly every token is certain."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for side in SIDES:
        lengths = torch.randint(1, size.longest + 1, (size.rows,), generator=generator).double()
        mean = uniform(generator, -size.span / 2, -0.01, size.rows)
        mean[-4:] = mean[-4:] * 1e-3
        inputs |= {f"policy_{side}_logps": mean * lengths, f"{side}_lengths": lengths}
    return {name: inputs[name] for name in POLICY_INPUTS}


def gold_inputs(seed=18, size=Size(24)) -> dict:
    """The same with a third completion."""
    inputs = policy_inputs(seed, size)
    generator = torch.Generator().manual_seed(seed + 1)
    lengths = torch.randint(1, size.longest + 1, (size.rows,), generator=generator).double()
    mean = uniform(generator, -size.span / 2, -0.01, size.rows)
    return inputs | {"policy_gold_logps": mean * lengths, "gold_lengths": lengths}


def reward_inputs(seed=19, size=Size(24)) -> dict:
    """Rewards of pairs, then pairs whose rewards are 0, ±1, ±40 and ±200 apart, with margins of which some are 0."""
    generator = torch.Generator().manual_seed(seed)
    apart = torch.tensor(EXTREMES if size.extremes else [], dtype=torch.float64)
    total = size.rows + len(apart)
    chosen, rejected = (uniform(generator, -size.span, size.span, total) for _ in SIDES)
    # Multiples of 1/8 keep the exact differences exact.
    chosen[size.rows :] = (chosen[size.rows :] * 8).round() / 8
    rejected[size.rows :] = chosen[size.rows :] - apart
    margins = uniform(generator, -1, 3, total).clamp(min=0)
    return {"policy_chosen_rewards": chosen, "policy_rejected_rewards": rejected, "margins": margins}


def unmargined_inputs(seed=20, size=Size(24)) -> dict:
    """The same without margins."""
    inputs = reward_inputs(seed, size)
    return {name: inputs[name] for name in inputs if name != "margins"}


def unpaired_inputs(kl: float, seed=8, size=Size(18)) -> dict:
    """Rows of both labels; log-ratios 0, ±1, ±40 and ±200 under each label come last."""
    generator = torch.Generator().manual_seed(seed)
    ratios = torch.tensor(EXTREMES if size.extremes else [], dtype=torch.float64)
    ordinary = 2 * size.span * torch.rand(size.rows, generator=generator, dtype=torch.float64) - size.span
    logratios = torch.cat([ordinary, ratios, ratios])
    labels = (torch.rand(size.rows, generator=generator) < 0.5).double()
    labels = torch.cat([labels, torch.ones_like(ratios), torch.zeros_like(ratios)])
    reference = -5 - 115 * torch.rand(len(logratios), generator=generator, dtype=torch.float64)
    reference = (reference * 8).round() / 8
    return {
        "policy_logps": reference + logratios,
        "reference_logps": reference,
        "labels": labels.double(),
        "kl": torch.tensor(kl, dtype=torch.float64),
    }


def shifted_inputs(mean: float, seed=8, size=Size(18)) -> dict:
    """The same with a running mean of log-ratios in the place of a divergence."""
    inputs = unpaired_inputs(mean, seed, size)
    return {name: inputs[name] for name in ("policy_logps", "reference_logps", "labels")} | {
        "mean_logratio": inputs["kl"]
    }


def token_inputs(seed=9, size=Size(16, 1.5, 9)) -> dict:
    """Pairs token by token, and numbers that mean nothing behind their ends."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    inputs, rows = {}, size.rows
    for side, width in zip(SIDES, (size.longest, max(size.longest - 2, 1))):
        lengths = torch.randint(1, width + 1, (rows,), generator=generator)
        mask = (torch.arange(width)[None] < lengths[:, None]).double()
        reference = -4 * draw(rows, width)
        policy = reference + 2 * size.span * draw(rows, width) - size.span
        inputs |= {
            f"policy_{side}_logps": (policy * mask).sum(1),
            f"reference_{side}_logps": (reference * mask).sum(1),
            f"{side}_lengths": lengths.double(),
            f"{side}_token_mask": mask,
            f"policy_{side}_token_logps": policy,
            f"reference_{side}_token_logps": reference,
            f"{side}_token_kl": draw(rows, width),
        }
    return {name: inputs[name] for name in TOKEN_INPUTS}


def length_inputs(seed=10, size=Size(18)) -> dict:
    """Completions with labels and lengths."""
    inputs = unpaired_inputs(0.0, seed - 2, size)
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, size.longest + 1, (len(inputs["labels"]),), generator=generator).double()
    return {name: inputs[name] for name in ("policy_logps", "reference_logps", "labels")} | {"lengths": lengths}


def denoised_inputs(seed=11, size=Size(24)) -> dict:
    """Pairs of latents: errors, distances within the triangle that they span, log-ratios near and beyond a bound.

    Errors are means over a latent of noise of unit variance: their scale is the span's tenth, and never above a few.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = min(size.span / 10, 3.0)

    def draw(low, high):
        return low + (high - low) * torch.rand(size.rows, generator=generator, dtype=torch.float64)

    inputs = {}
    for side in SIDES:
        error, reference = draw(0.001, largest), draw(0.001, largest)
        # |a - b|^2 lies between (|a| - |b|)^2 and (|a| + |b|)^2.
        share = draw(0, 1)
        low, high = (error.sqrt() - reference.sqrt()) ** 2, (error.sqrt() + reference.sqrt()) ** 2
        inputs |= {
            f"policy_{side}_errors": error,
            f"reference_{side}_errors": reference,
            f"{side}_distances": low + share * (high - low),
            f"policy_{side}_logps": draw(-1.2, -0.8),
            f"reference_{side}_logps": torch.full((size.rows,), -1.0, dtype=torch.float64),
        }
    inputs["margins"] = draw(-0.05, 0.25)
    return {name: inputs[name] for name in DENOISED_INPUTS}


# --- TRL's code, called in isolation --------------------------------------------------------------


class OneProcess:
    """The parts of an Accelerator that the loss functions touch."""

    device = torch.device("cpu")

    def gather(self, tensor):
        return tensor

    gather_for_metrics = gather


class StandInModel(torch.nn.Module):
    """Returns the given log-probabilities of tokens, or ones whose rows sum to those of the given sequences."""

    is_gradient_checkpointing = False

    def __init__(self, logps, alignment=None):
        super().__init__()
        self.logps, self.alignment = logps, alignment

    def forward(self, input_ids, labels, **_ignored):
        rows, tokens = input_ids.shape[0], input_ids.shape[1] - 1
        first = torch.zeros(rows, tokens, dtype=self.logps.dtype)
        first[:, 0] = 1.0
        zeros = torch.zeros(rows, tokens, dtype=self.logps.dtype)
        log_probs = self.logps[:, :tokens] if self.logps.dim() == 2 else self.logps[:, None] * first
        # What makes the mean over tokens the wanted one, without a gradient; TRL masks the padding.
        aligned = zeros if self.alignment is None else self.alignment[:, None].expand(rows, tokens)
        return SimpleNamespace(
            log_probs=log_probs,
            log_sum_sq_probs=log_probs - aligned,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
        )


def stand_in_trainer(policy, reference, **options):
    return SimpleNamespace(
        model=policy,
        ref_model=reference,
        accelerator=OneProcess(),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=options.pop("discopop_tau", 0.05)),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **options,
    )


def completion_batch(lengths) -> dict:
    """One prompt token and `length` completion tokens a row, right padded; the ids do not matter."""
    width = 1 + int(max(lengths))
    positions = torch.arange(width)[None]
    lengths = torch.as_tensor(lengths).long()[:, None]
    return {
        "input_ids": torch.ones(len(lengths), width, dtype=torch.long),
        "attention_mask": (positions < 1 + lengths).long(),
        "completion_mask": ((positions >= 1) & (positions < 1 + lengths)).long(),
    }


def both_sides(inputs: dict, who: str, pair: int, trl: dict):
    """Log-probabilities of a pair's two sequences, or of their tokens where TRL weighs those (0 behind the end)."""
    if trl.get("ld_alpha") is None:
        return torch.stack([inputs[f"{who}_{side}_logps"][pair] for side in SIDES])
    rows = [inputs[f"{who}_{side}_token_logps"][pair] * inputs[f"{side}_token_mask"][pair] for side in SIDES]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def dpo_trainer(trl: dict, policy, reference):
    types = trl["loss_type"] if isinstance(trl["loss_type"], list) else [trl["loss_type"]]
    return stand_in_trainer(
        policy,
        reference,
        loss_types=types,
        loss_weights=trl.get("loss_weights", [1.0] * len(types)),
        beta=trl["beta"],
        label_smoothing=trl.get("label_smoothing", 0.0),
        ld_alpha=trl.get("ld_alpha"),
        f_divergence_type=trl.get("f_divergence_type", "reverse_kl"),
        use_weighting=trl.get("use_weighting", False),
        discopop_tau=trl.get("discopop_tau", 0.05),
    )


def trl_dpo(inputs: dict, trl: dict):
    losses, rewards = [], []
    for pair in range(len(inputs["policy_chosen_logps"])):
        alignment = None
        if trl.get("use_weighting"):
            alignment = torch.stack([inputs[f"{side}_alignment"][pair] for side in SIDES])
        policy = StandInModel(both_sides(inputs, "policy", pair, trl), alignment)
        trainer = dpo_trainer(trl, policy, StandInModel(both_sides(inputs, "reference", pair, trl)))
        batch = completion_batch([inputs["chosen_lengths"][pair], inputs["rejected_lengths"][pair]])
        losses.append(KeepGradient.run(DPOTrainer._compute_loss, trainer, policy, batch))
        metrics = trainer._metrics["train"]
        rewards.append([metrics["rewards/chosen"][0], metrics["rewards/rejected"][0]])
    if trl.get("f_divergence_type"):
        # TRL logs the rewards of the reverse KL whatever the divergence.
        score = {"forward_kl": lambda u: 1 - (-u).exp(), "js_divergence": lambda u: math.log(2) + F.logsigmoid(u)}
        rewards = [(score[trl["f_divergence_type"]](u) * trl["beta"]).detach() for u in log_ratios(inputs)]
        return torch.stack(losses), *rewards
    chosen, rejected = torch.tensor(rewards, dtype=torch.float64).T
    return torch.stack(losses), chosen, rejected


def trl_aot(inputs: dict, trl: dict):
    """All rows at once. TRL returns the mean: the loss of each rank is told apart by its formula, and must sum to TRL's."""
    sides = {who: torch.cat([inputs[f"{who}_{side}_logps"] for side in SIDES]) for who in ("policy", "reference")}
    policy, reference = StandInModel(sides["policy"]), StandInModel(sides["reference"])
    trainer = dpo_trainer(trl, policy, reference)
    rows = len(inputs["chosen_lengths"])
    batch = completion_batch(torch.cat([inputs[f"{side}_lengths"] for side in SIDES]))
    total = KeepGradient.run(DPOTrainer._compute_loss, trainer, policy, batch) * rows
    chosen, rejected = log_ratios(inputs)
    ahead, behind = chosen, rejected
    if trl["loss_type"] == "aot":
        ahead, behind = (
            inputs[f"{who}_chosen_logps"] - inputs[f"{who}_rejected_logps"] for who in ("policy", "reference")
        )
    rank = ahead.argsort().argsort()
    z, smoothing = trl["beta"] * (ahead - behind.sort()[0][rank]), trl.get("label_smoothing", 0.0)
    losses = -(1 - smoothing) * F.logsigmoid(z) - smoothing * F.logsigmoid(-z)
    torch.testing.assert_close(losses.sum(), total, rtol=1e-12, atol=1e-12)
    # The values of the formula with the gradient of TRL's own sum.
    losses = losses.detach() + (total - total.detach()) / rows
    return losses, (trl["beta"] * chosen).detach(), (trl["beta"] * rejected).detach()


class KeepGradient:
    """Runs a `_compute_loss`, letting the *reference* keep its gradient too.

    TRL evaluates the reference under `no_grad`; a gradient with respect to the reference
    log-probabilities is wanted here (it is an input like any other), so `no_grad` is made a no-op.
    """

    @staticmethod
    def run(compute_loss, trainer, model, batch):
        no_grad, torch.no_grad = torch.no_grad, torch.enable_grad
        try:
            with double_precision():
                return compute_loss(trainer, model, batch, False)
        finally:
            torch.no_grad = no_grad


@contextlib.contextmanager
def double_precision():
    """TRL makes f32 of constants, and of odds: here they stay f64."""
    to_float, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.Tensor.float = to_float
        torch.set_default_dtype(torch.float32)


def trl_cpo(inputs: dict, trl: dict):
    """`cpo_loss` as it is, and the likelihood term, which the trainer makes of logits, by its formula."""
    trainer = SimpleNamespace(
        accelerator=OneProcess(),
        beta=trl["beta"],
        label_smoothing=trl.get("label_smoothing", 0.0),
        loss_type=trl["loss_type"],
        simpo_gamma=trl.get("simpo_gamma", 0.0),
        alpha=trl.get("alpha", 0.0),
    )
    logps = [inputs[f"policy_{side}_logps"] for side in SIDES]
    means = [inputs[f"policy_{side}_logps"] / inputs[f"{side}_lengths"] for side in SIDES]
    # CPOTrainer averages over tokens before `cpo_loss` for the simpo and ipo losses.
    losses, *rewards = CPOTrainer.cpo_loss(trainer, *(means if trl["loss_type"] == "simpo" else logps))
    return losses - trl["cpo_alpha"] * means[0], *rewards


class StandInRewardModel(torch.nn.Module):
    """Returns the given rewards, (rows, 1)."""

    def __init__(self, rewards):
        super().__init__()
        self.rewards = rewards

    def forward(self, **_ignored):
        return SimpleNamespace(logits=self.rewards[:, None])


def trl_reward(inputs: dict, trl: dict):
    """A pair at a time: TRL returns the mean."""
    losses = []
    for pair in range(len(inputs["policy_chosen_rewards"])):
        model = StandInRewardModel(torch.stack([inputs[f"policy_{side}_rewards"][pair] for side in SIDES]))
        trainer = SimpleNamespace(
            model=model, args=SimpleNamespace(**trl), accelerator=OneProcess(), _total_train_tokens=0, _tp_size=1,
            _metrics={"train": defaultdict(list)},
        )  # fmt: skip
        batch = {"attention_mask": torch.ones(2, 1, dtype=torch.long)}
        if "margins" in inputs:
            batch["margin"] = inputs["margins"][pair]
        losses.append(RewardTrainer.compute_loss(trainer, model, batch))
    return torch.stack(losses), *(inputs[f"policy_{side}_rewards"].detach() for side in SIDES)


def trl_orpo(inputs: dict, trl: dict):
    means = [inputs[f"policy_{side}_logps"] / inputs[f"{side}_lengths"] for side in SIDES]
    trainer = SimpleNamespace(accelerator=OneProcess(), beta=trl["beta"])
    with double_precision():
        ratios, *rewards, _, _ = ORPOTrainer.odds_ratio_loss(trainer, *means)
    return -means[0] - ratios, *rewards


def trl_kto(inputs: dict, trl: dict):
    losses, rewards = [], []
    for row, desirable in enumerate(inputs["labels"].tolist()):
        policy, reference = (StandInModel(inputs[f"{who}_logps"][row : row + 1]) for who in ("policy", "reference"))
        # The KL estimate is the mean policy log-ratio of mismatched rows: hand it over as that.
        kl_logps = {id(policy): inputs["kl"].detach().reshape(1), id(reference): torch.zeros(1, dtype=torch.float64)}
        trainer = stand_in_trainer(
            policy,
            reference,
            calculate_KL=trl["loss_type"] == "kto",
            _compute_kl_logps=lambda model, _batch, kl_logps=kl_logps: kl_logps[id(model)],
            loss_type=trl["loss_type"],
            beta=trl["beta"],
            desirable_weight=trl["desirable_weight"],
            undesirable_weight=trl["undesirable_weight"],
        )
        batch = completion_batch([4]) | {"label": torch.tensor([bool(desirable)])}
        losses.append(KeepGradient.run(KTOTrainer._compute_loss, trainer, policy, batch))
        metrics = trainer._metrics["train"]
        rewards.append((metrics["rewards/chosen"] or metrics["rewards/rejected"])[0])
    return torch.stack(losses), torch.tensor(rewards, dtype=torch.float64), None


def trl_sft(inputs: dict, trl: dict):
    """TRL's SFT term of a pair loss: minus the mean over the chosen completion's tokens. Undesirable ones have none."""
    losses = []
    for row, desirable in enumerate(inputs["labels"].tolist()):
        if not desirable:
            losses.append(torch.zeros((), dtype=torch.float64))
            continue
        logps = torch.stack([inputs["policy_logps"][row], torch.zeros((), dtype=torch.float64)])
        policy, reference = StandInModel(logps), StandInModel(torch.zeros(2, dtype=torch.float64))
        trainer = dpo_trainer({"loss_type": "sft", "beta": 0.1}, policy, reference)
        batch = completion_batch([inputs["lengths"][row], 1])
        losses.append(KeepGradient.run(DPOTrainer._compute_loss, trainer, policy, batch))
    return torch.stack(losses), None, None


def summed_sft(inputs: dict, trl: dict):
    """−log π(y|x) of a desirable completion: what TRL divides by the number of tokens of a batch."""
    return -inputs["policy_logps"] * inputs["labels"], None, None


def token_dpo(inputs: dict, trl: dict):
    """Zeng et al. 2024, arXiv:2404.11999, Eq. 15 and 17, written as there: u, and δ of sequence divergences."""
    beta, alpha = trl["beta"], trl["alpha"]
    ratio = {side: inputs[f"policy_{side}_logps"] - inputs[f"reference_{side}_logps"] for side in SIDES}
    divergence = {side: (inputs[f"{side}_token_kl"] * inputs[f"{side}_token_mask"]).sum(1) for side in SIDES}
    u = beta * ratio["chosen"] - beta * ratio["rejected"]
    of_chosen = beta * divergence["chosen"]
    delta = beta * divergence["rejected"] - (of_chosen.detach() if trl["stop_gradient"] else of_chosen)
    rewards = [(beta * ratio[side]).detach() for side in SIDES]
    return -F.logsigmoid(u - alpha * delta), *rewards


def conservative_dpo(inputs: dict, trl: dict):
    """cDPO (Mitchell 2023): −(1−ε) log σ(βh) − ε log σ(−βh). TRL ignores `label_smoothing` here."""
    chosen = inputs["policy_chosen_logps"] - inputs["reference_chosen_logps"]
    rejected = inputs["policy_rejected_logps"] - inputs["reference_rejected_logps"]
    z, smoothing = trl["beta"] * (chosen - rejected), trl["label_smoothing"]
    losses = -(1 - smoothing) * F.logsigmoid(z) - smoothing * F.logsigmoid(-z)
    return losses, (trl["beta"] * chosen).detach(), (trl["beta"] * rejected).detach()


def mapo(inputs: dict, trl: dict):
    """The authors' form: ratios a/(exp(a) - 1) of halved errors."""
    ratio = {}
    for side in SIDES:
        half = 0.5 * inputs[f"policy_{side}_errors"]
        ratio[side] = trl["scale"] * half / (half.exp() - 1)
    losses = inputs["policy_chosen_errors"] - trl["beta"] * F.logsigmoid(ratio["chosen"] - ratio["rejected"])
    return losses, ratio["chosen"].detach(), ratio["rejected"].detach()


def dspo(inputs: dict, trl: dict):
    """(a - c·d)² with a = ε_θ − ε and d = ε_θ − ε_ref, whose product's mean is (L + D − R)/2."""
    beta = trl["beta"]
    change = {side: inputs[f"policy_{side}_errors"] - inputs[f"reference_{side}_errors"] for side in SIDES}
    weight = beta * (1 - torch.sigmoid(-0.5 * beta * (change["chosen"] - change["rejected"])))
    if trl["stop_gradient"]:
        weight = weight.detach()
    distance = inputs["chosen_distances"]
    product = 0.5 * (change["chosen"] + distance)
    losses = inputs["policy_chosen_errors"] - 2 * weight * product + weight**2 * distance
    return losses, *((-0.5 * beta * change[side]).detach() for side in SIDES)


def log_ratios(inputs: dict):
    return (inputs[f"policy_{side}_logps"] - inputs[f"reference_{side}_logps"] for side in SIDES)


def smpo(inputs: dict, trl: dict):
    """Scores of a pair brought to 0 … 1, their softmax p, and 2p − 1 as a factor."""
    chosen, rejected = log_ratios(inputs)
    scores = torch.stack([inputs["margins"].detach(), torch.zeros_like(inputs["margins"]).detach()])
    p = torch.softmax(scores / trl["range"], 0)[0]
    losses = -F.logsigmoid(trl["beta"] * trl["gain"] * (2 * p - 1) * (chosen - rejected))
    return losses, (trl["beta"] * chosen).detach(), (trl["beta"] * rejected).detach()


def d3po(inputs: dict, trl: dict):
    """The authors' form: ratios clamped around 1, and their logarithms."""
    clip = trl["clip"]
    chosen, rejected = (ratio.exp().clamp(1 - clip, 1 + clip).log() for ratio in log_ratios(inputs))
    losses = -F.logsigmoid(trl["beta"] * (chosen - rejected))
    return losses, (trl["beta"] * chosen).detach(), (trl["beta"] * rejected).detach()


def rwr(inputs: dict, trl: dict):
    """Weights exp(r/τ) that sum to 1 in a pair."""
    scores = torch.stack([inputs["margins"].detach(), torch.zeros_like(inputs["margins"]).detach()])
    chosen, rejected = torch.softmax(scores / trl["temperature"], 0)
    policy = [inputs[f"policy_{side}_logps"] for side in SIDES]
    return -(chosen * policy[0] + rejected * policy[1]), policy[0].detach(), policy[1].detach()


def logistic(z):
    return -F.logsigmoid(z)


def implicit_rewards(inputs: dict, beta: float):
    return [beta * ratio for ratio in log_ratios(inputs)]


def dpo_with(change):
    """DPO's loss after `change` of its margin, with DPO's rewards."""

    def run(inputs: dict, trl: dict):
        chosen, rejected = implicit_rewards(inputs, trl["beta"])
        return logistic(change(chosen - rejected, inputs, trl)), chosen.detach(), rejected.detach()

    return run


length_regularised = dpo_with(lambda z, i, trl: z + trl["alpha"] * (i["chosen_lengths"] - i["rejected_lengths"]))
offset_dpo = dpo_with(lambda z, i, trl: z - trl["alpha"] * (i["margins"].log() if trl["of"] == "log" else i["margins"]))
positive_dpo = dpo_with(
    lambda z, i, trl: z
    - trl["beta"] * trl["lambda"] * F.relu(i["reference_chosen_logps"] - i["policy_chosen_logps"])
)


def alpha_divergence(inputs: dict, trl: dict):
    order, beta = trl["alpha"] - 1, trl["beta"]
    chosen, rejected = (beta * ((order * u).exp() - 1) / order for u in log_ratios(inputs))
    return logistic(chosen - rejected), chosen.detach(), rejected.detach()


def triple(inputs: dict, trl: dict):
    """As TPOTrainer computes it, the gold completion's mean by itself."""
    chosen, rejected = (trl["beta"] * inputs[f"policy_{side}_logps"] for side in SIDES)
    gold = inputs["policy_gold_logps"] / inputs["gold_lengths"]
    return logistic(chosen - rejected) - trl["alpha"] * gold, chosen.detach(), rejected.detach()


def slic(inputs: dict, trl: dict):
    chosen, rejected = (inputs[f"policy_{side}_logps"] for side in SIDES)
    losses = torch.clamp(trl["delta"] - chosen + rejected, min=0) - trl["lambda"] * chosen
    return losses, chosen.detach(), rejected.detach()


def shifted_bco(inputs: dict, trl: dict):
    rewards = trl["beta"] * (inputs["policy_logps"] - inputs["reference_logps"])
    shift = trl["beta"] * inputs["mean_logratio"].detach()
    desirable = trl["desirable_weight"] * logistic(rewards - shift)
    undesirable = trl["undesirable_weight"] * logistic(shift - rewards)
    return torch.where(inputs["labels"] == 1, desirable, undesirable), rewards.detach(), None


def smoothed_hinge(inputs: dict, trl: dict):
    chosen, rejected = implicit_rewards(inputs, trl["beta"])
    z, share = chosen - rejected, trl["epsilon"]
    return (1 - share) * F.relu(1 - z) + share * F.relu(1 + z), chosen.detach(), rejected.detach()


def mixed_beta(inputs: dict, trl: dict):
    """−log of the mean of σ(β·s·h) over a log-normal s, a sum over a grid of its normal number."""
    chosen, rejected = implicit_rewards(inputs, trl["beta"])
    grid = torch.arange(-6, 6.25, 0.5, dtype=torch.float64)
    weights = torch.softmax(-grid.square() / 2, 0)
    scales = torch.exp(trl["sigma"] * grid)
    scales = scales / (weights * scales).sum()
    terms = weights.log() + F.logsigmoid((chosen - rejected)[:, None] * scales)
    return -torch.logsumexp(terms, 1), chosen.detach(), rejected.detach()


def smoothed_rewards(inputs: dict, trl: dict):
    chosen, rejected = (inputs[f"policy_{side}_rewards"] for side in SIDES)
    z, share = chosen - rejected, trl["epsilon"]
    return (1 - share) * logistic(z) + share * logistic(-z), chosen.detach(), rejected.detach()


def scaled_rewards(inputs: dict, trl: dict):
    chosen, rejected = (inputs[f"policy_{side}_rewards"] for side in SIDES)
    return inputs["margins"].detach() * logistic(chosen - rejected), chosen.detach(), rejected.detach()


# --- the table ------------------------------------------------------------------------------------


@dataclass
class Case:
    """`options` are this project's names, `trl` is what TRL was given, `run` returns (losses, rewards, rewards).

    `draw` makes the inputs, of some seed and size if they are given.
    """

    objective: str
    name: str
    options: dict
    run: callable
    trl: dict
    source: str
    draw: callable = pair_inputs


def trained(objective, name, options, loss_type, draw=pair_inputs, run=trl_dpo, **trl):
    """A loss of trl's DPO trainer."""
    return Case(objective, name, options, run, {"loss_type": loss_type} | trl, "trl.DPOTrainer", draw)


def formula(objective, name, run, draw=pair_inputs, **options):
    return Case(objective, name, options, run, options, "formula", draw)


def wrapped(objective, wrapper, options, run, draw=pair_inputs, **method):
    """A wrapper around a method, by a formula of its own."""
    case = Case(objective, f"with_{wrapper}", method | {"with": {wrapper: options}}, run, method | options, "formula", draw)
    return case


def beta_alone(objective, loss_type, *betas, draw=pair_inputs, run=trl_dpo):
    return [
        trained(objective, f"beta{str(beta).replace('.', '')}", {"beta": beta}, loss_type, draw, run, beta=beta)
        for beta in betas
    ]


def with_noise(objective, *cases, option="epsilon", run=trl_dpo):
    """Losses of a β and a share of wrong labels."""
    return [
        trained(objective, name, {"beta": beta, option: noise}, objective, run=run, beta=beta, label_smoothing=noise)
        for name, beta, noise in cases
    ]


def diverging(objective, kind, beta, name=None, loss_type=None, **more):
    """Losses of the margin under another divergence than the reverse KL."""
    own = {"alpha" if objective == "f_dpo" else "": 0.5} if objective == "f_dpo" else {}
    options = {"beta": beta} | own | more.pop("own", {})
    if objective == "f_dpo":
        options |= {"divergence": kind}
    else:
        options |= {"with": {"f_divergence": {"kind": kind}}}
    divergence = {"forward_kl": "forward_kl", "js": "js_divergence"}[kind]
    loss_type = loss_type or objective
    name = name or f"{'' if objective == 'f_dpo' else 'with_f_divergence_'}{kind}"
    return trained(objective, name, options, loss_type, ordinary_inputs, beta=beta, f_divergence_type=divergence, **more)


def cpo(objective, name, loss_type, options, draw=pair_inputs, **trl):
    trl = {"loss_type": loss_type, "cpo_alpha": 0.0} | trl
    return Case(objective, name, options, trl_cpo, trl, "trl.experimental.CPOTrainer", draw)


def simpo(name, beta, target_margin):
    options = {"beta": beta, "target_margin": target_margin}
    return cpo("simpo", name, "simpo", options, beta=beta, simpo_gamma=target_margin)


def alphapo(name, beta, target_margin, alpha):
    options = {"beta": beta, "target_margin": target_margin, "alpha": alpha}
    return cpo("alphapo", name, "simpo", options, policy_inputs, beta=beta, simpo_gamma=target_margin, alpha=alpha)


def orpo(name, weight):
    options, trl = {"lambda": weight}, {"beta": weight}
    return Case("orpo", name, options, trl_orpo, trl, "trl.experimental.ORPOTrainer", policy_inputs)


def kto(name, beta, kl, desirable_weight=1.0, undesirable_weight=1.0, objective="kto"):
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    trl = {"loss_type": objective, "beta": beta} | weights
    draw = lambda *args: unpaired_inputs(kl, *args)  # noqa: E731
    return Case(objective, name, {"beta": beta} | weights, trl_kto, trl, "trl.KTOTrainer", draw)


def bco(name, beta, mean, desirable_weight=1.0, undesirable_weight=1.0):
    draw = lambda *args: shifted_inputs(mean, *args)  # noqa: E731
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    return formula("bco", name, shifted_bco, draw, beta=beta, **weights)


def ld_dpo(name, beta, alpha):
    options = {"beta": beta, "alpha": alpha}
    return trained("ld_dpo", name, options, "sigmoid", token_inputs, beta=beta, ld_alpha=alpha)


def wpo(name, beta):
    """TRL does not bound the weight."""
    options = {"beta": beta, "max_weight": 1e9}
    return trained("wpo", name, options, "sigmoid", aligned_inputs, beta=beta, use_weighting=True)


def bradley_terry(name, draw, center=None, **wrappers):
    options = {"with": wrappers} if wrappers else {}
    return Case("bradley_terry", name, options, trl_reward, {"center_rewards_coefficient": center}, "trl.RewardTrainer", draw)


def sft(name, per_token):
    run, source = (trl_sft, "trl.DPOTrainer") if per_token else (summed_sft, "formula")
    return Case("sft", name, {"per_token": per_token}, run, {"loss_type": "sft"}, source, length_inputs)


def denoised(objective, name, run, **options):
    return formula(objective, name, run, denoised_inputs, **options)


CASES = [
    alphapo("mistral", 2.5, 0.1, 0.25),
    alphapo("negative", 2.0, 0.5, -0.5),
    alphapo("simpo", 2.0, 1.0, 0.0),
    *with_noise("aot", ("plain", 0.1, 0.0), ("smoothed", 0.5, 0.1), run=trl_aot),
    *with_noise("aot_unpaired", ("plain", 0.1, 0.0), ("smoothed", 0.5, 0.1), run=trl_aot),
    *beta_alone("apo_down", "apo_down", 0.1, 0.5),
    *beta_alone("apo_zero", "apo_zero", 0.1, 0.5),
    kto("beta01", 0.1, 0.0, objective="apo_zero_unpaired"),
    kto("weighted", 0.5, 0.0, 1.33, 0.75, objective="apo_zero_unpaired"),
    bco("plain", 0.1, 0.0),
    bco("shifted", 0.1, -1.75),
    bco("weighted", 0.5, 0.5, 1.0, 2.0),
    *beta_alone("bco_pair", "bco_pair", 0.01, 0.5),
    bradley_terry("plain", unmargined_inputs),
    bradley_terry("with_margin_offset", reward_inputs, margin_offset={"gamma": 0.0, "alpha": 1.0, "of": "margin"}),
    bradley_terry("with_center_rewards", unmargined_inputs, 0.01, center_rewards={"coefficient": 0.01}),
    bradley_terry("with_both", reward_inputs, 0.5, margin_offset={"gamma": 0.0, "alpha": 1.0, "of": "margin"},
                  center_rewards={"coefficient": 0.5}),
    wrapped("bradley_terry", "label_smoothing", {"epsilon": 0.1}, smoothed_rewards, unmargined_inputs),
    formula("cdpo", "smoothed", conservative_dpo, beta=0.1, label_smoothing=0.1),
    cpo("cpo", "published", "sigmoid", {"beta": 0.1, "lambda": 1.0}, policy_inputs, beta=0.1, cpo_alpha=1.0),
    cpo("cpo", "contrast_alone", "sigmoid", {"beta": 0.5, "lambda": 0.0}, policy_inputs, beta=0.5),
    denoised("d3po", "small_bound", d3po, beta=0.1, clip=0.05),
    denoised("d3po", "spo", d3po, beta=10.0, clip=0.1),
    trained("discopop", "published", {"beta": 0.05, "tau": 0.05}, "discopop", beta=0.05, discopop_tau=0.05),
    trained("discopop", "wide", {"beta": 0.1, "tau": 0.5}, "discopop", ordinary_inputs, beta=0.1, discopop_tau=0.5),
    diverging("discopop", "js", 0.05),
    *beta_alone("dpo", "sigmoid", 0.1, 0.5),
    wrapped("dpo", "beta_distribution", {"sigma": 0.5}, mixed_beta, beta=0.1),
    wrapped("dpo", "length", {"alpha": 0.05}, length_regularised, beta=0.1),
    wrapped("dpo", "margin_offset", {"gamma": 0.0, "alpha": 0.5, "of": "margin"}, offset_dpo, scored_inputs, beta=0.1),
    formula("dpop", "smaug", positive_dpo, beta=0.3, **{"lambda": 50.0}),
    formula("dpop", "mild", positive_dpo, beta=0.1, **{"lambda": 0.5}),
    denoised("dspo", "constant_weight", dspo, beta=0.5, stop_gradient=True),
    denoised("dspo", "sd15", dspo, beta=0.001, stop_gradient=False),
    denoised("dspo", "strong", dspo, beta=3.0, stop_gradient=False),
    *with_noise("exo_pair", ("published", 0.1, 1e-3), ("noisy", 0.5, 0.2)),
    diverging("exo_pair", "js", 0.1, own={"epsilon": 0.01}, label_smoothing=0.01),
    diverging("f_dpo", "forward_kl", 0.1, loss_type="sigmoid"),
    diverging("f_dpo", "js", 0.5, loss_type="sigmoid"),
    formula("f_dpo", "alpha", alpha_divergence, ordinary_inputs, beta=0.1, divergence="alpha", alpha=0.3),
    *beta_alone("hinge", "hinge", 0.05, 0.5),
    diverging("hinge", "forward_kl", 0.1),
    wrapped("hinge", "label_smoothing", {"epsilon": 0.2}, smoothed_hinge, beta=0.05),
    trained("hinge", "with_nll", {"beta": 0.1, "with": {"nll": {"weight": 0.3}}}, ["hinge", "sft"], beta=0.1,
            loss_weights=[1.0, 0.3]),
    trained("hinge", "with_token_mask", {"beta": 0.1, "with": {"token_mask": {"alpha": 0.3}}}, "hinge", token_inputs,
            beta=0.1, ld_alpha=0.3),
    trained("ipo", "tau01", {"tau": 0.1}, "ipo", beta=0.1),
    trained("ipo", "tau05", {"tau": 0.5}, "ipo", beta=0.5),
    # Not around hinge: TRL multiplies its result in place, which autograd refuses.
    trained("ipo", "with_policy_weight", {"tau": 0.5, "with": {"policy_weight": {"max": 1e9}}}, "ipo", aligned_inputs, beta=0.5,
            use_weighting=True),
    kto("beta01", 0.1, 0.0),
    kto("beta05_kl", 0.5, 1.75),
    kto("weighted", 0.1, 0.5, 1.33, 0.75),
    ld_dpo("half", 0.1, 0.5),
    ld_dpo("shared_only", 0.5, 0.0),
    denoised("mapo", "published", mapo, beta=0.1, scale=1000.0),
    denoised("mapo", "soft", mapo, beta=2.0, scale=3.0),
    *beta_alone("nca_pair", "nca_pair", 0.01, 0.5),
    formula("odpo", "log", offset_dpo, scored_inputs, beta=0.1, alpha=1.0, of="log"),
    formula("odpo", "margin", offset_dpo, scored_inputs, beta=0.5, alpha=0.5, of="margin"),
    orpo("published", 0.1),
    orpo("strong", 2.0),
    formula("r_dpo", "shorter", length_regularised, beta=0.1, alpha=0.05),
    formula("r_dpo", "longer", length_regularised, beta=0.5, alpha=-0.2),
    *with_noise("robust", ("published", 0.01, 0.1), ("strong", 0.5, 0.3)),
    diverging("robust", "js", 0.1, own={"epsilon": 0.1}, label_smoothing=0.1),
    trained("rpo_regularized", "published", {"beta": 0.1, "eta": 0.005}, ["sigmoid", "sft"], beta=0.1,
            loss_weights=[1.0, 0.005]),
    denoised("rwr", "cold", rwr, temperature=0.02),
    denoised("rwr", "warm", rwr, temperature=1.0),
    formula("scaled_bradley_terry", "strengths", scaled_rewards, reward_inputs),
    sft("summed", False),
    sft("per_token", True),
    *beta_alone("sigmoid_norm", "sigmoid_norm", 0.5, 5.0),
    diverging("sigmoid_norm", "js", 5.0),
    simpo("beta2", 2.0, 1.0),
    simpo("beta25_margin0", 2.5, 0.0),
    formula("slic", "published", slic, policy_inputs, delta=1.0, **{"lambda": 0.1}),
    formula("slic", "wide", slic, policy_inputs, delta=30.0, **{"lambda": 0.0}),
    denoised("smpo", "pickscore", smpo, beta=5.0, gain=10.0, range=0.1665804),
    denoised("smpo", "plain", smpo, beta=0.5, gain=1.0, range=1.0),
    *beta_alone("sppo_hard", "sppo_hard", 0.001, 0.1),
    formula("tdpo", "second", token_dpo, token_inputs, beta=0.1, alpha=0.5, stop_gradient=True),
    formula("tdpo", "first", token_dpo, token_inputs, beta=0.5, alpha=1.0, stop_gradient=False),
    formula("tpo_triple", "published", triple, gold_inputs, beta=0.01, alpha=1.0),
    formula("tpo_triple", "strong", triple, gold_inputs, beta=0.5, alpha=0.1),
    wpo("beta001", 0.01),
    wpo("beta05", 0.5),
]


def evaluate(case: Case, inputs: dict) -> dict:
    """The inputs with losses, rewards and gradients."""
    for tensor in inputs.values():
        tensor.requires_grad_(True)
    losses, first_rewards, second_rewards = case.run(inputs, case.trl)
    if losses.requires_grad:
        losses.sum().backward()
    variables = {name: tensor for name, tensor in inputs.items() if name not in DATA}
    gradients = {f"grad.{name}": torch.zeros_like(t) if t.grad is None else t.grad for name, t in variables.items()}
    if second_rewards is not None:
        rewards = {"chosen_rewards": first_rewards, "rejected_rewards": second_rewards}
    else:
        rewards = {} if first_rewards is None else {"rewards": first_rewards}
    return inputs | {"per_pair_loss": losses} | rewards | gradients


def main() -> None:
    folder = target_folder("objectives", __doc__)
    index = []
    for case in CASES:
        inputs = case.draw()
        tensors = evaluate(case, inputs)
        assert all(tensor.dtype == torch.float64 and tensor.isfinite().all() for tensor in tensors.values()), case
        file = f"{case.objective}.{case.name}.safetensors"
        write_tensors(folder / file, tensors)
        index.append({
            "file": file, "objective": case.objective, "options": case.options, "source": case.source, "trl": case.trl,
            "inputs": list(inputs), "outputs": [name for name in tensors if name not in inputs],
        })  # fmt: skip
    write_json(folder / "cases.json", index)
    write_made_by(folder, "objectives.py", ["torch", "trl"], {
        "gradients": "grad.<input> is the gradient of the sum of per_pair_loss",
        "kto": "rows are completions: policy_logps, reference_logps, labels (1 desirable, 0 undesirable), kl (scalar, "
        "detached, >= 0); per_pair_loss and rewards are per row",
        "aot": "per_pair_loss is attributed to pairs by rank, with the mean gradient of TRL's sum",
        "reference gradients": "TRL evaluates the reference under no_grad; here it was an input like the others",
    })  # fmt: skip


if __name__ == "__main__":
    main()
