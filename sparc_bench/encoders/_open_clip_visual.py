"""Image towers of open_clip (`model.visual`): global vectors and patch vectors in the joint space, from one pass.

Patch vectors of each kind of tower, by the card's option `patches`:

- open_clip's VisionTransformer: all four variants of `_last_block`; with CoCa's attention pool `value` only.
- OpenAI's ResNets: `value` only, as MaskCLIP has it: value and output projection of the attention pool at every
  position, without its position embedding (chongzhou96/MaskCLIP, mmseg/models/decode_heads/maskclip_head.py).
- timm's trunks: the trunk's own head on every patch, as if it were the only one. In a trunk with a class token or
  average pooling this is `last`; with attention pooling (SigLIP) it is `value`, because attention to one token gives
  its value. timm's plain VisionTransformer without attention pooling also has `value`, `sclip` and `clearclip`.

Shapes: B images, P patches, T tokens (P and the class token), W width, D joint width, H W rows and columns of pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers import Attention
from timm.models.vision_transformer import Block
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor

from sparc_bench.encoders._last_block import WAYS, LastBlock, heads_of
from sparc_bench.errors import UserError
from sparc_bench.two_towers.other_sizes import open_clip_vit_at, shared_copy

HEADS_AT_ONCE = 8192
"""Patches that go through a head at once, to bound memory."""

Vectors = tuple[Tensor | None, Tensor | None]
"""Global vectors BD and patch vectors BPD; None where not requested."""


class OpenClipVisual:
    """Base of open_clip's image towers; alone, it gives global vectors of any module.

    Attributes:
        visual: open_clip's module.
        ways: values of the card option `patches` that the tower supports.
        cell: rows and columns of pixels of a patch; None for a tower without patch vectors.
        flexible: whether the tower takes other input sizes.
    """

    ways: tuple[str, ...] = ()
    cell: tuple[int, int] | None = None
    flexible: bool = False

    def __init__(self, visual: Any) -> None:  # noqa: ANN401 - the library's class
        self.visual = visual

    def at(self, size: tuple[int, int]) -> OpenClipVisual:  # noqa: ARG002
        """The tower for another input size (rows, columns); all weights but the position embeddings are shared."""
        return self

    def read(self, pixels_B3HW: Tensor, wants_global: bool, way: str | None) -> Vectors:  # noqa: ARG002
        """Global vectors if `wants_global`, and patch vectors by `way` unless it is None."""
        return self.whole(pixels_B3HW), None

    def whole(self, pixels_B3HW: Tensor) -> Tensor:
        """Global vectors by the library's own forward, not normalised."""
        found = self.visual(pixels_B3HW)
        pooled: Tensor = found[0] if isinstance(found, tuple) else found
        return pooled


