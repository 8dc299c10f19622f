"""Tiny Qwen3-VLs saved by transformers, and what transformers computes with them.

Writes qwen3_vl/<case>/: a hub folder (config.json, model.safetensors, tokenizer, chat template, image processor) and expected/
beside it:
  images.safetensors      8-bit images, (H, W, 3); of each the processor's numbers, put back into lines of pixels (pixels.<n>),
                          its vectors, and what deepstack adds behind layer k (vectors.<n>, added.<n>.<k>)
  rows.json               texts, which images they show, the images' rows and columns of cells, and greedy continuations
  rows.safetensors        ids.<row> as the processor expands them, positions.<row> (3, T), per_token_logps.<row>,
                          last_logits.<row>
  gradient.json           norm of the gradient of the sum of all rows' log-probs by each parameter, in float64
  chat.json               a conversation and what the chat template makes of it
  sizes.json              widths and heights of images, and what they are scaled to
  adapter/, adapter.safetensors
                          a PEFT adapter on both networks and the mergers, and per_token_logps.<row> under it

new is as transformers 5 writes it. older has fields and files of transformers 4.57, as the hub has them, and other sizes: patches
of 3 pixels in squares of 3, one picture a patch, biases in attention, a tied head.

qwen3_vl/class_defaults.json holds the sizes of transformers' classes.

transformers' own image processor wants torchvision, so images are scaled by its twin on Pillow, and films are left out.
"""

from __future__ import annotations

import json

from common import shuffle_parameters, target_folder, torch, write_json, write_made_by, write_tensors

import numpy as np
from clip import draw_images
from llava import gradient_norms, greedy, inputs_of, per_token_logps, write_adapter
from PIL import Image
from text import VOCABULARY, sizes, train_tokenizer
from transformers import AutoTokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

VISION_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
CHAT_TEMPLATE = (
    "{%- set count = namespace(images=0) %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for part in message.content %}"
    "{%- if part.type == 'image' or 'image' in part %}{%- set count.images = count.images + 1 %}"
    "{%- if add_vision_id %}{{- 'Picture ' ~ count.images ~ ': ' }}{%- endif %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [
        {"type": "image"}, {"type": "text", "text": "or "}, {"type": "image"}, {"type": "text", "text": "?"},
    ]},
    {"role": "assistant", "content": [{"type": "text", "text": "Blue."}]},
    {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
]  # fmt: skip
SEEN = "<|vision_start|><|image_pad|><|vision_end|>"
# (text, images in order): one, two in a row, two apart, the same twice, one alone, none.
ROWS = [
    (f"{SEEN}\nName a colour:", [0]),
    (f"The cat sat on {SEEN}{SEEN} and", [1, 2]),
    (f"{SEEN} is it warm?{SEEN}", [3, 0]),
    (f"Two: {SEEN}, {SEEN}", [4, 4]),
    (SEEN, [5]),
    ("The cat sat on the mat", []),
]
# (width, height): landscape, portrait, small, wide, a line with too few pixels, one with too many.
IMAGE_SIZES = [(30, 20), (17, 33), (12, 12), (41, 26), (7, 24), (80, 44)]


def rope(section: list, theta: float) -> dict:
    return {"rope_type": "default", "rope_theta": theta, "mrope_section": section, "mrope_interleaved": True}


# case: pixels of an image, text_config, vision_config, what Qwen3VLConfig sets
CASES = {
    "new": ((256, 1280), sizes(24, 40, 3, 4, 2) | dict(head_dim=16, rope_parameters=rope([4, 2, 2], 1e4)), dict(
        hidden_size=16, intermediate_size=24, depth=3, num_heads=2, patch_size=4, spatial_merge_size=2,
        temporal_patch_size=2, out_hidden_size=24, num_position_embeddings=25, deepstack_visual_indexes=[0, 2],
    ), {}),
    "older": ((200, 2000), sizes(20, 36, 2, 2, 1) | dict(
        head_dim=12, rope_parameters=rope([1, 3, 2], 5e6), attention_bias=True,
    ), dict(
        hidden_size=8, intermediate_size=20, depth=2, num_heads=2, patch_size=3, spatial_merge_size=3,
        temporal_patch_size=1, out_hidden_size=20, num_position_embeddings=16, deepstack_visual_indexes=[1],
    ), dict(tie_word_embeddings=True)),
}  # fmt: skip


