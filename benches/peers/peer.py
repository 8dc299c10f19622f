"""The work of `votive bench`, done by the Python programs that people use for it today.

    python peer.py models --out DIR                    # random weights in the hub's formats, and preference pairs
    python peer.py text-step --models DIR [--mode lora] [--trainer trl]
    python peer.py diffusion-step --models DIR [--mode lora]
    python peer.py generate --models DIR
    python peer.py sample --models DIR

The last line of stdout is JSON like `votive bench`'s: wall and CPU seconds of every step, the first included, the peak of
resident memory in MiB, and the age of the process when the first step was done. `compare.py` runs both in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parents[2]
RANK = 16
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IMAGE_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def process_age() -> float:
    started = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - started / os.sysconf("SC_CLK_TCK")


class Laps:
    """Wall and CPU seconds of repeated work."""

    def __init__(self):
        self.wall, self.cpu, self.first_done = [], [], None

    def start(self):
        self.mark = time.perf_counter(), time.process_time()

    def stop(self):
        self.wall.append(time.perf_counter() - self.mark[0])
        self.cpu.append(time.process_time() - self.mark[1])
        self.first_done = self.first_done or process_age()

    @contextlib.contextmanager
    def lap(self):
        self.start()
        yield
        self.stop()

    def report(self, bench: str, **details):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"bench": bench, "wall_s": self.wall, "cpu_s": self.cpu, "peak_rss_mib": peak,
                          "first_step_done_s": self.first_done, **details}))  # fmt: skip


def make_models(args):
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/tiny-lm")
    config = LlamaConfig(
        vocab_size=8192, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=1024, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    llama = LlamaForCausalLM(config)
    llama.save_pretrained(args.out / "llama")
    shutil.copy(ROOT / "models/tiny-lm/tokenizer.json", args.out / "llama")
    settings = json.loads((ROOT / "models/tiny-lm/tokenizer_config.json").read_text())
    (args.out / "llama/tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 1024}))

    # Sentences of the playground in a row, until each part has about as many tokens as answers of chat models have.
    rows = [json.loads(line) for line in (ROOT / "examples/data/text-pairs.jsonl").read_text().splitlines()]
    words = iter([word for row in rows for key in ("prompt", "chosen", "rejected") for word in row[key].split()] * 4)
    draw = torch.Generator().manual_seed(0)

    def text(least: int, most: int) -> str:
        wanted = int(torch.randint(least, most, (), generator=draw))
        taken: list[str] = []
        while len(tokenizer(" ".join(taken))["input_ids"]) < wanted:
            taken += [next(words) for _ in range(4)]
        return " ".join(taken)

    pairs = [{"prompt": text(70, 180), "chosen": " " + text(130, 250), "rejected": " " + text(130, 250)} for _ in range(64)]
    (args.out / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))

    folder = args.out / "tokenizer"
    shutil.copytree(ROOT / "models/tiny-sd/tokenizer", folder, dirs_exist_ok=True)
    clip = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(clip), hidden_size=256, intermediate_size=512, projection_dim=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, bos_token_id=clip.bos_token_id, eos_token_id=clip.eos_token_id,
    ))  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=32, sample_size=64,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=32, block_out_channels=(64, 128, 256), layers_per_block=2, norm_num_groups=32, attention_head_dim=8,
        cross_attention_dim=256, down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=clip, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(args.out / "sd")  # fmt: skip
    # `save_pretrained` of newer versions writes tokenizer.json alone; both layouts are the hub's.
    shutil.copytree(folder, args.out / "sd/tokenizer", dirs_exist_ok=True)
    shutil.rmtree(folder)
    counts = {"llama": llama, "unet": unet, "vae": vae, "text_encoder": encoder}
    print(json.dumps({name: sum(p.numel() for p in part.parameters()) for name, part in counts.items()}))


def lora(alpha: int, targets: list[str], **more):
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets, **more)


def text_step_trl(args):
    """TRL's DPOTrainer in f32 without gradient checkpointing, batches in the order of the file."""
    import torch
    from datasets import disable_progress_bars, load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    laps = Laps()

    class Clock(TrainerCallback):
        def on_train_begin(self, *_args, **_kwargs):
            laps.start()

        def on_step_end(self, *_args, **_kwargs):
            laps.stop()
            laps.start()

    with tempfile.TemporaryDirectory() as work:
        data = load_dataset("json", data_files=str(args.models / "pairs.jsonl"), split="train", cache_dir=work)
        config = DPOConfig(
            output_dir=work, use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=args.batch,
            max_steps=args.steps, learning_rate=1e-5, lr_scheduler_type="constant", beta=0.1, max_length=1024,
            train_sampling_strategy="sequential", save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=1,
        )  # fmt: skip
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(args.models / "llama", dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(args.models / "llama"), args=config, callbacks=[Clock()],
            train_dataset=data.select(range(args.batch * args.steps)),
            peft_config=lora(2 * RANK, TEXT_TARGETS, task_type="CAUSAL_LM") if args.mode == "lora" else None,
        )  # fmt: skip
        trainer.train()
    laps.report("text-step", trainer="trl", mode=args.mode,
                losses=[row["loss"] for row in trainer.state.log_history if "loss" in row])  # fmt: skip


