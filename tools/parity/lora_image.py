"""Adapters of image models, with convolutions, in the formats of diffusers, kohya and PEFT; and SDXL's names.

Run diffusion.py first. Writes lora_image/:
  conv/pytorch_lora_weights.safetensors   U-Net (linear maps and convolutions) and text encoder, as diffusers saves them
  conv/kohya.safetensors                  the same adapter as kohya's scripts name it, with α beside the matrices
  conv/expected.safetensors               latents, timesteps, ids; the text encoder's output and the U-Net's under the adapter,
                                          a probe, and grad.<module>.lora_A|B.weight of the sum of U-Net output times probe
  dora/                                   a PEFT folder, DoRA on convolutions and linear maps, and expected.safetensors
  sdxl_names.json                         for U-Nets shaped like SDXL's: sgm's modules as kohya names them, each with the
                                          module that diffusers' own conversion makes of it and the dimensions of its weight
All belong to diffusion/sd1. The script checks that diffusers computes the same with both files of `conv`.
"""

from __future__ import annotations

import json

from common import FIXTURES, target_folder, torch, write_json, write_made_by, write_tensors

import diffusers
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _convert_unet_lora_key, _maybe_map_sgm_blocks_to_diffusers
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

diffusers.logging.disable_progress_bar()

CONV = LoraConfig(
    r=2, lora_alpha=6, init_lora_weights=False,
    target_modules=["to_q", "to_out.0", "ff.net.0.proj", "proj_in", "proj_out", "time_emb_proj", "conv_in", "conv1", "conv_shortcut", "conv"],
)  # fmt: skip
TEXT = LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=["q_proj", "out_proj", "fc1"])
DORA = LoraConfig(
    r=2, lora_alpha=4, use_dora=True, init_lora_weights=False, target_modules=["to_k", "conv1", "conv", "proj_out"]
)  # fmt: skip


def pipeline():
    return StableDiffusionPipeline.from_pretrained(FIXTURES / "diffusion" / "sd1", safety_checker=None)


def shuffle_adapter(model, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name and "magnitude" not in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            elif "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))


def inputs(seed: int = 5) -> dict:
    draw = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(2, 4, 8, 8, generator=draw),
        "timesteps": torch.tensor([17, 801]),
        "ids": torch.randint(0, 500, (2, 9), generator=draw),
        "probe": torch.randn(2, 4, 8, 8, generator=draw),
    }


def run(unet, text_encoder, given: dict) -> dict:
    embeds = text_encoder(given["ids"])[0].detach()
    return {"prompt_embeds": embeds, "sample": unet(given["latents"], given["timesteps"], embeds).sample}


def module_of(name: str) -> str:
    """The name of a parameter without what PEFT puts around it."""
    return name.removeprefix("base_model.model.").replace(".default", "").replace(".base_layer", "")


def gradients(unet, outputs: dict, given: dict) -> dict:
    (outputs["sample"] * given["probe"]).sum().backward()
    named = {module_of(name): parameter.grad for name, parameter in unet.named_parameters() if "lora_" in name}
    kept = ("conv_in.", "down_blocks.0.downsamplers.0.conv.", "mid_block.resnets.0.conv1.", "up_blocks.2.attentions.1.proj_out.")
    return {f"grad.{name}": grad for name, grad in named.items() if name.startswith(kept)}


def kohya(networks: dict) -> dict:
    """Keys as sd-scripts writes them: underscores for dots, and α of each module."""
    tensors = {}
    for start, (state, config) in networks.items():
        for name, tensor in state.items():
            module, part = name.rsplit(".lora_", 1)
            key = start + module.replace(".", "_")
            tensors[f"{key}.lora_{ {'A.weight': 'down', 'B.weight': 'up'}[part] }.weight"] = tensor
            tensors[f"{key}.alpha"] = torch.tensor(float(config.lora_alpha))
    return tensors


def write_conv(folder) -> None:
    pipe = pipeline()
    pipe.unet.add_adapter(CONV)
    pipe.text_encoder.add_adapter(TEXT)
    shuffle_adapter(pipe.unet, 41)
    shuffle_adapter(pipe.text_encoder, 42)
    unet, text = (get_peft_model_state_dict(model) for model in (pipe.unet, pipe.text_encoder))
    rooted = {name if name.startswith("text_model.") else f"text_model.{name}": value for name, value in text.items()}
    pipe.save_lora_weights(
        folder, unet_lora_layers=unet, text_encoder_lora_layers=text,
        unet_lora_adapter_metadata=pipe.unet.peft_config["default"].to_dict(),
        text_encoder_lora_adapter_metadata=pipe.text_encoder.peft_config["default"].to_dict(),
    )  # fmt: skip
    tensors = kohya({"lora_unet_": (unet, CONV), "lora_te_": (rooted, TEXT)})
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "kohya.safetensors", {"ss_network_module": "networks.lora", "ss_base_model_version": "sd_v1"})
    given = inputs()
    outputs = run(pipe.unet, pipe.text_encoder, given)
    grads = gradients(pipe.unet, outputs, given)
    write_tensors(folder / "expected.safetensors", given | outputs | grads)
    for file in ("pytorch_lora_weights.safetensors", "kohya.safetensors"):
        again = pipeline()
        again.load_lora_weights(folder, weight_name=file)
        worst = max((a - b).abs().max().item() for a, b in zip(run(again.unet, again.text_encoder, given).values(), outputs.values()))
        assert worst < 1e-5, (file, worst)
        print(f"{file}: diffusers within {worst:.1e} of the model that was saved")