class Processor(Qwen3VLProcessor):
    """The same without films."""

    def check_argument_for_proper_class(self, name, argument):
        return type(argument)


def read_processor(folder) -> Processor:
    """As AutoProcessor reads it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = Qwen2VLImageProcessorPil.from_pretrained(folder)
    return Processor(image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)


def load(folder):
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def build(folder, case: str, seed: int):
    (least, most), text, vision, extra = CASES[case]
    tokenizer = train_tokenizer(bos=False)
    tokenizer.add_tokens(VISION_TOKENS, special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    token = dict(zip(("vision_start", "vision_end", "image", "video"), tokenizer.convert_tokens_to_ids(VISION_TOKENS)))
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(
        text_config=text | ids | dict(vocab_size=VOCABULARY + 8, max_position_embeddings=256), vision_config=vision,
        **{f"{name}_token_id": id for name, id in token.items()}, **extra,
    ))  # fmt: skip
    shuffle_parameters(model, seed, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shape = {name: vision[name] for name in ("patch_size", "temporal_patch_size")} | {"merge_size": vision["spatial_merge_size"]}
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": least, "longest_edge": most}, **shape)
    if case == "older":
        images = Qwen2VLImageProcessorPil(**shape, image_mean=[0.5] * 3, image_std=[0.5] * 3)
        images.save_pretrained(folder)
        use_older_layout(folder, least, most)
    else:
        write_json(folder / "processor_config.json", {
            "image_processor": images.to_dict(), "processor_class": "Qwen3VLProcessor",
        })  # fmt: skip
    # What was written is what is measured.
    return load(folder), read_processor(folder)


def use_older_layout(folder, least: int, most: int) -> None:
    """What Qwen's repositories hold: fields of transformers 4.57, and the least and the most pixels in both spellings."""
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    for part in ("text_config", "vision_config"):
        config[part]["torch_dtype"] = config[part].pop("dtype", config["torch_dtype"])
    text = config["text_config"]
    text["rope_scaling"] = text.pop("rope_parameters")
    text["rope_theta"] = text["rope_scaling"].pop("rope_theta")
    config["vision_config"].pop("rope_parameters")
    config["vision_config"]["model_type"] = "qwen3_vl"
    write_json(folder / "config.json", config)
    file = json.loads((folder / "preprocessor_config.json").read_text())
    file |= {"image_processor_type": "Qwen2VLImageProcessorFast", "min_pixels": least, "max_pixels": most}
    file |= {"do_center_crop": None, "do_pad": None, "crop_size": None, "processor_class": "Qwen3VLProcessor"}
    write_json(folder / "preprocessor_config.json", file)
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    (folder / "chat_template.jinja").unlink()


