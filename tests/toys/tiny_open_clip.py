"""Small random models in open_clip's own folder format, and pictures and texts to encode with them."""

from __future__ import annotations

import json
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save
from timm.models import VisionTransformer, register_model

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import open_clip as family
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View

TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
VIT = {"image_size": 32, "layers": 3, "width": 48, "head_width": 12, "patch_size": 8}
INCEPTION = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "resize_mode": "squash"}
POOLED_LAST = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
DECODER = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1}

CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VIT, "text_cfg": TEXT},
    "vit_quickgelu": {"vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "vit_average": {
        "vision_cfg": VIT | {"pool_type": "avg", "ls_init_value": 0.5},
        "text_cfg": TEXT,
        "preprocess_cfg": {"resize_mode": "longest", "fill_color": 128},
    },
    "resnet": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
        "text_cfg": TEXT,
    },
    "coca": {
        "custom_text": True,
        "vision_cfg": VIT
        | {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4}
        | {"output_tokens": True},
        "text_cfg": TEXT | {"context_length": 19, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": DECODER,
    },
    "token_timm": {
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
        "text_cfg": TEXT,
    },
    "average_timm": {
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit2", "timm_pool": "avg", "timm_proj": None, "image_size": 160},
        "text_cfg": TEXT,
    },
    "classless_timm": {
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "sparc_bench_classless", "timm_pool": "", "image_size": 32},
        "text_cfg": TEXT,
    },
    "map_timm": {
        "custom_text": True,
        "init_logit_bias": -10,
        "embed_dim": 96,
        "vision_cfg": {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none", "image_size": 160},
        "text_cfg": TEXT | POOLED_LAST,
        "preprocess_cfg": INCEPTION,
    },
    "siglip_timm": {
        "custom_text": True,
        "init_logit_bias": -10,
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "sparc_bench_siglip",
            "timm_pool": "map",
            "timm_proj": "none",
            "image_size": 32,
        },
        "text_cfg": TEXT | POOLED_LAST,
        "preprocess_cfg": INCEPTION,
    },
    "convnext_timm": {
        "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 96},
        "text_cfg": TEXT,
    },
}
"""Kind of model -> open_clip's configuration; joint width 24 unless it says otherwise."""


@register_model
def sparc_bench_classless(**_: Any) -> VisionTransformer:
    """A small timm trunk without class token, as ViTamin's is: every token is a patch."""
    return _trunk(class_token=False, global_pool="avg")


@register_model
def sparc_bench_siglip(**_: Any) -> VisionTransformer:
    """A small timm trunk as SigLIP's, which has no class token and an attention pool."""
    return _trunk(class_token=False, global_pool="map")


def _trunk(**options: Any) -> VisionTransformer:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    trunk = VisionTransformer(**sizes, **options, num_classes=0)
    trunk.default_cfg = {}
    return trunk


TEXTS = (
    "a dog",
    "A Dog!  Running_around, isn't it?",
    "",
    "!",
    "two brown dogs play with a red ball on the wet grass beside a long wooden fence while three children watch them",
    "café 狗",
)


def folder(path: Path, kind: str, **text_cfg: Any) -> Path:
    """A folder with open_clip's configuration and random weights, none of them zero."""
    config: dict[str, Any] = {"embed_dim": 24} | CONFIGS[kind]
    preprocess_cfg = config.pop("preprocess_cfg", {})
    config["text_cfg"] = config["text_cfg"] | text_cfg
    path.mkdir(parents=True, exist_ok=True)
    whole = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess_cfg})
    (path / "open_clip_config.json").write_text(whole)
    (path / "open_clip_model.safetensors").write_bytes(_weights(whole))
    return path


@cache
def _weights(config: str) -> bytes:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as where:
        (Path(where) / "open_clip_config.json").write_text(config)
        model = open_clip.create_model(f"local-dir:{where}", load_weights=False, pretrained_text=False)
    return save(shaken(model, 0))


def shaken(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """The model's tensors with noise on all but the scale of the logits, so that no layer is nearly the identity."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.startswith("text_decoder."):  # partly left as it lay in memory, and no part of any vector
            tensor = torch.zeros_like(tensor)
        moved = tensor if name.startswith("logit") or not tensor.is_floating_point() else tensor + 0.1 * noise
        tensors[name] = (moved.abs() + 0.5 if name.endswith("running_var") else moved).contiguous().clone()
    return tensors


def encoder(folder_or_file: Path, runtime: Runtime | None = None, **options: Any) -> family.OpenClipEncoder:
    card = ModelCard(name="tiny", title="tiny", family="open_clip", source="test", options=options)
    return family.load(card, folder_or_file, runtime or Runtime(batch_size=4))


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colours with some noise, like no other seed's."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


SIZES = ((90, 60), (60, 91), (33, 200), (64, 64), (301, 17), (32, 32), (47, 46))


def items(sizes: tuple[tuple[int, int], ...] = SIZES) -> list[View]:
    return [View(ImageItem(str(index), partial(picture, index, *size))) for index, size in enumerate(sizes)]
