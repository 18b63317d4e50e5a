"""Features of images and texts, regions and detections: the values that encoders return and protocols score.

Shapes: N images, M texts, K branches, P patches, L text tokens, D joint width, R regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST = 1e-12
"""Length below which torch's own normalisation no longer gives length 1."""


def unit(vectors: Tensor) -> Tensor:
    """L2-normalised rows, of any length that is not 0: squares that overflow or vanish are taken of scaled rows."""
    length = vectors.norm(dim=-1, keepdim=True)
    odd = ~((length >= SHORTEST) & length.isfinite())
    if odd.any():  # no others are scaled: that would round them differently
        largest = vectors.abs().amax(dim=-1, keepdim=True)
        scaled = vectors / torch.where(largest > 0, largest, torch.ones_like(largest))
        vectors = torch.where(odd, scaled, vectors)
    return F.normalize(vectors, dim=-1)


def present(vectors: Tensor | None, side: str) -> Tensor:
    """The vectors themselves; RuntimeError if they were not computed (`need` without "global")."""
    if vectors is None:
        raise RuntimeError(f"the {side} features hold no global vectors: ask for 'global'")
    return vectors


@dataclass(frozen=True)
class ImageFeatures:
    """Features of images; only the requested kinds are not None (patches: not empty).

    Attributes:
        ids: the items' ids, in order.
        global_ND: one vector per image in the joint space; None where a model's image vector depends on the text.
        branches_NKD: several vectors per image (multi-branch towers).
        patches: patch path -> patch vectors NPD, un-normalised, in the order of `Encoder.paths`; row-major.
        grid: rows and columns of the patch grid.
        area_N4: the rectangle of the original image, in pixels, that the grid covers (left, top, right, bottom).
    """

    ids: tuple[str, ...]
    global_ND: Tensor | None = None
    branches_NKD: Tensor | None = None
    patches: Mapping[str, Tensor] = field(default_factory=dict)
    grid: tuple[int, int] | None = None
    area_N4: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def unit_ND(self) -> Tensor:
        """`global_ND` with rows of length 1, computed once and kept."""
        return unit(present(self.global_ND, "image"))

    def __getitem__(self, rows: slice) -> ImageFeatures:
        """The features of a slice of the images."""
        return ImageFeatures(
            ids=self.ids[rows],
            global_ND=None if self.global_ND is None else self.global_ND[rows],
            branches_NKD=None if self.branches_NKD is None else self.branches_NKD[rows],
            patches={path: patches[rows] for path, patches in self.patches.items()},
            grid=self.grid,
            area_N4=None if self.area_N4 is None else self.area_N4[rows],
        )

    @classmethod
    def concat(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        """The features of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]

        def joined(tensors: list[Tensor | None]) -> Tensor | None:
            present = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(present) if present else None

        return cls(
            ids=tuple(item_id for part in parts for item_id in part.ids),
            global_ND=joined([part.global_ND for part in parts]),
            branches_NKD=joined([part.branches_NKD for part in parts]),
            patches={path: torch.cat([part.patches[path] for part in parts]) for path in first.patches},
            grid=first.grid,
            area_N4=joined([part.area_N4 for part in parts]),
        )


@dataclass(frozen=True)
class TextFeatures:
    """Features of texts; only the requested kinds are not None.

    Attributes:
        texts: the strings, in order.
        global_MD: one vector per text in the joint space.
        tokens_MLD: one un-normalised vector per token.
        mask_ML: True where a token is a word of the text (no padding, no BOS or EOS).
    """

    texts: tuple[str, ...]
    global_MD: Tensor | None = None
    tokens_MLD: Tensor | None = None
    mask_ML: Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def unit_MD(self) -> Tensor:
        """`global_MD` with rows of length 1, computed once and kept."""
        return unit(present(self.global_MD, "text"))

    def __getitem__(self, rows: slice) -> TextFeatures:
        """The features of a slice of the texts."""
        return TextFeatures(
            texts=self.texts[rows],
            global_MD=None if self.global_MD is None else self.global_MD[rows],
            tokens_MLD=None if self.tokens_MLD is None else self.tokens_MLD[rows],
            mask_ML=None if self.mask_ML is None else self.mask_ML[rows],
        )

    @classmethod
    def concat(cls, parts: Sequence[TextFeatures]) -> TextFeatures:
        """The features of all parts, one after the other; tokens are padded to the longest part with masked zeros."""
        if len(parts) == 1:
            return parts[0]
        longest = max((part.mask_ML.shape[1] for part in parts if part.mask_ML is not None), default=0)

        def joined(tensors: list[Tensor | None], tokens: bool) -> Tensor | None:
            present = [tensor for tensor in tensors if tensor is not None]
            if not tokens:
                return torch.cat(present) if present else None
            filled = [
                tensor.new_zeros(len(tensor), longest, *tensor.shape[2:]).index_copy_(
                    1, torch.arange(tensor.shape[1], device=tensor.device), tensor
                )
                for tensor in present
            ]
            return torch.cat(filled) if filled else None

        return cls(
            texts=tuple(text for part in parts for text in part.texts),
            global_MD=joined([part.global_MD for part in parts], tokens=False),
            tokens_MLD=joined([part.tokens_MLD for part in parts], tokens=True),
            mask_ML=joined([part.mask_ML for part in parts], tokens=True),
        )


@dataclass(frozen=True)
class Regions:
    """Image regions as weights over patches (RoIAlign, masks and whole images are all such weights).

    Attributes:
        weights_RP: non-negative weights over the patches of the region's image; each row sums to 1.
        image_index_R: row of the region's image in the ImageFeatures that they are used with.
    """

    weights_RP: Tensor
    image_index_R: Tensor

    def __len__(self) -> int:
        return len(self.image_index_R)


@dataclass(frozen=True)
class Detections:
    """Objects that a detector finds in images by their names.

    Attributes:
        image_index_R: index of the image.
        text_index_R: index of the text that names the object.
        box_R4: left, top, right, bottom in pixels of the original image.
        score_R: confidence, comparable over all images and texts.
    """

    image_index_R: Tensor
    text_index_R: Tensor
    box_R4: Tensor
    score_R: Tensor
