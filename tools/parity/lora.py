"""Adapters that PEFT saved, of every kind that Votive reads, and the log-probs of the adapted models.

Run text.py first. Writes lora/<case>/:
  adapter_config.json, adapter_model.safetensors   as PEFT saves them, with random matrices
  expected.safetensors                             input_ids, attention_mask, per_token_logps, last_logits
  case.json                                        the model in text/ that it belongs to
"""

from __future__ import annotations

import json

from common import shuffle_parameters, target_folder, torch, write_json, write_made_by, write_tensors

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from text import expected_of_ids

# case: (model in text/, options)
CASES = {
    # Ranks and scales of their own, and the root in the scale.
    "rslora": ("llama", dict(
        r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={".*mlp.down_proj": 3},
    )),
    # Biases, which the magnitude does not stretch; every linear map.
    "dora": ("qwen2", dict(r=3, lora_alpha=6, use_dora=True, target_modules="all-linear")),
    # Whole modules beside the matrices; targets as a rule.
    "saved": ("gemma2", dict(
        r=2, lora_alpha=4, target_modules=r".*\.(0|2)\.self_attn\.[qv]_proj",
        modules_to_save=["post_attention_layernorm", "model.norm"],
    )),
    # One layer of three, a fused projection, and one of the targets left out.
    "layers": ("phi3_long", dict(
        r=2, lora_alpha=8, target_modules=["qkv_proj", "gate_up_proj", "down_proj"], exclude_modules=["down_proj"],
        layers_to_transform=[1],
    )),
}  # fmt: skip


def main() -> None:
    folder = target_folder("lora", __doc__)
    models = folder.parent / "text"
    for seed, (case, (model, options)) in enumerate(CASES.items(), start=31):
        base = AutoModelForCausalLM.from_pretrained(models / model, dtype=torch.float32, attn_implementation="eager")
        weights = {name: parameter.clone() for name, parameter in base.named_parameters()}
        torch.manual_seed(seed)
        adapted = get_peft_model(base, LoraConfig(**options)).eval()
        shuffle_parameters(adapted, seed, spread=0.1)
        with torch.no_grad():
            # The base stays what text/ holds.
            for name, parameter in adapted.named_parameters():
                name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
                original = name.replace(".original_module.", ".")
                if original in weights and "modules_to_save" not in name:
                    parameter.copy_(weights[original])
        adapted.save_pretrained(folder / case)
        (folder / case / "README.md").unlink(missing_ok=True)
        path = folder / case / "adapter_config.json"
        config = json.loads(path.read_text())
        if isinstance(config["target_modules"], list):
            # peft writes a set in no fixed order.
            config["target_modules"] = sorted(config["target_modules"])
        write_json(path, config | {"base_model_name_or_path": model})
        write_tensors(folder / case / "expected.safetensors", expected_of_ids(adapted))
        write_json(folder / case / "case.json", {"model": model})
    write_made_by(folder, "lora.py", ["torch", "transformers", "peft"])


if __name__ == "__main__":
    main()
