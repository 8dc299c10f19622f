"""Objective values and gradients, from TRL's own loss code, on given log-probabilities.

Writes objectives/<id>.<case>.safetensors (inputs and outputs, f64) and objectives/cases.json
(the options of each case, under TRL's names and under this project's).

How TRL is called: `DPOTrainer._compute_loss` and `KTOTrainer._compute_loss` are run unbound on a
stand-in trainer whose model returns the wanted log-probabilities, one row at a time (TRL returns
the batch mean only); `CPOTrainer.cpo_loss` is a plain function of two tensors. Where TRL has no
code for a case (label smoothing with the sigmoid loss), the paper's formula is written here and
the case says `"source": "formula"`.

A new TRL loss is one row of CASES.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace

from common import target_folder, torch, write_json, write_made_by, write_tensors

import torch.nn.functional as F
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer

PAIR_INPUTS = [
    "policy_chosen_logps",
    "policy_rejected_logps",
    "reference_chosen_logps",
    "reference_rejected_logps",
    "chosen_lengths",
    "rejected_lengths",
]
UNPAIRED_INPUTS = ["policy_logps", "reference_logps", "labels", "kl"]
SIDES = ["chosen", "rejected"]
TOKEN_INPUTS = [
    *PAIR_INPUTS,
    *(f"{side}_token_mask" for side in SIDES),
    *(f"{who}_{side}_token_logps" for who in ("policy", "reference") for side in SIDES),
    *(f"{side}_token_kl" for side in SIDES),
]
LENGTH_INPUTS = ["policy_logps", "reference_logps", "labels", "lengths"]
DENOISED_INPUTS = [
    *(f"{who}_{side}_logps" for who in ("policy", "reference") for side in SIDES),
    *(f"{who}_{side}_errors" for who in ("policy", "reference") for side in SIDES),
    *(f"{side}_distances" for side in SIDES),
    "margins",
]


# --- inputs -------------------------------------------------------------------------------------


def pair_inputs() -> dict:
    """24 ordinary pairs, then pairs whose margin is 0, ±1, ±40 and ±200 nats (exactly)."""
    generator = torch.Generator().manual_seed(7)

    def draw(count, low, high):
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    margins = torch.tensor([0.0, 1.0, -1.0, 40.0, -40.0, 200.0, -200.0], dtype=torch.float64)
    count, extreme = 24, len(margins)
    total = count + extreme
    reference_chosen, reference_rejected = draw(total, -120, -5), draw(total, -120, -5)
    # Multiples of 1/8 keep the exact margins exact through the subtractions.
    reference_chosen[count:] = (reference_chosen[count:] * 8).round() / 8
    reference_rejected[count:] = (reference_rejected[count:] * 8).round() / 8
    policy_chosen = reference_chosen + draw(total, -8, 8)
    policy_rejected = reference_rejected + draw(total, -8, 8)
    policy_chosen[count:] = reference_chosen[count:] + margins / 2
    policy_rejected[count:] = reference_rejected[count:] - margins / 2
    return {
        "policy_chosen_logps": policy_chosen,
        "policy_rejected_logps": policy_rejected,
        "reference_chosen_logps": reference_chosen,
        "reference_rejected_logps": reference_rejected,
        "chosen_lengths": torch.randint(1, 40, (total,), generator=generator).double(),
        "rejected_lengths": torch.randint(1, 40, (total,), generator=generator).double(),
    }


def unpaired_inputs(kl: float) -> dict:
    """Rows of both labels; log-ratios 0, ±1, ±40 and ±200 under each label come last."""
    generator = torch.Generator().manual_seed(8)
    ratios = torch.tensor([0.0, 1.0, -1.0, 40.0, -40.0, 200.0, -200.0], dtype=torch.float64)
    ordinary = 16 * torch.rand(18, generator=generator, dtype=torch.float64) - 8
    logratios = torch.cat([ordinary, ratios, ratios])
    labels = torch.cat([(torch.rand(18, generator=generator) < 0.5).double(), torch.ones(7), torch.zeros(7)])
    reference = -5 - 115 * torch.rand(len(logratios), generator=generator, dtype=torch.float64)
    reference = (reference * 8).round() / 8
    return {
        "policy_logps": reference + logratios,
        "reference_logps": reference,
        "labels": labels.double(),
        "kl": torch.tensor(kl, dtype=torch.float64),
    }


def token_inputs() -> dict:
    """16 pairs token by token: sequences of 1 to 9 tokens, and numbers that mean nothing behind their ends."""
    generator = torch.Generator().manual_seed(9)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    inputs = {}
    for side, width in zip(SIDES, (9, 7)):
        lengths = torch.randint(1, width + 1, (16,), generator=generator)
        mask = (torch.arange(width)[None] < lengths[:, None]).double()
        reference = -4 * draw(16, width)
        policy = reference + 3 * draw(16, width) - 1.5
        inputs |= {
            f"policy_{side}_logps": (policy * mask).sum(1),
            f"reference_{side}_logps": (reference * mask).sum(1),
            f"{side}_lengths": lengths.double(),
            f"{side}_token_mask": mask,
            f"policy_{side}_token_logps": policy,
            f"reference_{side}_token_logps": reference,
            f"{side}_token_kl": draw(16, width),
        }
    return {name: inputs[name] for name in TOKEN_INPUTS}


def length_inputs() -> dict:
    """Completions with labels and lengths."""
    inputs = unpaired_inputs(0.0)
    generator = torch.Generator().manual_seed(10)
    count = len(inputs["policy_logps"])
    lengths = torch.randint(1, 40, (count,), generator=generator).double()
    return {name: inputs.get(name, lengths) for name in LENGTH_INPUTS}


def denoised_inputs() -> dict:
    """24 pairs of latents: errors, distances within the triangle that they span, log-ratios near and beyond a bound."""
    generator = torch.Generator().manual_seed(11)

    def draw(low, high):
        return low + (high - low) * torch.rand(24, generator=generator, dtype=torch.float64)

    inputs = {}
    for side in SIDES:
        error, reference = draw(0.001, 0.8), draw(0.001, 0.8)
        # |a - b|^2 lies between (|a| - |b|)^2 and (|a| + |b|)^2.
        share = draw(0, 1)
        low, high = (error.sqrt() - reference.sqrt()) ** 2, (error.sqrt() + reference.sqrt()) ** 2
        inputs |= {
            f"policy_{side}_errors": error,
            f"reference_{side}_errors": reference,
            f"{side}_distances": low + share * (high - low),
            f"policy_{side}_logps": draw(-1.2, -0.8),
            f"reference_{side}_logps": torch.full((24,), -1.0, dtype=torch.float64),
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

    def __init__(self, logps):
        super().__init__()
        self.logps = logps

    def forward(self, input_ids, labels, **_ignored):
        rows, tokens = input_ids.shape[0], input_ids.shape[1] - 1
        first = torch.zeros(rows, tokens, dtype=self.logps.dtype)
        first[:, 0] = 1.0
        zeros = torch.zeros(rows, tokens, dtype=self.logps.dtype)
        return SimpleNamespace(
            log_probs=self.logps[:, :tokens] if self.logps.dim() == 2 else self.logps[:, None] * first,
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


def trl_dpo(inputs: dict, trl: dict):
    losses, rewards = [], []
    for pair in range(len(inputs["policy_chosen_logps"])):
        policy, reference = (StandInModel(both_sides(inputs, who, pair, trl)) for who in ("policy", "reference"))
        trainer = stand_in_trainer(
            policy,
            reference,
            loss_types=[trl["loss_type"]],
            loss_weights=[1.0],
            beta=trl["beta"],
            label_smoothing=trl.get("label_smoothing", 0.0),
            ld_alpha=trl.get("ld_alpha"),
            f_divergence_type="reverse_kl",
            use_weighting=False,
        )
        batch = completion_batch([inputs["chosen_lengths"][pair], inputs["rejected_lengths"][pair]])
        losses.append(KeepGradient.run(DPOTrainer._compute_loss, trainer, policy, batch))
        metrics = trainer._metrics["train"]
        rewards.append([metrics["rewards/chosen"][0], metrics["rewards/rejected"][0]])
    chosen, rejected = torch.tensor(rewards, dtype=torch.float64).T
    return torch.stack(losses), chosen, rejected


class KeepGradient:
    """Runs a `_compute_loss`, letting the *reference* keep its gradient too.

    TRL evaluates the reference under `no_grad`; a gradient with respect to the reference
    log-probabilities is wanted here (it is an input like any other), so `no_grad` is made a no-op.
    """

    @staticmethod
    def run(compute_loss, trainer, model, batch):
        no_grad, torch.no_grad = torch.no_grad, torch.enable_grad
        try:
            return compute_loss(trainer, model, batch, False)
        finally:
            torch.no_grad = no_grad


def trl_cpo(inputs: dict, trl: dict):
    trainer = SimpleNamespace(
        accelerator=OneProcess(),
        beta=trl["beta"],
        label_smoothing=trl.get("label_smoothing", 0.0),
        loss_type=trl["loss_type"],
        simpo_gamma=trl["simpo_gamma"],
        alpha=0.0,
    )
    # CPOTrainer averages over tokens before `cpo_loss` for the simpo and ipo losses.
    chosen = inputs["policy_chosen_logps"] / inputs["chosen_lengths"]
    rejected = inputs["policy_rejected_logps"] / inputs["rejected_lengths"]
    return CPOTrainer.cpo_loss(trainer, chosen, rejected)


def trl_kto(inputs: dict, trl: dict):
    losses, rewards = [], []
    for row, desirable in enumerate(inputs["labels"].tolist()):
        policy, reference = (StandInModel(inputs[f"{who}_logps"][row : row + 1]) for who in ("policy", "reference"))
        # The KL estimate is the mean policy log-ratio of mismatched rows: hand it over as that.
        kl_logps = {id(policy): inputs["kl"].detach().reshape(1), id(reference): torch.zeros(1, dtype=torch.float64)}
        trainer = stand_in_trainer(
            policy,
            reference,
            calculate_KL=True,
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
        trainer = stand_in_trainer(
            policy,
            reference,
            loss_types=["sft"],
            loss_weights=[1.0],
            beta=0.1,
            label_smoothing=0.0,
            ld_alpha=None,
            f_divergence_type="reverse_kl",
            use_weighting=False,
        )
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
    scores = torch.stack([inputs["margins"].detach(), torch.zeros(24, dtype=torch.float64)])
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
    scores = torch.stack([inputs["margins"].detach(), torch.zeros(24, dtype=torch.float64)])
    chosen, rejected = torch.softmax(scores / trl["temperature"], 0)
    policy = [inputs[f"policy_{side}_logps"] for side in SIDES]
    return -(chosen * policy[0] + rejected * policy[1]), policy[0].detach(), policy[1].detach()


# --- the table ------------------------------------------------------------------------------------


@dataclass
class Case:
    """`options` are this project's names, `trl` is what TRL was given, `run` returns (losses, rewards, rewards)."""

    objective: str
    name: str
    options: dict
    run: callable
    trl: dict
    source: str
    kl: float | None = None
    inputs: list = field(default_factory=lambda: PAIR_INPUTS)

    def draw(self) -> dict:
        if self.kl is not None:
            return unpaired_inputs(self.kl)
        drawn = {id(TOKEN_INPUTS): token_inputs, id(LENGTH_INPUTS): length_inputs, id(DENOISED_INPUTS): denoised_inputs}
        return drawn.get(id(self.inputs), pair_inputs)()


