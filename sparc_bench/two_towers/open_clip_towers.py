"""The towers of an open_clip checkpoint without their projections, which become the heads g_v and g_t.

Shapes: B batch, K captions per image, L text tokens, P patches, W width of a tower, D joint width, X = B K texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
import torch.nn.functional as F
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.transformer import TextTransformer, VisionTransformer, text_global_pool
from torch import Tensor

from sparc_bench.errors import UserError, is_short_of_memory
from sparc_bench.objective import ImageOut, TextOut, Tokens
from sparc_bench.two_towers.image_tower import ImageTower
from sparc_bench.two_towers.other_sizes import open_clip_vit_at, shared_copy
from sparc_bench.two_towers.towers import TextTower, TowerPair

TEXT_PROJECTION = "text.text_projection"
SCALARS = {"logit_scale": "objective.log_scale", "logit_bias": "objective.bias"}
"""Name of a scalar in an open_clip state dict -> name in that of `TwoTowerModel`."""

_SIDES = {"visual": "image", "text": "text"}

PAD_ID = 0
"""Padding id of open_clip's tokenizer; in a causal tower, the end-of-text token does not attend to padding."""


class OpenClipImageTower(ImageTower):
    """open_clip's vision transformer: patches after the last norm, and its pooled output before the projection."""

    def __init__(self, trunk: VisionTransformer) -> None:
        super().__init__()
        trunk.proj, trunk.output_tokens = None, True
        self.trunk = trunk
        self.width = trunk.ln_post.normalized_shape[0]
        self.grid = trunk.grid_size
        self.averages = trunk.pool_type == "avg" and not trunk.final_ln_after_pool

    def at(self, size: tuple[int, int]) -> ImageTower:
        """The tower for another input size, with positions as open_clip's `resize_pos_embed` resizes them."""
        if size == tuple(self.trunk.image_size):
            return self
        tower: OpenClipImageTower = shared_copy(self)
        tower.trunk = open_clip_vit_at(self.trunk, size)
        tower.grid = tower.trunk.grid_size
        return tower

    def forward(self, pixels_BCHW: Tensor) -> ImageOut:
        """Patches, row-major over the grid, and the pooled output: the class token or the average of patches."""
        pooled_BW, patches_BPW = self.trunk(pixels_BCHW)
        if self.trunk.final_ln_after_pool:
            patches_BPW = self.trunk.ln_post(patches_BPW)
        return ImageOut(patches_BPW, pooled_BW.unsqueeze(1), self.grid)


