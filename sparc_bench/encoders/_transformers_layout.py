"""Where transformers' architectures keep patches and tokens, and how these reach the joint space.

Known by the exact `model_type` of a checkpoint's configuration; an architecture that is not listed has global vectors
only. Shapes: B images or texts, T tokens of the image tower (class token first, where there is one), P patches,
L text tokens, W width of a tower, D joint width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sparc_bench.encoders._last_block import WAYS, LastBlock, heads_of

Seen = tuple[Tensor, Tensor]
"""What a module was given and what it gave, the first tensor of each."""


@dataclass(frozen=True)
class Layout:
    """An architecture's dense parts.

    Attributes:
        ways: values of the option `patches` that it has.
        default: the way where the option is left out; empty: no patches.
        tapped: the module of the image tower from which patches are read.
        patches: model, way, what that module was given and gave -> patches_BPD, row-major, un-normalised.
        tokens: model, last hidden states of the text tower BLW -> tokens_BLD.
        full_context: texts are padded to the whole context and padding is not masked, as the model was trained.
    """

    ways: tuple[str, ...]
    default: str
    tapped: Callable[[Any], nn.Module]
    patches: Callable[[Any, str, Seen], Tensor]
    tokens: Callable[[Any, Tensor], Tensor]
    full_context: bool


@contextlib.contextmanager
def tap(module: nn.Module | None) -> Iterator[list[Seen]]:
    """What a module is given and gives while the context lasts; nothing where there is no module."""
    seen: list[Seen] = []
    if module is None:
        yield seen
        return

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ANN401
        given = args[0] if args else next(iter(kwargs.values()))
        seen.append((given, output if isinstance(output, Tensor) else output[0]))

    handle = module.register_forward_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _last_layer(model: Any) -> nn.Module:  # noqa: ANN401
    layer: nn.Module = model.vision_model.encoder.layers[-1]
    return layer


def _clip_patches(model: Any, way: str, seen: Seen) -> Tensor:  # noqa: ANN401
    """Tokens behind the last layer (changed as `way` says) through the final norm and projection of the class token."""
    layer = _last_layer(model)
    tokens_BTW = seen[1] if way == "last" else WAYS[way](seen[0], _block(layer))
    patches_BPD: Tensor = model.visual_projection(model.vision_model.post_layernorm(tokens_BTW[:, 1:]))
    return patches_BPD


def _block(layer: Any) -> LastBlock:  # noqa: ANN401
    attention = layer.self_attn

    def qkv(x_BTW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed_BTW, heads = layer.layer_norm1(x_BTW), attention.num_heads
        q, k, v = (part(normed_BTW) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        return heads_of(q, heads), heads_of(k, heads), heads_of(v, heads)

    return LastBlock(qkv, attention.out_proj, lambda y_BTW: layer.mlp(layer.layer_norm2(y_BTW)), attention.scale)


def _clip_tokens(model: Any, hidden_BLW: Tensor) -> Tensor:  # noqa: ANN401
    """Every token as the pooled one: the projection is linear, and the hidden states are normed already."""
    tokens_BLD: Tensor = model.text_projection(hidden_BLW)
    return tokens_BLD


def _siglip_patches(model: Any, way: str, seen: Seen) -> Tensor:  # noqa: ANN401, ARG001 - there is one way
    """Every patch as the only one that the attention pooling sees: its value, then the rest of the head.

    That is the value path of MaskCLIP (arXiv 2112.01071) taken at the tower's last attention, which in SigLIP is the
    pooling: attention over one patch is 1. The mean over patches, weighted by the pooling's own attention, is the
    pooled vector before the head's last two layers (several heads weigh differently).
    """
    head = model.vision_model.head
    attention, width = head.attention, head.attention.embed_dim
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[2 * width :]
    value_BPW = attention.out_proj(F.linear(seen[1], attention.in_proj_weight[2 * width :], bias))
    patches_BPD: Tensor = value_BPW + head.mlp(head.layernorm(value_BPW))
    return patches_BPD


def _siglip_tokens(model: Any, hidden_BLW: Tensor) -> Tensor:  # noqa: ANN401
    """Every token as the pooled one (the last): the head is one linear layer."""
    tokens_BLD: Tensor = model.text_model.head(hidden_BLW)
    return tokens_BLD


CLIP = Layout(tuple(WAYS), "last", _last_layer, _clip_patches, _clip_tokens, full_context=False)

SIGLIP = Layout(("value",), "", lambda model: model.vision_model, _siglip_patches, _siglip_tokens, full_context=True)
"""Padding, 64 tokens and no mask: big_vision, SigLIP_demo.ipynb and SigLIP2_demo.ipynb (`tokenize(max_len=SEQLEN, ...,
eos="sticky")` and a text tower without a mask). The last layer's patches are in no joint space: the tower's output is
pooled by attention with a feed-forward layer behind it, so that there is no way "last"."""

NAFLEX = Layout((), "", lambda model: model.vision_model, _siglip_patches, _siglip_tokens, full_context=True)
"""SigLIP 2 with images of varying shape: a grid of patches of its own for every image, so that none are given."""

LAYOUTS = {
    **dict.fromkeys(("clip", "chinese_clip", "altclip", "metaclip_2"), CLIP),
    "siglip": SIGLIP,
    "siglip2": NAFLEX,
}
"""`model_type` -> layout. SigLIP 2's checkpoints of fixed size are of the type siglip, the NaFlex ones siglip2."""