def dpo(name, beta):
    return Case("dpo", name, {"beta": beta}, trl_dpo, {"loss_type": "sigmoid", "beta": beta}, "trl.DPOTrainer")


def cdpo(name, beta, label_smoothing):
    options = {"beta": beta, "label_smoothing": label_smoothing}
    return Case("dpo", name, options, conservative_dpo, options, "formula")


def ipo(name, tau):
    return Case("ipo", name, {"tau": tau}, trl_dpo, {"loss_type": "ipo", "beta": tau}, "trl.DPOTrainer")


def simpo(name, beta, target_margin):
    trl = {"loss_type": "simpo", "beta": beta, "simpo_gamma": target_margin, "cpo_alpha": 0.0}
    options = {"beta": beta, "target_margin": target_margin}
    return Case("simpo", name, options, trl_cpo, trl, "trl.experimental.CPOTrainer")


def kto(name, beta, kl, desirable_weight=1.0, undesirable_weight=1.0):
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    trl = {"loss_type": "kto", "beta": beta} | weights
    return Case("kto", name, {"beta": beta} | weights, trl_kto, trl, "trl.KTOTrainer", kl, UNPAIRED_INPUTS)


def ld_dpo(name, beta, alpha):
    trl = {"loss_type": "sigmoid", "beta": beta, "ld_alpha": alpha}
    return Case("ld_dpo", name, {"beta": beta, "alpha": alpha}, trl_dpo, trl, "trl.DPOTrainer", inputs=TOKEN_INPUTS)


