"""Variants of a transformer's last block that give patch vectors of models trained without patch alignment.

A pre-norm block turns tokens x into `y = x + out(A v)`, then `y + feed_forward(y)`, with q, k, v from the normed tokens
and `A = softmax(q k^T s)` in every head. Each variant changes this block alone; the class token takes part in attention
throughout. Its patch outputs go through the tower's final norm and projection, as the class token does.

Shapes: B images, T tokens (class token first, where there is one), W width, H heads, E width of a head (W = H E).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Tokens = Callable[[Tensor], Tensor]
"""Layer on tokens: BTW -> BTW."""


@dataclass(frozen=True)
class LastBlock:
    """The parts of a pre-norm block, independent of the library.

    Attributes:
        qkv: tokens BTW (before the block's first norm) -> q, k, v, each BHTE, q not yet scaled.
        out: merged heads BTW -> residual of the attention: output projection and layer scale.
        feed_forward: tokens BTW -> residual of the feed-forward half: norm, layers and layer scale.
        scale: s, the factor of `q k^T`.
    """

    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    out: Tokens
    feed_forward: Tokens
    scale: float


def last(x_BTW: Tensor, block: LastBlock) -> Tensor:
    """Tokens BTW of the block as trained, `A = softmax(q k^T s)`."""
    q, k, v = block.qkv(x_BTW)
    return _with_residuals(x_BTW, _attend(q, k, v, block.scale), block)


def value(x_BTW: Tensor, block: LastBlock) -> Tensor:
    """Tokens BTW by MaskCLIP's value path, `A = 1`: every token keeps its own value; residuals and feed-forward stay.

    Source: MaskCLIP, arXiv 2112.01071; residuals and feed-forward as in its released code
    (chongzhou96/MaskCLIP, mmseg/models/backbones/vit.py, `return_qkv`). Its key smoothing and prompt denoising are
    separate steps, which are left out here.
    """
    _, _, v = block.qkv(x_BTW)
    return _with_residuals(x_BTW, _merged(v), block)


def sclip(x_BTW: Tensor, block: LastBlock) -> Tensor:
    """Tokens BTW by SCLIP's correlative self-attention, `A = softmax(q q^T s) + softmax(k k^T s)`; the rest stays.

    Source: SCLIP, arXiv 2312.01597; residuals and feed-forward as in its released code
    (wangf3014/SCLIP, clip/model.py). A is a sum, not a mean: its rows sum to 2.
    """
    q, k, v = block.qkv(x_BTW)
    return _with_residuals(x_BTW, _attend(q, q, v, block.scale) + _attend(k, k, v, block.scale), block)


def clearclip(x_BTW: Tensor, block: LastBlock) -> Tensor:
    """Tokens BTW by ClearCLIP: `out(A v)` with `A = softmax(q q^T s)`, without residual and without feed-forward.

    Source: ClearCLIP, arXiv 2407.12442 (its three changes of the last layer); mc-lan/ClearCLIP,
    open_clip/transformer.py.
    """
    q, _, v = block.qkv(x_BTW)
    return block.out(_attend(q, q, v, block.scale))


WAYS: dict[str, Callable[[Tensor, LastBlock], Tensor]] = {
    "last": last,
    "value": value,
    "sclip": sclip,
    "clearclip": clearclip,
}
"""Value of the card option `patches` -> function of the last block's input tokens."""


def heads_of(tokens_BTW: Tensor, heads: int) -> Tensor:
    """Tokens BTW split into heads: BHTE."""
    batch, tokens, width = tokens_BTW.shape
    return tokens_BTW.reshape(batch, tokens, heads, width // heads).transpose(1, 2)


def _merged(heads_BHTE: Tensor) -> Tensor:
    return heads_BHTE.transpose(1, 2).flatten(2)


def _attend(a_BHTE: Tensor, b_BHTE: Tensor, v_BHTE: Tensor, scale: float) -> Tensor:
    return _merged(F.scaled_dot_product_attention(a_BHTE, b_BHTE, v_BHTE, scale=scale))


def _with_residuals(x_BTW: Tensor, attended_BTW: Tensor, block: LastBlock) -> Tensor:
    y_BTW = x_BTW + block.out(attended_BTW)
    return y_BTW + block.feed_forward(y_BTW)
