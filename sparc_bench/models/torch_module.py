"""An encoder from your own torch module with `encode_image` and `encode_text`, the two methods of CLIP's code.

In the Python file that `python:my_model.py` names:

    load = loader(model, preprocess, tokenize, patches=model.encode_patches)

A model that needs more (several patch paths, a score of its own) derives a class from
`sparc_bench.encoder.ImageTextEncoder` instead.

Shapes: B images or texts of a batch, P patches, L text tokens, D joint width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import Box, ImageItem

PATH = "local"
"""Name of the patch path."""


@dataclass(frozen=True)
class Transformed:
    """Preprocessing of an image by a transform of PIL images; picklable if the transform is.

    Attributes:
        transform: function from a PIL image to pixels of one size.
        shows: image area that the pixels show: its centre square, or the whole image.
    """

    transform: Callable[[Image.Image], Tensor]
    shows: Literal["centre", "whole"]

    def __call__(self, item: ImageItem, size: int | None = None) -> tuple[Tensor, Box]:
        """Pixels, and the image area that they show; raises UserError for another size."""
        if size is not None:
            raise UserError(f"The transform gives pixels of its own size, not of {size} px: leave the size out.")
        image = item.open()
        width, height = image.size
        edge = min(width, height)
        left, top = ((width - edge) / 2, (height - edge) / 2) if self.shows == "centre" else (0.0, 0.0)
        return self.transform(image), (left, top, width - left, height - top)


class ModuleEncoder(ImageTextEncoder):
    """Encoder with the vectors of a module's `encode_image` and `encode_text`, made by `loader`."""

    def __init__(
        self,
        card: ModelCard,
        runtime: Runtime,
        module: nn.Module,
        opened: Transformed,
        tokenize: Callable[[Sequence[str]], Tensor],
        patches: Callable[[Tensor], Tensor] | None,
    ) -> None:
        missing = [name for name in ("encode_image", "encode_text") if not hasattr(module, name)]
        if missing:
            raise UserError(
                f"{type(module).__name__} has no {' and no '.join(missing)}: add them, or derive a class from "
                "sparc_bench.encoder.ImageTextEncoder."
            )
        super().__init__(card, runtime, opened, weights_sha256(module))
        self._module: Any = module.to(self.device).eval()
        self._tokenize, self._patches = tokenize, patches
        if patches is not None:
            self.gives, self.paths = self.gives | {"patches"}, {PATH: True}

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:
        """Global vectors BD and patch vectors BPD, as far as `need` names them."""
        global_BD = self._module.encode_image(pixels) if "global" in need else None
        if self._patches is None or "patches" not in need:
            return ImageFeatures((), global_BD)
        patches_BPD = self._patches(pixels)
        edge = math.isqrt(patches_BPD.shape[1])
        if edge * edge != patches_BPD.shape[1]:
            raise UserError(
                f"{self.card.name} gives {patches_BPD.shape[1]} patches, which are no square grid: leave out class "
                "token and registers, or derive a class from sparc_bench.encoder.ImageTextEncoder."
            )
        return ImageFeatures((), global_BD, patches={PATH: patches_BPD}, grid=(edge, edge))

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:  # noqa: ARG002 - one vector
        """Global vectors BD."""
        return TextFeatures(tuple(texts), self._module.encode_text(self._tokenize(list(texts)).to(self.device)))


def loader(
    module: nn.Module,
    preprocess: Callable[[Image.Image], Tensor],
    tokenize: Callable[[Sequence[str]], Tensor],
    patches: Callable[[Tensor], Tensor] | None = None,
    shows: Literal["centre", "whole"] = "centre",
) -> Callable[[ModelCard, Path | None, Runtime], ModuleEncoder]:
    """A function `load` for a Python file with a model.

    Features are not cached, because a change of `preprocess` cannot be detected. The weights hash of the record is that
    of the module's state dict.

    Args:
        module: module with `encode_image` (pixels to BD) and `encode_text` (token ids to BD).
        preprocess: function from a PIL image to pixels of one size, such as a torchvision transform.
        tokenize: function from a list of strings to token ids BL.
        patches: function from pixels to patch vectors BPD in the joint space, un-normalised, row-major over a square
            grid, without class token; None for a model without patches.
        shows: image area that `preprocess` keeps: "centre" (short side resized, centre square cropped) or "whole"
            (squashed to a square). `sparc-bench verify` measures it.
    """

    def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> ModuleEncoder:  # noqa: ARG001 - the seam
        return ModuleEncoder(card, runtime, module, Transformed(preprocess, shows), tokenize, patches)

    return load


def weights_sha256(module: nn.Module) -> str:
    """Sha256 of all parameters and buffers with their names, independent of the device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