def tdpo(name, beta, alpha, stop_gradient):
    options = {"beta": beta, "alpha": alpha, "stop_gradient": stop_gradient}
    return Case("tdpo", name, options, token_dpo, options, "formula", inputs=TOKEN_INPUTS)


def sft(name, per_token):
    run, source = (trl_sft, "trl.DPOTrainer") if per_token else (summed_sft, "formula")
    return Case("sft", name, {"per_token": per_token}, run, {"loss_type": "sft"}, source, inputs=LENGTH_INPUTS)


def denoised(objective, name, run, **options):
    return Case(objective, name, options, run, options, "formula", inputs=DENOISED_INPUTS)


CASES = [
    denoised("d3po", "small_bound", d3po, beta=0.1, clip=0.05),
    denoised("d3po", "spo", d3po, beta=10.0, clip=0.1),
    denoised("dspo", "constant_weight", dspo, beta=0.5, stop_gradient=True),
    denoised("dspo", "sd15", dspo, beta=0.001, stop_gradient=False),
    denoised("dspo", "strong", dspo, beta=3.0, stop_gradient=False),
    denoised("mapo", "published", mapo, beta=0.1, scale=1000.0),
    denoised("mapo", "soft", mapo, beta=2.0, scale=3.0),
    denoised("rwr", "cold", rwr, temperature=0.02),
    denoised("rwr", "warm", rwr, temperature=1.0),
    denoised("smpo", "pickscore", smpo, beta=5.0, gain=10.0, range=0.1665804),
    denoised("smpo", "plain", smpo, beta=0.5, gain=1.0, range=1.0),
    dpo("beta01", 0.1),
    dpo("beta05", 0.5),
    cdpo("smoothed", 0.1, 0.1),
    ipo("tau01", 0.1),
    ipo("tau05", 0.5),
    simpo("beta2", 2.0, 1.0),
    simpo("beta25_margin0", 2.5, 0.0),
    kto("beta01", 0.1, 0.0),
    kto("beta05_kl", 0.5, 1.75),
    kto("weighted", 0.1, 0.5, 1.33, 0.75),
    ld_dpo("half", 0.1, 0.5),
    ld_dpo("shared_only", 0.5, 0.0),
    sft("summed", False),
    sft("per_token", True),
    tdpo("second", 0.1, 0.5, True),
    tdpo("first", 0.5, 1.0, False),
]


