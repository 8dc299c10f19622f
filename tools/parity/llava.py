"""Tiny LLaVAs saved by transformers, and what transformers computes with them.

Writes llava/<case>/: a hub folder (config.json, model.safetensors, tokenizer, chat template, processor) and expected/
beside it:
  images.safetensors      8-bit images, (H, W, 3), and what the processor makes of each (pixels.<n>)
  rows.json               texts, which images they show, and greedy continuations
  rows.safetensors        ids.<row> as the processor expands them, per_token_logps.<row>, last_logits.<row>
  gradient.json           norm of the gradient of the sum of all rows' log-probs by each parameter that has one, in float64
  adapter/, adapter.safetensors
                          a PEFT adapter on both networks and the projector, and per_token_logps.<row> under it

llama is as transformers 5 writes it: the features before the last layer, without the class. older has names, fields and
files of transformers 4, and all of a layer's features. layers reads three layers with the class, through a projector
without biases; its patches do not divide the image. gemma3's own embeddings are scaled, and an image's are not. siglip
reads all of the last layer of SigLIP's image encoder, as LLaVA-Interleave does, whose pooling head nobody reads.

llava/class_defaults.json holds sizes that transformers leaves out of text_config where they are those of the class.
"""

from __future__ import annotations

import copy
import json

from common import read_tensors, shuffle_parameters, target_folder, torch, write_json, write_made_by, write_tensors

import numpy as np
from clip import draw_images
from peft import LoraConfig, get_peft_model
from PIL import Image
from text import VOCABULARY, plain_rope, sizes, train_tokenizer
from text_steps import save_adapter
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

IMAGE_TOKEN = "<image>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# (text, images in order): one, two in a row, two apart and the same twice, none.
ROWS = [
    ("<image>\nName a colour:", [0]),
    ("The cat sat on <image><image> and", [1, 2]),
    ("<image> is it warm?<image>", [3, 0]),
    ("Two: <image>, <image>", [4, 4]),
    ("The cat sat on the mat", []),
]
NEW_TOKENS = 16
# (width, height): landscape, portrait, small, wide, a line.
IMAGE_SIZES = [(30, 20), (17, 33), (12, 12), (41, 26), (7, 24)]

VISION = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2)
CLIP = VISION | dict(model_type="clip_vision_model")
SIGLIP = VISION | dict(model_type="siglip_vision_model")
# case: image size, patch size, text_config, what LlavaConfig sets
CASES = {
    "llama": (20, 5, sizes(24, 40, 2, 4, 2) | dict(model_type="llama", rope_parameters=plain_rope(1e4)), {}),
    "older": (16, 4, sizes(24, 36, 2, 4, 2) | dict(
        model_type="qwen2", rope_parameters=plain_rope(1e6), tie_word_embeddings=True,
    ), dict(vision_feature_select_strategy="full", vision_feature_layer=-1, projector_hidden_act="gelu_pytorch_tanh")),
    "layers": (22, 5, sizes(20, 32, 2, 2, 1) | dict(
        model_type="mistral", head_dim=8, sliding_window=12, rope_parameters=plain_rope(1e4),
    ), dict(vision_feature_select_strategy="full", vision_feature_layer=[-2, 0, 1], multimodal_projector_bias=False)),
    "gemma3": (20, 5, sizes(20, 36, 2, 2, 1) | dict(
        model_type="gemma3_text", head_dim=8, query_pre_attn_scalar=7, sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    ), dict(vision_feature_layer=2)),
    "siglip": (22, 5, sizes(24, 36, 2, 4, 2) | dict(model_type="qwen2", rope_parameters=plain_rope(1e6)), dict(
        vision_config=SIGLIP, vision_feature_select_strategy="full", vision_feature_layer=-1,
    )),
}  # fmt: skip


def build(folder, case: str, seed: int):
    side, patch, text, extra = CASES[case]
    tokenizer = train_tokenizer(bos=case != "older")
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    torch.manual_seed(seed)
    vision = extra.get("vision_config", CLIP) | dict(image_size=side, patch_size=patch)
    config = LlavaConfig(**extra | dict(
        vision_config=vision,
        text_config=text | ids | dict(vocab_size=VOCABULARY + 8, max_position_embeddings=256),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    ))  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    shuffle_parameters(model, seed, 0.2)
    has_class = vision["model_type"] == "clip_vision_model"
    if has_class:
        images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    else:
        images = SiglipImageProcessorPil(size={"height": side, "width": side})
    processor = LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=patch, num_additional_image_tokens=int(has_class),
        vision_feature_select_strategy=config.vision_feature_select_strategy, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if case == "older":
        use_older_layout(folder, processor)
    # What was written is what is measured.
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), processor