def lines(patches, grid, shape) -> torch.Tensor:
    """(3, H, W) of patches in the order in which the encoder reads them; all pictures of a patch are the same."""
    _, rows, columns = grid.tolist()
    side, square, frames = shape.patch_size, shape.merge_size, shape.temporal_patch_size
    cut = patches.reshape(rows // square, columns // square, square, square, 3, frames, side, side)
    assert (cut == cut[:, :, :, :, :, :1]).all()
    return cut[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * side, columns * side)


def positions_of(model, inputs):
    """As the model finds them: where no image is shown, all three are the token's number."""
    if "image_grid_thw" not in inputs:
        return torch.arange(inputs["input_ids"].shape[1]).expand(3, -1)
    found, _ = model.model.get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"])
    return found[:, 0]


def expected_images(model, processor, images: list) -> dict:
    tensors = {f"image.{n}": torch.from_numpy(np.ascontiguousarray(image)) for n, image in enumerate(images)}
    for n, image in enumerate(images):
        inputs = processor.image_processor(Image.fromarray(image), return_tensors="pt")
        features = model.model.get_image_features(inputs.pixel_values, inputs.image_grid_thw, return_dict=True)
        tensors[f"pixels.{n}"] = lines(inputs.pixel_values, inputs.image_grid_thw[0], processor.image_processor)
        tensors[f"vectors.{n}"] = features.pooler_output[0]
        tensors |= {f"added.{n}.{layer}": of[0] for layer, of in enumerate(features.deepstack_features)}
    return tensors


def expected_rows(model, rows: list) -> dict:
    tensors = {}
    for n, inputs in enumerate(rows):
        logits, logps = per_token_logps(model, inputs)
        tensors |= {
            f"ids.{n}": inputs["input_ids"][0], f"positions.{n}": positions_of(model, inputs),
            f"per_token_logps.{n}": logps, f"last_logits.{n}": logits[-1],
        }  # fmt: skip
    return tensors


def about(model, row, inputs) -> dict:
    text, shown = row
    # Left over from the row before, and used by a row without images.
    model.model.rope_deltas = None
    square = model.config.vision_config.spatial_merge_size
    cells = [[rows // square, columns // square] for _, rows, columns in inputs.get("image_grid_thw", torch.zeros(0, 3)).tolist()]
    return {"text": text, "images": shown, "cells": cells} | greedy(model, inputs)


def scaled_sizes(processor, seed: int) -> list:
    """[[width, height], [width, height]] of many shapes, among them ties of rounding and the longest lines."""
    draw = np.random.default_rng(seed)
    images = processor.image_processor
    cell, (least, most) = images.patch_size * images.merge_size, (images.size["shortest_edge"], images.size["longest_edge"])
    shapes = [(side * cell // 2, other * cell // 2) for side in range(1, 8) for other in range(1, 8)]
    shapes += [(1, 1), (1, 200), (1600, 8), (4096, 3), (10_000, 9000)]
    shapes += [tuple(int(side) for side in draw.integers(1, 120, 2)) for _ in range(60)]
    pairs = []
    for width, height in shapes:
        if max(width, height) > 200 * min(width, height):
            continue
        scaled = smart_resize(height, width, cell, least, most)
        pairs.append([[width, height], list(reversed(scaled))])
    return pairs


def class_defaults() -> dict:
    config = Qwen3VLConfig()
    text = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings"]  # fmt: skip
    return {
        "text_config": {field: getattr(config.text_config, field) for field in text},
        "rope_theta": config.text_config.rope_parameters["rope_theta"],
        "out_hidden_size": config.vision_config.out_hidden_size,
        "cell": config.vision_config.patch_size * config.vision_config.spatial_merge_size,
        "image_token_id": config.image_token_id,
    }


def main() -> None:
    folder = target_folder("qwen3_vl", __doc__)
    write_json(folder / "class_defaults.json", class_defaults())
    for seed, case in enumerate(CASES, start=51):
        model, processor = build(folder / case, case, seed)
        images = draw_images(seed, IMAGE_SIZES)
        rows = [dict(inputs_of(processor, images, row)) for row in ROWS]
        expected = folder / case / "expected"
        with torch.no_grad():
            write_tensors(expected / "images.safetensors", expected_images(model, processor, images))
            write_tensors(expected / "rows.safetensors", expected_rows(model, rows))
        write_json(expected / "rows.json", [about(model, row, inputs) for row, inputs in zip(ROWS, rows)])
        write_json(expected / "gradient.json", gradient_norms(model, rows))
        write_json(expected / "chat.json", {
            "messages": CHAT, "text": processor.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False),
        })  # fmt: skip
        (expected / "sizes.json").write_text(json.dumps(scaled_sizes(processor, seed)) + "\n")
        if case == "new":
            targets = ["q_proj", "v_proj", "qkv", "linear_fc1", "linear_fc2"]
            write_adapter(expected, model, rows, seed, targets, case)
    write_made_by(folder, "qwen3_vl.py", ["torch", "transformers", "tokenizers", "peft", "pillow", "numpy"], {
        "per_token_logps": "(T - 1,): entry t is log p of token t + 1, placeholders of images included",
    })  # fmt: skip


if __name__ == "__main__":
    main()
