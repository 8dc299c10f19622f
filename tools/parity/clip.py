"""Two tiny CLIP models saved by transformers, and what transformers makes of images and texts with them.

Writes clip/<quick|gelu>/: a whole CLIP folder (config.json, model.safetensors, image processor, tokenizer) and expected/
beside it:
  images.safetensors      8-bit images, (H, W, 3), and what the image processor makes of each (pixels.<n>)
  embeds.safetensors      ids of the texts; image_embeds and text_embeds as the projections leave them; logits_per_image
  gradient.safetensors    images as a network draws them (0 to 1), scaled, cut and normalised by torch; cosines with the
                          first texts; the gradient of their weighted sum by the images, in float64
  expected.json           texts, weights of that sum, and how far float32 rounding moves each number

quick is laid out like OpenAI's repository: quick_gelu, the end token that old configurations have (2), towers written a
second time as `*_config_dict`, position_ids among the tensors, bicubic. gelu is as transformers 5 writes a processor as a
whole, with gelu, patches that do not divide the image, a projection narrower than the towers, bilinear.
"""

from __future__ import annotations

import copy
import json

from common import read_tensors, shuffle_parameters, target_folder, torch, write_json, write_made_by, write_tensors

import numpy as np
from diffusion import rounding, train_clip_tokenizer
from PIL import Image
from torch.nn.functional import interpolate
from transformers import CLIPConfig, CLIPModel, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

TEXTS = ["a red circle above a blue square", "Two green  triangles, on white!", "", "a red circle and " * 40]
# (width, height): landscape, portrait, as the encoder sees it, large, a line.
SIZES = [(45, 30), (23, 61), (32, 32), (201, 150), (7, 40)]
WEIGHTS = [1.0, -0.6]

MODELS = {
    "quick": dict(act="quick_gelu", image=32, patch=8, resample=3, projection=16, interpolation="bicubic"),
    "gelu": dict(act="gelu", image=28, patch=6, resample=2, projection=12, interpolation="bilinear"),
}


def build(folder, name: str, seed: int):
    shape = MODELS[name]
    tokenizer = train_clip_tokenizer(folder, "<|endoftext|>")
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config=dict(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            hidden_act=shape["act"], bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=dict(
            hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, hidden_act=shape["act"],
            image_size=shape["image"], patch_size=shape["patch"], layer_norm_eps=1e-5,
        ),
        projection_dim=shape["projection"],
    )  # fmt: skip
    model = CLIPModel(config)
    shuffle_parameters(model, seed, 0.1)
    size = shape["image"]
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, resample=shape["resample"]
    )
    model.save_pretrained(folder)
    if name == "gelu":
        CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    else:
        tokenizer.save_pretrained(folder)
        processor.save_pretrained(folder)
        use_older_layout(folder)
    return CLIPModel.from_pretrained(folder).eval(), processor, tokenizer


def use_older_layout(folder) -> None:
    """What OpenAI's and LAION's repositories hold, and transformers 5 no longer writes."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    config["text_config_dict"] = dict(config["text_config"])
    config["vision_config_dict"] = dict(config["vision_config"])
    # Those of the second writing count, so these must not.
    config["text_config"]["num_hidden_layers"] = 7
    config["vision_config"]["hidden_act"] = "gelu"
    write_json(folder / "config.json", config)
    tensors = read_tensors(folder / "model.safetensors")
    for tower in ("text_model", "vision_model"):
        count = tensors[f"{tower}.embeddings.position_embedding.weight"].shape[0]
        tensors[f"{tower}.embeddings.position_ids"] = torch.arange(count)[None]
    write_tensors(folder / "model.safetensors", tensors)
    (folder / "tokenizer.json").unlink(missing_ok=True)


def draw_images(seed: int, image_sizes: list = SIZES) -> list:
    """Smooth colours with edges and noise, so that every rounding of the resampling shows."""
    draw = np.random.default_rng(seed)
    images = []
    for width, height in image_sizes:
        across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        channels = [np.sin(draw.uniform(2, 9) * across + draw.uniform(2, 9) * down) for _ in range(3)]
        picture = 127 + 90 * np.stack(channels, -1) + draw.normal(0, 12, (height, width, 3))
        picture[height // 3 : height // 2, width // 4 : width // 2] = draw.uniform(0, 255, 3)
        images.append(picture.clip(0, 255).astype(np.uint8))
    return images


def cosines(model, pixels, ids):
    images = model.get_image_features(pixel_values=pixels).pooler_output
    texts = model.get_text_features(input_ids=ids).pooler_output
    return torch.nn.functional.cosine_similarity(images, texts, eps=0.0)


def expected_gradient(model, processor, shape, ids) -> dict:
    model = copy.deepcopy(model).double()
    images = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    images.requires_grad_(True)
    size = shape["image"]
    scaled = interpolate(images, (size, int(size * 56 / 40)), mode=shape["interpolation"], antialias=True)
    left = (scaled.shape[3] - size) // 2
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (processor.image_mean, processor.image_std))
    pixels = (scaled[..., left : left + size] - mean) / std
    scores = cosines(model, pixels, ids[:2])
    (scores * torch.tensor(WEIGHTS, dtype=torch.float64)).sum().backward()
    return {"images": images, "pixels": pixels, "cosines": scores, "gradient": images.grad}


def main() -> None:
    folder = target_folder("clip", __doc__)
    for seed, name in ((61, "quick"), (71, "gelu")):
        model, processor, tokenizer = build(folder / name, name, seed)
        images = draw_images(seed)
        pixels = torch.cat([processor(Image.fromarray(image), return_tensors="pt").pixel_values for image in images])
        ids = tokenizer(TEXTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            outputs = model(input_ids=ids, pixel_values=pixels)
            exact = copy.deepcopy(model).double()(input_ids=ids, pixel_values=pixels.double())
            embeds = {
                "input_ids": ids,
                "image_embeds": model.get_image_features(pixel_values=pixels).pooler_output,
                "text_embeds": model.get_text_features(input_ids=ids).pooler_output,
                "logits_per_image": outputs.logits_per_image,
            }
        expected = folder / name / "expected"
        write_tensors(
            expected / "images.safetensors",
            {f"image.{n}": torch.from_numpy(image) for n, image in enumerate(images)}
            | {f"pixels.{n}": pixels[n] for n in range(len(images))},
        )
        write_tensors(expected / "embeds.safetensors", embeds)
        gradient = expected_gradient(model, processor, MODELS[name], ids)
        write_tensors(expected / "gradient.safetensors", gradient)
        write_json(
            expected / "expected.json",
            {
                "texts": TEXTS,
                "weights": WEIGHTS,
                "float32_against_float64": {
                    "logits_per_image": rounding(outputs.logits_per_image, exact.logits_per_image)
                },
            },
        )
    write_made_by(folder, "clip.py", ["torch", "transformers", "tokenizers", "pillow", "numpy"], {
        "images": "pixels are those of the processor that scales with Pillow; transformers' other one, on torchvision, "
        "rounds differently in the last bit of some bytes",
    })  # fmt: skip


if __name__ == "__main__":
    main()
