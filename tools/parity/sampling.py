"""Logits before and after transformers' logits processors, one by one and in the order in which `generate` applies them.

Writes sampling/:
  logits.safetensors   `logits` (rows, vocabulary) and `seen` (rows, tokens so far)
  cases.json           the options of each case, under their names in `GenerationConfig`
  scores.safetensors   `<case>` (rows, vocabulary): the processed logits, minus infinity where a token is ruled out

The list of processors is the one that `GenerationMixin._get_logits_processor` builds, so the order is transformers' own.
Logits are drawn so that no token lies on the border of a filter: there f32 rounding would decide.
"""

from __future__ import annotations

from common import target_folder, torch, write_json, write_made_by, write_tensors

from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessorList

VOCABULARY, ROWS, SEEN = 48, 4, 12

CASES = {
    "plain": {},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "repetition_reward": {"repetition_penalty": 0.8},
    "cold": {"temperature": 0.6},
    "hot": {"temperature": 1.7},
    "top_k": {"top_k": 7},
    "top_k_of_equals": {"top_k": 3},
    "top_p": {"top_p": 0.8},
    "top_p_small": {"top_p": 0.05},
    "min_p": {"min_p": 0.1},
    "k_then_p": {"top_k": 9, "top_p": 0.7},
    "p_then_min_p": {"top_p": 0.9, "min_p": 0.08},
    "all": {"repetition_penalty": 1.2, "temperature": 0.8, "top_k": 20, "top_p": 0.93, "min_p": 0.02},
    "all_hot": {"repetition_penalty": 1.1, "temperature": 2.0, "top_k": 30, "top_p": 0.6, "min_p": 0.3},
}


def main():
    folder = target_folder("sampling", __doc__)
    generator = torch.Generator().manual_seed(11)
    logits = 3.0 * torch.randn(ROWS, VOCABULARY, generator=generator)
    # Three equal logits at the second place of the first row: the third of three most probable has an equal behind it.
    logits[0, [5, 17, 30]] = logits[0].topk(2).values[1]
    seen = torch.randint(0, VOCABULARY, (ROWS, SEEN), generator=generator)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
    ))  # fmt: skip
    scores = {}
    for name, options in CASES.items():
        processors = model._get_logits_processor(
            GenerationConfig(do_sample=True, **options), input_ids_seq_length=SEEN, logits_processor=LogitsProcessorList()
        )
        assert len(processors) == len(options), f"{name}: {processors}"
        scores[name] = processors(seen, logits.clone())
    write_tensors(folder / "logits.safetensors", {"logits": logits, "seen": seen})
    write_tensors(folder / "scores.safetensors", scores)
    write_json(folder / "cases.json", CASES)
    write_made_by(folder, "sampling.py", ["transformers", "torch"])


if __name__ == "__main__":
    main()