class VitVisual(OpenClipVisual):
    """open_clip's VisionTransformer: global and patch vectors."""

    flexible = True

    def __init__(self, visual: Any) -> None:  # noqa: ANN401 - the library's class
        super().__init__(visual)
        blocks = visual.transformer.resblocks
        plain = all(isinstance(block, ResidualAttentionBlock) for block in blocks) and len(blocks) > 1
        if visual.attn_pool is None:
            self.ways = ("last", "value", "sclip", "clearclip") if plain else ("last",)
        elif visual.attn_pool_contrastive is None:
            self.ways = ("value",)
        self.cell = visual.patch_size if self.ways else None

    def at(self, size: tuple[int, int]) -> OpenClipVisual:
        """The tower for another input size, with positions as open_clip's `resize_pos_embed` resizes them."""
        return VitVisual(open_clip_vit_at(self.visual, size))

    def read(self, pixels_B3HW: Tensor, wants_global: bool, way: str | None) -> Vectors:
        """Global and patch vectors from one pass; variants of the last block start from its input tokens."""
        if way is None:
            return self.whole(pixels_B3HW), None
        visual = self.visual
        through = way == "last" or visual.attn_pool is not None
        depth = len(visual.transformer.resblocks)
        found = visual.forward_intermediates(
            pixels_B3HW,
            indices=[depth - 1 if through else depth - 2],
            stop_early=not wants_global,
            intermediates_only=not wants_global,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        patches_BPW = found["image_intermediates"][0]
        if visual.attn_pool is not None:
            patches_BPW = _pooled_alone(visual.attn_pool, patches_BPW)
        elif not through:
            x_BTW = torch.cat([found["image_intermediates_prefix"][0], patches_BPW], dim=1)
            patches_BPW = WAYS[way](x_BTW, _block(visual.transformer.resblocks[-1]))[:, 1:]
        patches_BPW = visual.ln_post(patches_BPW)
        patches_BPD = patches_BPW if visual.proj is None else patches_BPW @ visual.proj
        return found.get("image_features"), patches_BPD


class ResNetVisual(OpenClipVisual):
    """OpenAI's ResNet with an attention pool, whose value path has no position embeddings and so takes any size."""

    ways = ("value",)
    cell = (32, 32)
    flexible = True

    def read(self, pixels_B3HW: Tensor, wants_global: bool, way: str | None) -> Vectors:
        """Global and patch vectors from one pass through the convolutions."""
        visual = self.visual
        own = visual.image_size
        if wants_global and pixels_B3HW.shape[-2:] != ((own, own) if isinstance(own, int) else tuple(own)):
            raise UserError(f"This ResNet has global vectors at {own} px only: leave the size out.")
        map_BWHW = visual.stem(pixels_B3HW)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            map_BWHW = layer(map_BWHW)
        pool = visual.attnpool
        patches_BPD = None if way is None else pool.c_proj(pool.v_proj(map_BWHW.flatten(2).transpose(1, 2)))
        return pool(map_BWHW) if wants_global else None, patches_BPD


class TimmVisual(OpenClipVisual):
    """A timm trunk with open_clip's head."""

    def __init__(self, visual: Any) -> None:  # noqa: ANN401 - the library's class
        super().__init__(visual)
        trunk = visual.trunk
        self.flexible = hasattr(trunk, "set_input_size") or not hasattr(trunk, "blocks")
        if "pool" in dict(visual.head.named_children()):  # open_clip's own pool after a trunk without one
            return
        if hasattr(trunk, "blocks") and hasattr(trunk, "num_prefix_tokens"):
            self._read_token_trunk(trunk)
        elif getattr(getattr(getattr(trunk, "head", None), "global_pool", None), "pool_type", "") == "avg":
            reduction = trunk.feature_info[-1]["reduction"]
            self.ways, self.cell = ("last",), (reduction, reduction)

    def at(self, size: tuple[int, int]) -> OpenClipVisual:
        """The tower for another input size; timm's `set_input_size`, as in open_clip, resizes the positions."""
        resized = shared_copy(self.visual)
        resized.set_input_size(size)
        return TimmVisual(resized)

    def read(self, pixels_B3HW: Tensor, wants_global: bool, way: str | None) -> Vectors:
        """Global and patch vectors from one pass; variants of the last block start from its input tokens."""
        if way is None:
            return self.whole(pixels_B3HW), None
        visual, trunk = self.visual, self.visual.trunk
        if way == "last" or trunk.attn_pool is not None:
            features = trunk.forward_features(pixels_B3HW)
            pooled = visual.head(trunk.forward_head(features)) if wants_global else None
            return pooled, self._head_per_patch(features)
        found = trunk.forward_intermediates(
            pixels_B3HW,
            indices=[len(trunk.blocks) - 2],
            return_prefix_tokens=True,
            output_fmt="NLC",
            stop_early=not wants_global,
            intermediates_only=not wants_global,
        )
        features, intermediates = found if wants_global else (None, found)
        x_BTW = intermediates[0]
        if trunk.num_prefix_tokens:  # timm then returns patches and prefix tokens separately
            x_BTW = torch.cat([x_BTW[1], x_BTW[0]], dim=1)
        x_BTW = WAYS[way](x_BTW, _timm_block(trunk.blocks[-1]))
        pooled = visual.head(trunk.forward_head(features)) if wants_global else None
        return pooled, self._head_per_patch(trunk.norm(x_BTW))

    def _read_token_trunk(self, trunk: Any) -> None:  # noqa: ANN401 - any of timm's transformers
        pool = getattr(trunk, "attn_pool", None)
        if pool is not None:
            self.ways = ("value",) if pool.pos_embed is None else ()
        elif trunk.global_pool in ("token", "avg"):
            self.ways = ("last", *(("value", "sclip", "clearclip") if _is_plain(trunk) else ()))
        self.cell = trunk.patch_embed.feat_ratio(as_scalar=False) if self.ways else None

    def _head_per_patch(self, features: Tensor) -> Tensor:
        """Patch vectors BPD: every patch alone through the heads of trunk and adapter."""
        trunk = self.visual.trunk
        is_tokens, is_channels_last = features.ndim == 3, getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        if is_tokens:
            patches_BPW = features[:, trunk.num_prefix_tokens :]
        else:
            patches_BPW = features.flatten(1, 2) if is_channels_last else features.flatten(2).transpose(1, 2)
        parts = []
        for patches_NW in torch.split(patches_BPW.flatten(0, 1), HEADS_AT_ONCE):
            if is_tokens:
                alone = patches_NW[:, None].expand(-1, trunk.num_prefix_tokens + 1, -1)
            else:
                alone = patches_NW[:, None, None] if is_channels_last else patches_NW[:, :, None, None]
            parts.append(self.visual.head(trunk.forward_head(alone)))
        return torch.cat(parts).reshape(*patches_BPW.shape[:2], -1)


def open_clip_visual(visual: Any) -> OpenClipVisual:  # noqa: ANN401
    """Image tower of an open_clip model, by the class of `model.visual`."""
    kinds: dict[Any, type[OpenClipVisual]] = {
        VisionTransformer: VitVisual,
        ModifiedResNet: ResNetVisual,
        TimmModel: TimmVisual,
    }
    return kinds.get(type(visual), OpenClipVisual)(visual)


def _block(block: Any) -> LastBlock:  # noqa: ANN401 - open_clip's ResidualAttentionBlock
    attention = block.attn

    def qkv(x_BTW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = F.linear(block.ln_1(x_BTW), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        heads = attention.num_heads
        return heads_of(q, heads), heads_of(k, heads), heads_of(v, heads)

    return LastBlock(
        qkv=qkv,
        out=lambda merged_BTW: block.ls_1(attention.out_proj(merged_BTW)),
        feed_forward=lambda x_BTW: block.ls_2(block.mlp(block.ln_2(x_BTW))),
        scale=attention.head_dim**-0.5,
    )


def _timm_block(block: Any) -> LastBlock:  # noqa: ANN401 - timm's Block
    attention = block.attn

    def qkv(x_BTW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = attention.qkv(block.norm1(x_BTW)).chunk(3, dim=-1)
        heads = attention.num_heads
        return attention.q_norm(heads_of(q, heads)), attention.k_norm(heads_of(k, heads)), heads_of(v, heads)

    return LastBlock(
        qkv=qkv,
        out=lambda merged_BTW: block.ls1(attention.proj(attention.norm(merged_BTW))),
        feed_forward=lambda x_BTW: block.ls2(block.mlp(block.norm2(x_BTW))),
        scale=attention.scale,
    )


def _is_plain(trunk: Any) -> bool:  # noqa: ANN401
    blocks = list(trunk.blocks)
    plain = all(type(block) is Block and type(block.attn) is Attention for block in blocks)
    return type(trunk) is TimmViT and plain and len(blocks) > 1 and getattr(blocks[-1].attn, "gate", None) is None


def _pooled_alone(pool: Any, patches_BPW: Tensor) -> Tensor:  # noqa: ANN401 - open_clip's AttentionalPooler
    """Output of CoCa's attention pool for every patch alone: its projected value."""
    attention = pool.attn
    width = attention.embed_dim
    weight = attention.v_proj_weight
    if weight is None:
        weight = attention.in_proj_weight[2 * width :]
    value_BPW = F.linear(pool.ln_k(patches_BPW), weight, attention.in_proj_bias[2 * width :])
    projected: Tensor = attention.out_proj(value_BPW)
    return projected
