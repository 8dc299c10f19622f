"""Tiny language models saved by transformers, and what transformers and TRL compute with them.

Writes text/:
  prefs.jsonl, prefs_chat.jsonl      preference rows: explicit strings, and message lists
  <model>/                           a hub folder: config.json, model.safetensors, tokenizer, chat template
  <model>/expected.safetensors       per-token log-probs of given right-padded ids
  <model>/prefs.expected.safetensors, <model>/prefs_chat.expected.safetensors
                                     the rows as TRL tokenises and pads them, and their log-probs
  <model>/generate.json              greedy continuations

Tokenisation, EOS and boundary are TRL's own: `DPOTrainer._prepare_dataset` is run unbound on a
stand-in trainer, and `DataCollatorForPreference` pads.
"""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

from common import shuffle_parameters, target_folder, torch, write_json, write_jsonl, write_made_by, write_tensors

import datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

VOCABULARY = 256
SPECIALS = ["<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Strings chosen for their edges: no space or a merge at the boundary, EOS already there, a one-token
# answer, a common beginning of both answers, newlines, a chosen answer longer and shorter than the other.
PREFS = [
    {"prompt": "Name a colour:", "chosen": " deep blue", "rejected": " a wooden chair"},
    {"prompt": "The cat sat on the ", "chosen": "mat and slept.", "rejected": "moon"},
    {"prompt": "Count to three.\n", "chosen": "one two three", "rejected": "three two one zero"},
    {"prompt": "Say yes", "chosen": " yes<|eos|>", "rejected": " no, not now"},
    {"prompt": "Finish the wor", "chosen": "d.", "rejected": "ld tour today."},
    {"prompt": "Q: is it warm?\nA:", "chosen": " it is warm", "rejected": " it is cold and wet outside"},
    {"prompt": "List:\n", "chosen": "\n- bread\n- salt\n", "rejected": "bread"},
    {"prompt": "x", "chosen": "y", "rejected": "z z z z z z z z z z z z z z z z"},
]
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
CHATS = [
    ([(USER, "Name a colour.")], "Blue.", "A chair is made of wood."),
    ([(SYSTEM, "Be brief."), (USER, "Where is the cat?")], "On the mat.", "The cat may be on the mat or not."),
    ([(USER, "Hello"), (ASSISTANT, "Hi there."), (USER, "Count to two.")], "one two", "two"),
    ([(USER, "Say nothing.")], " ", "nothing"),
    ([(USER, "Two lines, please.")], "one\ntwo", "one two three four"),
    ([(SYSTEM, ""), (USER, "?")], "It is warm today.", "?"),
]
PROMPTS = ["The cat sat on", "Name a colour:", "Q: is it warm?\nA:"]

WORDS = (
    "the cat sat on mat colour blue chair wooden is it warm cold count one two three name of and to say "
    "river stone morning little window paper sugar green forest yellow moon table"
).split()

SHAPE = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
LLAMA3_ROPE = dict(
    rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)  # fmt: skip


def plain_rope(theta: float) -> dict:
    return {"rope_type": "default", "rope_theta": theta}


def sizes(hidden: int, inner: int, layers: int, heads: int, key_value_heads: int) -> dict:
    return dict(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_value_heads,
    )  # fmt: skip


# name: (config class, model class, adds a beginning-of-sequence token, what its config sets)
MODELS = {
    # Grouped queries, Llama 3 frequency scaling (at these lengths each of its three bands is met).
    "llama": (LlamaConfig, LlamaForCausalLM, True, SHAPE | dict(
        num_key_value_heads=2, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=False,
    )),
    "llama_tied": (LlamaConfig, LlamaForCausalLM, False, SHAPE | dict(
        num_key_value_heads=4, rope_parameters=plain_rope(1e4), tie_word_embeddings=True,
    )),
    # A window shorter than the rows.
    "mistral": (MistralConfig, MistralForCausalLM, True, SHAPE | dict(
        num_key_value_heads=2, rope_parameters=plain_rope(1e4), head_dim=8, sliding_window=8,
    )),
    # Biases on q, k, v; more rows in the embedding than tokens, as in Qwen's repositories.
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, False, SHAPE | dict(
        vocab_size=VOCABULARY + 8, num_key_value_heads=2, rope_parameters=plain_rope(1e6), tie_word_embeddings=True,
    )),
    # Norms on q and k; heads wider than hidden size / heads.
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, False, SHAPE | dict(
        num_key_value_heads=2, rope_parameters=plain_rope(1e6), head_dim=16, tie_word_embeddings=False,
    )),
    # SmolLM is a Llama: its own proportions, nine heads in three groups.
    "smollm": (LlamaConfig, LlamaForCausalLM, False, sizes(36, 48, 3, 9, 3) | dict(
        rope_parameters=plain_rope(1e5), tie_word_embeddings=True,
    )),
    # One group of three heads, each narrower than hidden size / heads.
    "gemma": (GemmaConfig, GemmaForCausalLM, True, sizes(30, 44, 2, 3, 1) | dict(
        head_dim=8, rope_parameters=plain_rope(1e4),
    )),
    # Caps tight enough to bend what passes them; a window shorter than the rows in layers 0 and 2.
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, True, sizes(24, 44, 3, 4, 2) | dict(
        head_dim=8, rope_parameters=plain_rope(1e4), query_pre_attn_scalar=12, sliding_window=6,
        attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
    )),
    # Kinds of layers in no regular order; the global angles are stretched, the local ones not.
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, True, sizes(20, 36, 4, 5, 1) | dict(
        head_dim=6, query_pre_attn_scalar=7, sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": plain_rope(1e4),
        },
    )),
    # Half of each head is turned; a window.
    "phi3": (Phi3Config, Phi3ForCausalLM, True, sizes(24, 40, 2, 3, 3) | dict(
        rope_parameters=plain_rope(1e4) | {"partial_rotary_factor": 0.5}, sliding_window=9,
    )),
    # Rows and continuations on both sides of the length at which the factors change.
    "phi3_long": (Phi3Config, Phi3ForCausalLM, True, sizes(24, 40, 3, 4, 2) | dict(
        original_max_position_embeddings=20, tie_word_embeddings=True, rope_parameters=plain_rope(1e4) | {
            "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3], "long_factor": [1.0, 2.5, 6.0],
            "original_max_position_embeddings": 20,
        },
    )),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM, False, sizes(24, 40, 3, 6, 2) | dict(
        rope_parameters=plain_rope(5e5),
    )),
    # Every other layer without angles, and with a window.
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM, False, sizes(24, 36, 4, 6, 3) | dict(
        rope_parameters=plain_rope(1e4), no_rope_layer_interval=2, use_sliding_window=True, sliding_window=10,
    )),
}  # fmt: skip


