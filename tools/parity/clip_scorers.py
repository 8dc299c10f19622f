"""Scorers of images that are made of CLIP, in the layouts in which they are published, and what they say of images and texts.

Writes clip_scorers/:
  images/<n>.png          8-bit images
  pick/                   laid out like PickScore: a CLIPModel folder of transformers with gelu, with a scale, means and a crop of its own
  hps/                    laid out like HPSv2 in a folder of LAION's CLIP-H: config.json, image processor and tokenizer of transformers,
                          weights under open_clip's names
  aesthetic.safetensors   LAION's aesthetic head, to be put into pick/: layers.{0,2,4,6,7}.{weight,bias}
  expected.json           texts; of pick and hps cosines[image][text], the scale, and P(first image of a pair is better | text), the
                          softmax of both logits; points of the head; the gradient of the points' sum by the embeddings

open_clip is not needed: OpenClip below is written from the names and shapes of its checkpoints, computes with torch.nn.MultiheadAttention
as open_clip does, and must agree with transformers' CLIPModel on the same numbers before anything is written.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict

from clip import draw_images
from common import shuffle_parameters, target_folder, torch, write_json, write_made_by, write_tensors
from diffusion import train_clip_tokenizer
from PIL import Image
from torch import nn
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

TEXTS = ["a red circle above a blue square", "Two green  triangles, on white!"]
SIZES = [(45, 30), (23, 61), (32, 32), (101, 90)]
PAIRS = [(0, 1), (2, 3), (3, 0)]
# Sizes of the head: 768, 1024, 128, 64, 16, 1 in the original.
HEAD = [20, 24, 10, 8, 6, 1]
TEXT = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, hidden_act="gelu")
VISION = dict(
    hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, hidden_act="gelu", image_size=28, patch_size=7
)  # fmt: skip


class Block(nn.Module):
    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, inner), gelu=nn.GELU(), c_proj=nn.Linear(inner, width))
        )

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


def tower(shape: dict) -> nn.Module:
    block = lambda: Block(shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"])  # noqa: E731
    layers = nn.ModuleDict()
    layers["resblocks"] = nn.ModuleList(block() for _ in range(shape["num_hidden_layers"]))
    return layers


class Visual(nn.Module):
    def __init__(self, projection: int):
        super().__init__()
        width, side, patch = VISION["hidden_size"], VISION["image_size"], VISION["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((side // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = tower(VISION)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, projection))

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"]:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


class OpenClip(nn.Module):
    def __init__(self, vocabulary: int, projection: int):
        super().__init__()
        width = TEXT["hidden_size"]
        self.visual = Visual(projection)
        self.transformer = tower(TEXT)
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(77, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, projection))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(100.0)))

    def encode_text(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1], ids.shape[1]), -math.inf).triu(1)
        for block in self.transformer["resblocks"]:
            x = block(x, mask)
        return self.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)] @ self.text_projection


def head() -> nn.Sequential:
    """Affine maps at 0, 2, 4, 6 and 7, dropout between the first four, and no activation."""
    maps = [nn.Linear(ins, outs) for ins, outs in zip(HEAD, HEAD[1:])]
    layers = [maps[0], nn.Dropout(0.2), maps[1], nn.Dropout(0.2), maps[2], nn.Dropout(0.1), maps[3], maps[4]]
    return nn.Sequential(*layers).eval()


def config(tokenizer, projection: int) -> CLIPConfig:
    ids = dict(
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPConfig(text_config=TEXT | ids, vision_config=VISION, projection_dim=projection)


def write_folder(folder, model, tokenizer, processor) -> None:
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    model.config.save_pretrained(folder)
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    # As LAION's repository has it: prompts end at their largest id.
    saved["text_config"]["eos_token_id"] = 2
    write_json(path, saved)


def verdicts(images, texts, scale: float) -> dict:
    """Cosines of all images with all texts, and of each pair the probability that its first image is better."""
    cosines = torch.nn.functional.normalize(images, dim=-1) @ torch.nn.functional.normalize(texts, dim=-1).T
    pairs = [(scale * cosines[[a, b]]).softmax(0)[0].tolist() for a, b in PAIRS]
    return {"cosines": cosines.tolist(), "scale": scale, "first_is_better": pairs}


def features(model, pixels, ids):
    image = model.get_image_features(pixel_values=pixels).pooler_output
    return image, model.get_text_features(input_ids=ids).pooler_output


def main() -> None:
    folder = target_folder("clip_scorers", __doc__)
    pictures = draw_images(81, SIZES)
    (folder / "images").mkdir(exist_ok=True)
    for n, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "images" / f"{n}.png")
    expected = {"texts": TEXTS, "pairs": PAIRS}

    tokenizer = train_clip_tokenizer(folder / "pick", "<|endoftext|>")
    ids = tokenizer(TEXTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    size = VISION["image_size"]
    crop = {"height": size, "width": size}

    torch.manual_seed(83)
    model = CLIPModel(config(tokenizer, HEAD[0])).eval()
    shuffle_parameters(model, 83, 0.1)
    model.logit_scale.data.fill_(math.log(23.0))
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 36}, crop_size=crop, resample=3, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.25, 0.3]
    )
    write_folder(folder / "pick", model, tokenizer, processor)
    write_tensors(folder / "pick" / "model.safetensors", model.state_dict())
    pixels = torch.cat([processor(Image.fromarray(picture), return_tensors="pt").pixel_values for picture in pictures])
    with torch.no_grad():
        images, texts = features(model, pixels, ids)
        expected["pick"] = verdicts(images, texts, model.logit_scale.exp().item())

    torch.manual_seed(85)
    aesthetic = head()
    shuffle_parameters(aesthetic, 85, 0.2)
    write_tensors(
        folder / "aesthetic.safetensors", {f"layers.{name}": tensor for name, tensor in aesthetic.state_dict().items()}
    )
    embeds = images.clone().requires_grad_(True)
    points = aesthetic(torch.nn.functional.normalize(embeds, dim=-1))[:, 0]
    points.sum().backward()
    expected["aesthetic"] = {
        "embeds": images.tolist(), "points": points.tolist(), "gradient": embeds.grad.tolist(),
    }  # fmt: skip

    torch.manual_seed(87)
    published = OpenClip(len(tokenizer), HEAD[0]).eval()
    shuffle_parameters(published, 87, 0.15)
    published.logit_scale.data.fill_(math.log(100.0))
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=crop, resample=3)
    hps = CLIPModel(config(tokenizer, HEAD[0])).eval()
    train_clip_tokenizer(folder / "hps", "<|endoftext|>")
    write_folder(folder / "hps", hps, tokenizer, processor)
    write_tensors(folder / "hps" / "model.safetensors", published.state_dict())
    pixels = torch.cat([processor(Image.fromarray(picture), return_tensors="pt").pixel_values for picture in pictures])
    with torch.no_grad():
        images, texts = published.visual(pixels), published.encode_text(ids)
        expected["hps"] = verdicts(images, texts, published.logit_scale.exp().item())
        copy_numbers(published, hps)
        for ours, theirs in zip((images, texts), features(hps, pixels, ids)):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    write_json(folder / "expected.json", expected)
    write_made_by(folder, "clip_scorers.py", ["torch", "transformers", "tokenizers", "pillow", "numpy"])


def copy_numbers(published: OpenClip, model: CLIPModel) -> None:
    """The numbers of open_clip's modules into transformers', module by module."""
    towers = [
        (published.visual.transformer, model.vision_model.encoder), (published.transformer, model.text_model.encoder),
    ]  # fmt: skip
    for theirs, ours in towers:
        for block, layer in zip(theirs["resblocks"], ours.layers, strict=True):
            attention = layer.self_attn
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
            for projection, weight, bias in zip(projections, weights, biases, strict=True):
                projection.weight.copy_(weight)
                projection.bias.copy_(bias)
            for new, old in (
                (attention.out_proj, block.attn.out_proj), (layer.layer_norm1, block.ln_1),
                (layer.layer_norm2, block.ln_2), (layer.mlp.fc1, block.mlp.c_fc), (layer.mlp.fc2, block.mlp.c_proj),
            ):  # fmt: skip
                new.load_state_dict(old.state_dict())
    vision, text, visual = model.vision_model, model.text_model, published.visual
    vision.embeddings.class_embedding.copy_(visual.class_embedding)
    vision.embeddings.patch_embedding.weight.copy_(visual.conv1.weight)
    vision.embeddings.position_embedding.weight.copy_(visual.positional_embedding)
    vision.pre_layrnorm.load_state_dict(visual.ln_pre.state_dict())
    vision.post_layernorm.load_state_dict(visual.ln_post.state_dict())
    model.visual_projection.weight.copy_(visual.proj.T)
    text.embeddings.token_embedding.weight.copy_(published.token_embedding.weight)
    text.embeddings.position_embedding.weight.copy_(published.positional_embedding)
    text.final_layer_norm.load_state_dict(published.ln_final.state_dict())
    model.text_projection.weight.copy_(published.text_projection.T)
    model.logit_scale.copy_(published.logit_scale)


if __name__ == "__main__":
    main()
