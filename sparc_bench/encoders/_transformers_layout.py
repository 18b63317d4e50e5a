"""Patches and tokens of transformers' architectures: the modules that give them and their path to the joint space.

The exact `model_type` of a checkpoint's configuration selects the layout; an unlisted architecture has global vectors
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
"""First input tensor and first output tensor of a module."""


@dataclass(frozen=True)
class Layout:
    """Patches and tokens of one architecture.

    Attributes:
        ways: values of the card option `patches` that it supports.
        default: value where the option is left out; empty for no patches.
        tapped: function from the model to the module of the image tower from which patches are read.
        patches: function of model, way, and that module's input and output -> patches_BPD, row-major, un-normalised.
        tokens: function of model and last hidden states BLW of the text tower -> tokens_BLD.
        full_context: whether texts are padded to the whole context without a padding mask, as the model was trained.
    """

    ways: tuple[str, ...]
    default: str
    tapped: Callable[[Any], nn.Module]
    patches: Callable[[Any, str, Seen], Tensor]
    tokens: Callable[[Any, Tensor], Tensor]
    full_context: bool


@contextlib.contextmanager
def tap(module: nn.Module | None) -> Iterator[list[Seen]]:
    """Context that records inputs and outputs of a module by a forward hook; empty where `module` is None."""
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
    """Outputs of the last layer (the variant `way`), through the class token's final norm and projection."""
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
    """Every token by the pooled token's linear projection; the hidden states are already normed."""
    tokens_BLD: Tensor = model.text_projection(hidden_BLW)
    return tokens_BLD


def _siglip_patches(model: Any, way: str, seen: Seen) -> Tensor:  # noqa: ANN401, ARG001 - there is one way
    """Every patch as if the attention pooling had no other: its value, then the rest of the head.

    This is MaskCLIP's value path (arXiv 2112.01071) in the tower's last attention, which in SigLIP is the pooling:
    attention over one patch is 1. The mean over patches, weighted by the pooling's own attention, is the pooled vector
    before the head's last two layers (the weights differ between attention heads).
    """
    head = model.vision_model.head
    attention, width = head.attention, head.attention.embed_dim
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[2 * width :]
    value_BPW = attention.out_proj(F.linear(seen[1], attention.in_proj_weight[2 * width :], bias))
    patches_BPD: Tensor = value_BPW + head.mlp(head.layernorm(value_BPW))
    return patches_BPD


def _siglip_tokens(model: Any, hidden_BLW: Tensor) -> Tensor:  # noqa: ANN401
    """Every token by the linear head of the pooled (last) token."""
    tokens_BLD: Tensor = model.text_model.head(hidden_BLW)
    return tokens_BLD


CLIP = Layout(tuple(WAYS), "last", _last_layer, _clip_patches, _clip_tokens, full_context=False)

SIGLIP = Layout(("value",), "", lambda model: model.vision_model, _siglip_patches, _siglip_tokens, full_context=True)
"""SigLIP and SigLIP 2 of fixed size. Texts are padded to 64 tokens without a mask: big_vision, SigLIP_demo.ipynb and
SigLIP2_demo.ipynb (`tokenize(max_len=SEQLEN, ..., eos="sticky")` and a text tower without a mask). "last" is missing
because attention pooling with a feed-forward layer follows the last layer, whose patches are in no joint space."""

NAFLEX = Layout((), "", lambda model: model.vision_model, _siglip_patches, _siglip_tokens, full_context=True)
"""SigLIP 2 NaFlex: no patches, because every image has a patch grid of its own shape."""

LAYOUTS = {
    **dict.fromkeys(("clip", "chinese_clip", "altclip", "metaclip_2"), CLIP),
    "siglip": SIGLIP,
    "siglip2": NAFLEX,
}
"""`model_type` -> layout. SigLIP 2 checkpoints of fixed size have the type siglip, those of NaFlex siglip2."""