def text_step_torch(args):
    """A loop in plain PyTorch: logits at the answers' positions only, no mask over the padding at the right end."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.models / "llama")
    load = lambda: AutoModelForCausalLM.from_pretrained(args.models / "llama", dtype=torch.float32)  # noqa: E731
    model, off = load(), contextlib.nullcontext
    if args.mode == "lora":
        from peft import get_peft_model

        wrapped = get_peft_model(model, lora(2 * RANK, TEXT_TARGETS, task_type="CAUSAL_LM"))
        model, off = wrapped.get_base_model(), wrapped.disable_adapter
        reference = model
    else:
        reference = load().requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=True)
    rows = [json.loads(line) for line in (args.models / "pairs.jsonl").read_text().splitlines()]

    def log_probs(network, ids, wanted):
        hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        losses = F.cross_entropy(network.lm_head(hidden[wanted]), ids[:, 1:][wanted], reduction="none")
        return torch.zeros(len(ids)).index_add(0, wanted.nonzero()[:, 0], -losses)

    laps, losses = Laps(), []
    for step in range(args.steps):
        with laps.lap():
            pairs = rows[step * args.batch : (step + 1) * args.batch]
            parts = []
            for side in ("chosen", "rejected"):
                for pair in pairs:
                    prompt = tokenizer(pair["prompt"])["input_ids"]
                    whole = tokenizer(pair["prompt"] + pair[side])["input_ids"] + [tokenizer.eos_token_id]
                    parts.append((whole, len(prompt)))
            width = max(len(whole) for whole, _ in parts)
            ids = torch.tensor([whole + [tokenizer.pad_token_id] * (width - len(whole)) for whole, _ in parts])
            at = torch.arange(1, width)
            wanted = torch.stack([(at >= start) & (at < len(whole)) for whole, start in parts])
            with torch.no_grad(), off():
                before = log_probs(reference, ids, wanted)
            chosen, rejected = (log_probs(model, ids, wanted) - before).chunk(2)
            loss = -F.logsigmoid(0.1 * (chosen - rejected)).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    laps.report("text-step", trainer="torch", mode=args.mode, losses=losses)


def text_step(args):
    (text_step_trl if args.trainer == "trl" else text_step_torch)(args)


def diffusion_step(args):
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(args.models / "sd/unet")
    scheduler = DDPMScheduler.from_pretrained(args.models / "sd/scheduler")
    if args.mode == "lora":
        unet.requires_grad_(False)
        unet.add_adapter(lora(RANK, IMAGE_TARGETS))
        reference = unet
    else:
        reference = copy.deepcopy(unet).requires_grad_(False)
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def errors(network, noisy, times, embeds, noise):
        return F.mse_loss(network(noisy, times, embeds).sample, noise, reduction="none").mean((1, 2, 3))

    laps, losses = Laps(), []
    for _ in range(args.steps):
        latents = torch.randn(2 * args.batch, 4, 32, 32)
        embeds = torch.randn(args.batch, 77, unet.config.cross_attention_dim).repeat(2, 1, 1)
        with laps.lap():
            noise = torch.randn(args.batch, 4, 32, 32).repeat(2, 1, 1, 1)
            times = torch.randint(0, 1000, (args.batch,)).repeat(2)
            inputs = scheduler.add_noise(latents, noise, times), times, embeds, noise
            if args.mode == "lora":
                unet.disable_adapters()
            with torch.no_grad():
                before = errors(reference, *inputs)
            if args.mode == "lora":
                unet.enable_adapters()
            chosen, rejected = (errors(unet, *inputs) - before).chunk(2)
            loss = -F.logsigmoid(-2500.0 * (chosen - rejected)).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    laps.report("diffusion-step", mode=args.mode, losses=losses)


def generate(args):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.models / "llama", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(args.models / "llama", dtype=torch.float32)
    rows = [json.loads(line)["prompt"] for line in (args.models / "pairs.jsonl").read_text().splitlines()[:8]]
    inputs = tokenizer(rows, return_tensors="pt", padding=True, return_token_type_ids=False)
    laps = Laps()
    for _ in range(args.steps):
        with laps.lap(), torch.no_grad():
            model.generate(**inputs, do_sample=False, max_new_tokens=128, min_new_tokens=128)
    laps.report("generate", new_tokens=8 * 128)


def sample(args):
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(args.models / "sd")
    pipeline.set_progress_bar_config(disable=True)
    laps = Laps()
    for seed in range(args.steps):
        with laps.lap():
            pipeline("a red circle", num_inference_steps=50, guidance_scale=7.5, height=64, width=64,
                     generator=torch.Generator().manual_seed(seed), output_type="pt")  # fmt: skip
    laps.report("sample")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    models = commands.add_parser("models")
    models.add_argument("--out", type=Path, required=True)
    models.set_defaults(work=make_models)
    for name, work in [("text-step", text_step), ("diffusion-step", diffusion_step), ("generate", generate), ("sample", sample)]:
        command = commands.add_parser(name)
        command.add_argument("--models", type=Path, required=True)
        command.add_argument("--steps", type=int, default=4)
        command.add_argument("--threads", type=int, default=2)
        if name.endswith("step"):
            command.add_argument("--mode", choices=["full", "lora"], default="full")
            command.add_argument("--batch", type=int, default=4)
        if name == "text-step":
            command.add_argument("--trainer", choices=["torch", "trl"], default="torch")
        command.set_defaults(work=work)
    args = parser.parse_args()
    if "threads" in args:
        import torch

        torch.set_num_threads(args.threads)
    args.work(args)


if __name__ == "__main__":
    main()