def train_tokenizer(bos: bool):
    """Byte-level BPE over printable ASCII, trained on made sentences; with `bos`, it adds <|bos|>."""
    draw = random.Random(3)
    corpus = [" ".join(draw.choices(WORDS, k=12)).capitalize() + ".\n" for _ in range(400)]
    corpus += [row[key].removesuffix("<|eos|>") for row in PREFS for key in row]
    # In the byte-level alphabet a printable ASCII byte is itself; space and newline are shifted.
    alphabet = [chr(code) for code in range(33, 127)] + ["\u0120", "\u010a"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", pair="<|bos|> $A <|bos|> $B", special_tokens=[("<|bos|>", 1)]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|eos|>", pad_token="<|pad|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"], model_max_length=256,
    )  # fmt: skip
    assert len(wrapped) == VOCABULARY
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def use_legacy_rope_keys(folder) -> None:
    """Rewrites config.json as Llama 3's own repositories have it: `rope_theta` beside `rope_scaling`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    config["torch_dtype"] = config.pop("dtype", "float32")
    write_json(path, config)


def save_model(folder, name: str, seed: int):
    configure, architecture, bos, shape = MODELS[name]
    tokenizer = train_tokenizer(bos)
    special_ids = dict(
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    torch.manual_seed(seed)
    model = architecture(configure(max_position_embeddings=256, **special_ids, **shape))
    shuffle_parameters(model, seed, spread=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if name == "llama":
        use_legacy_rope_keys(folder)
    # What was written is what is measured.
    model = architecture.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, tokenizer


def conversations() -> list:
    def messages(turns):
        return [{"role": role, "content": content} for role, content in turns]

    return [
        {"prompt": messages(turns), "chosen": messages([(ASSISTANT, good)]), "rejected": messages([(ASSISTANT, bad)])}
        for turns, good, bad in CHATS
    ]


def trl_batch(rows: list, tokenizer, max_length: int = 256) -> dict:
    """The rows as one padded batch (chosen rows first), by TRL's own preparation and collator."""
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    datasets.disable_progress_bars()
    datasets.disable_caching()
    options = DPOConfig(output_dir="unused", max_length=max_length, report_to=[], bf16=False, use_cpu=True)
    prepared = DPOTrainer._prepare_dataset(trainer, datasets.Dataset.from_list(rows), tokenizer, options, "fixture")
    assert len(prepared) == len(rows)
    return DataCollatorForPreference(tokenizer.pad_token_id, max_length=max_length)(list(prepared))