def use_older_layout(folder, processor) -> None:
    """What llava-hf's repositories hold: names and fields of transformers 4, the image processor in a file of its own."""
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    text = config["text_config"]
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    text |= {"torch_dtype": "float16", "architectures": ["Qwen2ForCausalLM"]}
    config["image_token_id"] = config.pop("image_token_index")
    write_json(folder / "config.json", config)
    tensors = read_tensors(folder / "model.safetensors")
    start = "vision_tower."
    renamed = {name.replace(start, f"{start}vision_model."): tensor for name, tensor in tensors.items()}
    positions = renamed["vision_tower.vision_model.embeddings.position_embedding.weight"].shape[0]
    renamed["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(positions)[None]
    write_tensors(folder / "model.safetensors", renamed)
    whole = json.loads((folder / "processor_config.json").read_text())
    write_json(folder / "preprocessor_config.json", whole.pop("image_processor"))
    write_json(folder / "processor_config.json", whole)
    write_json(folder / "chat_template.json", {"chat_template": processor.chat_template})
    (folder / "chat_template.jinja").unlink()


def inputs_of(processor, images: list, row):
    text, shown = row
    shown = [Image.fromarray(images[n]) for n in shown]
    return processor(text=text, images=shown or None, return_tensors="pt")


def per_token_logps(model, inputs):
    logits = model(**inputs, use_cache=False).logits[0]
    # In float64 there are no float32 tables to compare with, so nothing is rounded.
    logps = logits[:-1].log_softmax(-1)
    return logits, logps.gather(-1, inputs["input_ids"][0, 1:, None])[:, 0]


@torch.no_grad()
def greedy(model, inputs) -> dict:
    out = model.generate(
        **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    top = torch.stack(out.logits).squeeze(1).topk(2).values
    return {
        "token_ids": out.sequences[0, inputs["input_ids"].shape[1] :].tolist(),
        "smallest_gap": round((top[:, 0] - top[:, 1]).min().item(), 5),
    }


def gradient_norms(model, rows: list) -> dict:
    """Of the sum of all rows' log-probs, by module path."""
    model = copy.deepcopy(model).double()
    for inputs in rows:
        inputs = {name: value.double() if name == "pixel_values" else value for name, value in inputs.items()}
        per_token_logps(model, inputs)[1].sum().backward()
    return {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}


def write_adapter(folder, model, rows: list, seed: int, targets: list, base: str) -> None:
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, lora_alpha=4, target_modules=targets)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_B" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        expected = {f"per_token_logps.{n}": per_token_logps(adapted, row)[1] for n, row in enumerate(rows)}
    save_adapter(adapted, folder / "adapter", base)
    write_tensors(folder / "adapter.safetensors", expected)


def class_defaults() -> dict:
    fields = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    configs = {name: AutoConfig.for_model(name) for name in ("llama", "mistral", "qwen2")}
    vision = LlavaConfig().vision_config
    shape = fields[1:] + ["image_size", "patch_size"]
    return {
        "text_config": {name: {field: getattr(config, field) for field in fields} for name, config in configs.items()},
        "vision_config": {field: getattr(vision, field) for field in shape},
        "image_token_index": LlavaConfig().image_token_index,
    }


def main() -> None:
    folder = target_folder("llava", __doc__)
    write_json(folder / "class_defaults.json", class_defaults())
    for seed, case in enumerate(CASES, start=31):
        model, processor = build(folder / case, case, seed)
        images = draw_images(seed, IMAGE_SIZES)
        rows = [inputs_of(processor, images, row) for row in ROWS]
        expected = folder / case / "expected"
        pixels = {f"pixels.{n}": processor.image_processor(Image.fromarray(i), return_tensors="pt").pixel_values[0]
                  for n, i in enumerate(images)}  # fmt: skip
        write_tensors(
            expected / "images.safetensors",
            {f"image.{n}": torch.from_numpy(np.ascontiguousarray(image)) for n, image in enumerate(images)} | pixels,
        )
        tensors = {}
        with torch.no_grad():
            for n, inputs in enumerate(rows):
                logits, logps = per_token_logps(model, inputs)
                tensors |= {
                    f"ids.{n}": inputs["input_ids"][0], f"per_token_logps.{n}": logps, f"last_logits.{n}": logits[-1]
                }  # fmt: skip
        write_tensors(expected / "rows.safetensors", tensors)
        write_json(
            expected / "rows.json",
            [{"text": text, "images": shown} | greedy(model, inputs) for (text, shown), inputs in zip(ROWS, rows)],
        )
        write_json(expected / "gradient.json", gradient_norms(model, rows))
        if case == "llama":
            # PEFT adapts the layers of the image encoder too whose results nobody reads.
            write_adapter(expected, model, rows, seed, ["q_proj", "v_proj", "linear_1", "fc1"], "llama")
    write_made_by(folder, "llava.py", ["torch", "transformers", "tokenizers", "peft", "pillow", "numpy"], {
        "per_token_logps": "(T - 1,): entry t is log p of token t + 1, placeholders of images included",
    })  # fmt: skip


if __name__ == "__main__":
    main()