class OpenClipTextTower(TextTower):
    """open_clip's text transformer: tokens after the last norm, and its pooled output before the projection."""

    def __init__(self, trunk: TextTransformer) -> None:
        super().__init__()
        trunk.text_projection, trunk.output_tokens = None, True
        self.trunk = trunk
        self.width, self.context = trunk.width, trunk.context_length
        self.trims = trunk.attn_mask is not None and not trunk.use_pad_mask and trunk.pool_type in ("argmax", "eos")

    def forward(self, tokens: Tokens) -> TextOut:
        """Tokens, and the pooled output: the end-of-text token, or the model's own choice."""
        batch, captions, length = tokens.ids_BKL.shape
        ids_XL = tokens.ids_BKL.flatten(0, 1)
        pooled_XW, tokens_XLW = self.trimmed(ids_XL) if self.trims else self.whole(ids_XL)
        return TextOut(
            tokens_XLW[:, :length].reshape(batch, captions, length, -1),
            pooled_XW.reshape(batch, captions, -1),
            tokens.mask_BKL,
            tokens.special_BKL,
        )

    def whole(self, ids_XL: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled outputs XW and tokens by open_clip's own forward, which takes texts at full context length."""
        pooled_XW, tokens_XLW = self.trunk(F.pad(ids_XL, (0, self.context - ids_XL.shape[1]), value=PAD_ID))
        return pooled_XW, tokens_XLW

    def trimmed(self, ids_XL: Tensor) -> tuple[Tensor, Tensor]:
        """The same outputs without computing the padding, to which no word attends in a causal tower."""
        trunk, length = self.trunk, ids_XL.shape[1]
        x_XLW = trunk.token_embedding(ids_XL) + trunk.positional_embedding[:length]
        tokens_XLW = trunk.ln_final(trunk.transformer(x_XLW, attn_mask=trunk.attn_mask[:length, :length]))
        return text_global_pool(tokens_XLW, ids_XL, trunk.pool_type, trunk.eos_id), tokens_XLW


def open_clip_towers(config: Mapping[str, Any]) -> TowerPair:
    """open_clip's towers with random weights.

    Args:
        config: the model's configuration (`model_cfg` of an open_clip_config.json).

    Raises:
        UserError: open_clip cannot build them.
    """
    try:
        own = {key: value for key, value in config.items() if key != "custom_text"}
        # the weights are the checkpoint's: a stranger's configuration fetches none
        own["vision_cfg"] = {**own["vision_cfg"], "timm_model_pretrained": False}
        own["text_cfg"] = {**own["text_cfg"], "hf_model_pretrained": False}
        model = open_clip.CustomTextCLIP(**own)
        return TowerPair(OpenClipImageTower(model.visual), OpenClipTextTower(model.text))
    except Exception as error:  # a configuration from a stranger's file can raise anything
        if is_short_of_memory(error):
            raise
        raise UserError(
            f"open_clip {open_clip.__version__} cannot build the towers of the checkpoint ({type(error).__name__}): "
            "copy it again, or run pip install -U open_clip_torch."
        ) from error


def refuse_other_towers(name: str, config: Mapping[str, Any]) -> None:
    """Raise UserError unless both towers are open_clip's plain transformers, each with one projection matrix."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    reasons = {
        "a timm image tower": vision.get("timm_model_name"),
        "a convolutional image tower": isinstance(vision.get("layers"), list | tuple),
        "attentional pooling over patches": vision.get("attentional_pool"),
        "an image tower that pools nothing": vision.get("pool_type", "tok") == "none",
        "a Hugging Face text tower": text.get("hf_model_name"),
        "a Hugging Face tokenizer": text.get("hf_tokenizer_name"),
        "a tokenizer that drops words": (text.get("tokenizer_kwargs") or {}).get("reduction_mask"),
        "a class token in its text tower": text.get("embed_cls"),
        "a text tower that pools nothing": text.get("pool_type", "argmax") == "none",
        "a bias in its text projection": text.get("proj_bias"),
        "no text projection": text.get("proj_type", "linear") == "none",
        "a decoder": config.get("multimodal_cfg"),
    }
    found = next((reason for reason, there in reasons.items() if there), None)
    if found is not None:
        raise UserError(
            f"{name} has {found}, from which no training can start here: name a model with open_clip's own vision and "
            "text transformers (ViT-B-32, ViT-B-16, ViT-L-14, ...)."
        )


def from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `TwoTowerModel` from one of open_clip: towers, with projections and temperature as heads."""
    custom = convert_to_custom_text_state_dict(dict(tensors))
    heads = {"objective.g_v.weight": custom.pop("visual.proj").T, "objective.g_t.weight": custom.pop(TEXT_PROJECTION).T}
    for name, own in SCALARS.items():
        if name in custom:
            heads[own] = custom.pop(name).reshape(())
    sides = {f"towers.{_SIDES[name.partition('.')[0]]}.trunk.{name.partition('.')[2]}": x for name, x in custom.items()}
    return sides | heads


def to_open_clip(tensors: Mapping[str, Tensor], custom_text: bool) -> dict[str, Tensor]:
    """open_clip's state dict: towers and projections; all other parameters of the objective are left out.

    Args:
        tensors: state dict of `TwoTowerModel`.
        custom_text: `custom_text` of the model's configuration, with which text tensors are named `text.`.
    """
    text = "text." if custom_text else ""
    prefixes = {"towers.image.trunk.": "visual.", "towers.text.trunk.": text}
    named = {
        prefix + name.removeprefix(own): tensor
        for name, tensor in tensors.items()
        for own, prefix in prefixes.items()
        if name.startswith(own)
    }
    projections = {"visual.proj": "objective.g_v.weight", f"{text}text_projection": "objective.g_t.weight"}
    return named | {name: tensors[own].T.contiguous() for name, own in projections.items()}