def logits_of(model, ids, mask):
    """Logits of right-padded rows.

    Row by row where the length of a batch changes the angles of all its rows, and in float64, whose mask of a whole
    padding row is -inf in the softmax's float32.
    """
    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope" and model.dtype != torch.float64:
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    logits = torch.zeros(*ids.shape, model.config.vocab_size, dtype=model.dtype)
    for row, length in enumerate(mask.sum(1).tolist()):
        logits[row, :length] = model(input_ids=ids[row : row + 1, :length], use_cache=False).logits[0]
    return logits


def per_token_logps(model, batch: dict):
    """log p of each token given those before it, (rows, T − 1), zero outside the completion."""
    logits = logits_of(model, batch["input_ids"], batch["attention_mask"])
    logps = logits[:, :-1].float().log_softmax(-1)
    logps = logps.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return logps * batch["completion_mask"][:, 1:]


@torch.no_grad()
def expected_of_ids(model) -> dict:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.tensor([40, 33, 17, 1])
    ids = torch.randint(len(SPECIALS), VOCABULARY, (len(lengths), 40), generator=generator)
    mask = (torch.arange(40)[None] < lengths[:, None]).long()
    ids = torch.where(mask.bool(), ids, torch.zeros_like(ids))
    batch = {"input_ids": ids, "attention_mask": mask, "completion_mask": mask}
    logits = logits_of(model, ids, mask)
    last = logits[torch.arange(len(lengths)), lengths - 1]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "per_token_logps": per_token_logps(model, batch),
        "last_logits": last,
    }


@torch.no_grad()
def expected_of_rows(model, tokenizer, rows: list) -> dict:
    batch = trl_batch(rows, tokenizer)
    logps = per_token_logps(model, batch)
    return batch | {"per_token_logps": logps, "logps": logps.sum(1), "tokens": batch["completion_mask"].sum(1)}


@torch.no_grad()
def greedy(model, tokenizer, prompt: str, count: int = 24) -> dict:
    """transformers' greedy search; `smallest_gap` is the least lead (in logits) of a chosen token."""
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(
        **ids, max_new_tokens=count, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    new = out.sequences[0, ids["input_ids"].shape[1] :].tolist()
    top = torch.stack(out.logits).squeeze(1).topk(2).values
    return {
        "prompt": prompt,
        "prompt_ids": ids["input_ids"][0].tolist(),
        "token_ids": new,
        "text": tokenizer.decode(new, skip_special_tokens=True),
        "smallest_gap": round((top[:, 0] - top[:, 1]).min().item(), 5),
    }


def main() -> None:
    folder = target_folder("text", __doc__)
    write_jsonl(folder / "prefs.jsonl", PREFS)
    write_jsonl(folder / "prefs_chat.jsonl", conversations())
    for seed, name in enumerate(MODELS, start=11):
        model, tokenizer = save_model(folder / name, name, seed)
        write_tensors(folder / name / "expected.safetensors", expected_of_ids(model))
        for file, rows in {"prefs": PREFS, "prefs_chat": conversations()}.items():
            expected = expected_of_rows(model, tokenizer, rows)
            write_tensors(folder / name / f"{file}.expected.safetensors", expected)
        write_json(folder / name / "generate.json", [greedy(model, tokenizer, prompt) for prompt in PROMPTS])
    write_made_by(folder, "text.py", ["torch", "transformers", "tokenizers", "trl"], {
        "rows": "a batch of B pairs is 2B right-padded rows: chosen 0..B, rejected B..2B, in file order",
        "per_token_logps": "(rows, T - 1): entry t is log p of token t + 1; zero outside the completion (in "
        "expected.safetensors: outside the row)",
        "tokens": "completion tokens, EOS included",
    })  # fmt: skip


if __name__ == "__main__":
    main()
