"""Image towers for another input size: the position embeddings are resized as the towers' own library resizes them."""

from __future__ import annotations

import copy
from typing import Any

from open_clip.transformer import VisionTransformer
from timm.layers import resample_abs_pos_embed
from torch import nn


def shared_copy(module: Any) -> Any:  # noqa: ANN401 - any module
    """Copy of a module that shares its parameters and buffers."""
    same: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, same)


def open_clip_vit_at(visual: VisionTransformer, size: tuple[int, int]) -> VisionTransformer:
    """open_clip's vision transformer for an input of `size` (rows, columns); all other weights are shared.

    The positions are those of open_clip's `resize_pos_embed` (bicubic, antialiased), bit for bit. timm's function of
    the same arithmetic resizes them, because open_clip's leaves them as they are on a grid of other sides with as many
    patches, and takes every grid that they come from for a square one.
    """
    resized: VisionTransformer = shared_copy(visual)
    rows, columns = visual.patch_size
    resized.grid_size, resized.image_size = (size[0] // rows, size[1] // columns), size
    positions_1TW = resample_abs_pos_embed(
        visual.positional_embedding.data[None], new_size=[*resized.grid_size], old_size=[*visual.grid_size]
    )
    resized.positional_embedding = nn.Parameter(positions_1TW[0], requires_grad=False)
    return resized