def evaluate(case: Case) -> dict:
    inputs = case.draw()
    for tensor in inputs.values():
        tensor.requires_grad_(True)
    losses, first_rewards, second_rewards = case.run(inputs, case.trl)
    losses.sum().backward()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in inputs.items()}
    gradients = {f"grad.{name}": zeros[name] if t.grad is None else t.grad for name, t in inputs.items()}
    # Lengths, labels and the KL estimate are data, not variables: no gradient is claimed for them.
    for name in ("chosen_lengths", "rejected_lengths", "lengths", "labels", "kl", "margins", *(f"{side}_token_mask" for side in SIDES)):
        gradients.pop(f"grad.{name}", None)
    if second_rewards is not None:
        rewards = {"chosen_rewards": first_rewards, "rejected_rewards": second_rewards}
    else:
        rewards = {} if first_rewards is None else {"rewards": first_rewards}
    return inputs | {"per_pair_loss": losses} | rewards | gradients


def main() -> None:
    folder = target_folder("objectives", __doc__)
    index = []
    for case in CASES:
        tensors = evaluate(case)
        assert all(tensor.dtype == torch.float64 and tensor.isfinite().all() for tensor in tensors.values()), case
        file = f"{case.objective}.{case.name}.safetensors"
        write_tensors(folder / file, tensors)
        index.append({
            "file": file, "objective": case.objective, "options": case.options, "source": case.source, "trl": case.trl,
            "inputs": case.inputs, "outputs": [name for name in tensors if name not in case.inputs],
        })  # fmt: skip
    write_json(folder / "cases.json", index)
    write_made_by(folder, "objectives.py", ["torch", "trl"], {
        "gradients": "grad.<input> is the gradient of the sum of per_pair_loss",
        "kto": "rows are completions: policy_logps, reference_logps, labels (1 desirable, 0 undesirable), kl (scalar, "
        "detached, >= 0); per_pair_loss and rewards are per row",
        "reference gradients": "TRL evaluates the reference under no_grad; here it was an input like the others",
    })  # fmt: skip


if __name__ == "__main__":
    main()