def write_dora(folder) -> None:
    pipe = pipeline()
    adapted = get_peft_model(pipe.unet, DORA)
    shuffle_adapter(adapted, 43)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"target_modules": sorted(config["target_modules"]), "base_model_name_or_path": "sd1"}
    write_json(folder / "adapter_config.json", config)
    given = inputs()
    write_tensors(folder / "expected.safetensors", given | run(adapted, pipe.text_encoder, given))


XL = {
    "two": dict(block_out_channels=(8, 16, 24), layers_per_block=2, transformer_layers_per_block=(1, 1, 2)),
    "one": dict(block_out_channels=(8, 16, 16), layers_per_block=1, transformer_layers_per_block=(1, 1, 2)),
}


def xl_unet(shape: dict):
    return UNet2DConditionModel(
        sample_size=8, norm_num_groups=4, cross_attention_dim=16, attention_head_dim=(2, 2, 2), use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64, **shape,
    )  # fmt: skip


def sgm_modules(unet) -> list:
    """The linear maps and convolutions of sgm's own U-Net of this shape, in the order in which its code makes them."""
    config = unet.config
    layers, n = config.layers_per_block, len(config.block_out_channels)
    depths = config.transformer_layers_per_block
    attends = ["CrossAttn" in kind for kind in config.down_block_types]

    def resnet(at: str, has_skip: bool) -> list:
        return [f"{at}.in_layers.2", f"{at}.emb_layers.1", f"{at}.out_layers.3"] + [f"{at}.skip_connection"] * has_skip

    def transformer(at: str, depth: int) -> list:
        blocks = [f"{at}.transformer_blocks.{i}" for i in range(depth)]
        maps = [f"attn{k}.{m}" for k in (1, 2) for m in ("to_q", "to_k", "to_v", "to_out.0")] + ["ff.net.0.proj", "ff.net.2"]
        return [f"{at}.proj_in", f"{at}.proj_out"] + [f"{block}.{name}" for block in blocks for name in maps]

    names, number, width = [], 1, config.block_out_channels[0]
    for level in range(n):
        for _ in range(layers):
            names += resnet(f"input_blocks.{number}.0", width != config.block_out_channels[level])
            width = config.block_out_channels[level]
            names += transformer(f"input_blocks.{number}.1", depths[level]) if attends[level] else []
            number += 1
        if level + 1 < n:
            names.append(f"input_blocks.{number}.0.op")
            number += 1
    names += resnet("middle_block.0", False) + transformer("middle_block.1", depths[-1]) + resnet("middle_block.2", False)
    number = 0
    for level in reversed(range(n)):
        for layer in range(layers + 1):
            names += resnet(f"output_blocks.{number}.0", True)
            names += transformer(f"output_blocks.{number}.1", depths[level]) if attends[level] else []
            if level > 0 and layer == layers:
                names.append(f"output_blocks.{number}.{1 + attends[level]}.conv")
            number += 1
    return names + ["input_blocks.0.0", "out.2", "time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2"]


def xl_names(shape: dict) -> dict:
    unet = xl_unet(shape)
    modules = {name for name, module in unet.named_modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))}
    state = {f"lora_unet_{name.replace('.', '_')}.lora_down.weight": name for name in sgm_modules(unet)}
    keys = {}
    for key, name in _maybe_map_sgm_blocks_to_diffusers(dict(state), unet.config).items():
        module = _convert_unet_lora_key(key).removesuffix(".lora.down.weight").replace(".processor", "")
        for old, new in {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"}.items():
            module = module.removesuffix(".down.weight").replace(old, new)
        keys["lora_unet_" + name.replace(".", "_")] = module
    # diffusers leaves the dots of the layers inside `ff` and of numbers as they should be; what it has wrong would show here.
    unknown, missing = sorted(set(keys.values()) - modules), sorted(modules - set(keys.values()))
    assert not unknown and not missing, (unknown, missing)
    weights = unet.state_dict()
    return {key: [module, weights[f"{module}.weight"].dim()] for key, module in keys.items()}


def main() -> None:
    folder = target_folder("lora_image", __doc__)
    for name in ("conv", "dora"):
        (folder / name).mkdir(exist_ok=True)
    write_conv(folder / "conv")
    write_dora(folder / "dora")
    names = {name: xl_names(shape) for name, shape in XL.items()}
    (folder / "sdxl_names.json").write_text(json.dumps(names, separators=(",", ":")) + "\n")
    write_made_by(folder, "lora_image.py", ["torch", "diffusers", "transformers", "peft"])


if __name__ == "__main__":
    main()
