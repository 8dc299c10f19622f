"""Preference rows in the layouts they are published in, and the token ids that TRL makes of them.

Writes layouts/:
  <layout>.jsonl        rows as the hub has them
  chat_template.jinja   a template with a default system prompt, tools and a variable
  expected.json         {layout: {tokenizer: [[prompt ids, chosen ids, rejected ids], …]}}

`DPOTrainer._prepare_dataset` reads the rows as they stand where TRL knows the layout, which includes HH-RLHF as text: there it looks for
the common beginning character by character, and the answers below differ in their first letter, so that it must find the same
boundary as a reader of turns. UltraFeedback's string prompts are taken away first, because TRL would tokenize them as a text of
their own.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

from common import FIXTURES, target_folder, write_json, write_jsonl, write_made_by

import datasets
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

TOKENIZERS = ["llama", "qwen2"]
CHAT_TEMPLATE = """{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nBe a helpful machine.<|im_end|>\\n' }}{%- endif %}
{%- if tools %}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think></think>' }}{%- endif %}
{%- endif %}
"""


def turns(*texts: str, system: str | None = None) -> list:
    roles = ["user", "assistant"]
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]
    return [{"role": "system", "content": system}] * (system is not None) + messages


def answer(text: str) -> list:
    return [{"role": "assistant", "content": text}]


TOOLS = json.dumps([{"type": "function", "function": {"name": "count", "parameters": {"type": "object"}}}])

LAYOUTS = {
    "hh": [
        {"chosen": "\n\nHuman: Name a colour.\n\nAssistant: Deep blue.", "rejected": "\n\nHuman: Name a colour.\n\nAssistant: A chair."},
        {
            "chosen": "\n\nHuman: Is it warm?\n\nAssistant: Yes.\n\nHuman: And there?\n\nAssistant: It is cold there.",
            "rejected": "\n\nHuman: Is it warm?\n\nAssistant: Yes.\n\nHuman: And there?\n\nAssistant: No.",
        },
        {"chosen": "\n\nHuman: One\n\nAssistant: Two\n\nHuman: More\n\nAssistant: Three", "rejected": "\n\nHuman: One\n\nAssistant: Nothing, sorry."},
    ],
    "implicit": [
        {"chosen": "The sky is blue and wide.", "rejected": "The sky is wooden."},
        {"chosen": "Q: is it warm?\nA: warm", "rejected": "Q: is it warm?\nA: cold, very cold"},
    ],
    "implicit_chat": [
        {"chosen": turns("Name a colour.", "Blue."), "rejected": turns("Name a colour.", "A chair.")},
        {"chosen": turns("Hello", "Hi.", "Count.", "one two", system="Be brief."), "rejected": turns("Hello", "Hi.", "Count.", "two", system="Be brief.")},
    ],
    "ultrafeedback_binarized": [
        {
            "prompt": "Name a colour.", "prompt_id": "a1", "chosen": turns("Name a colour.", "Blue."), "rejected": turns("Name a colour.", "A chair."),
            "messages": turns("Name a colour.", "Blue."), "score_chosen": 8.5, "score_rejected": 3.0,
        },
        {
            "prompt": "Is it warm?", "prompt_id": "b2", "chosen": turns("Is it warm?", "It is warm."), "rejected": turns("Is it warm?", "?"),
            "messages": turns("Is it warm?", "It is warm."), "score_chosen": 7.0, "score_rejected": 7.0,
        },
    ],
    "chat": [
        {
            "prompt": turns("How many?"), "chosen": answer("Two."), "rejected": answer("Many."), "tools": TOOLS,
            "chat_template_kwargs": {"enable_thinking": False},
        },
        {
            "prompt": turns("One and one?", system="Be brief."), "chosen": answer("Two.") + turns("Sure?", "Yes."), "rejected": answer("Three."), "tools": TOOLS,
            "chat_template_kwargs": {"enable_thinking": True},
        },
    ],
}  # fmt: skip


def prepared(rows: list, tokenizer) -> list:
    datasets.disable_progress_bars()
    datasets.disable_caching()
    options = DPOConfig(output_dir="unused", max_length=256, report_to=[], bf16=False, use_cpu=True)
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    made = DPOTrainer._prepare_dataset(trainer, datasets.Dataset.from_list(rows), tokenizer, options, "fixture")
    assert len(made) == len(rows)
    return [[row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] for row in made]


def for_trl(layout: str, rows: list) -> list:
    if layout != "ultrafeedback_binarized":
        return rows
    return [{"chosen": row["chosen"], "rejected": row["rejected"]} for row in rows]


def main() -> None:
    folder = target_folder("layouts", __doc__)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    expected = {}
    for layout, rows in LAYOUTS.items():
        write_jsonl(folder / f"{layout}.jsonl", rows)
        expected[layout] = {}
        for name in TOKENIZERS:
            tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "text" / name)
            tokenizer.chat_template = CHAT_TEMPLATE
            expected[layout][name] = prepared(for_trl(layout, rows), tokenizer)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    write_made_by(folder, "layouts.py", ["transformers", "tokenizers", "trl", "datasets"])


if __name__ == "__main__":
    main()
