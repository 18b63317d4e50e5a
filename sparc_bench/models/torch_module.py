"""An encoder from a torch module of one's own that has `encode_image` and `encode_text`, as most code after CLIP does.

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
    """Opens an image with a transform of PIL images; picklable where the transform is.

    Attributes:
        transform: of a PIL image to pixels of one size.
        shows: the centre square of an image, or the whole of it.
    """

    transform: Callable[[Image.Image], Tensor]
    shows: Literal["centre", "whole"]

    def __call__(self, item: ImageItem, size: int | None = None) -> tuple[Tensor, Box]:
        """Pixels, and the area of the image that they show; raises UserError where another size is asked for."""
        if size is not None:
            raise UserError(f"The transform gives pixels of its own size, not of {size} px: leave the size out.")
        image = item.open()
        width, height = image.size
        edge = min(width, height)
        left, top = ((width - edge) / 2, (height - edge) / 2) if self.shows == "centre" else (0.0, 0.0)
        return self.transform(image), (left, top, width - left, height - top)


class ModuleEncoder(ImageTextEncoder):
    """Vectors by the module's own `encode_image` and `encode_text`; what `loader` returns makes one."""

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
        """Global vectors BD and patches BPD, as `need` says."""
        global_BD = self._module.encode_image(pixels) if "global" in need else None
        if self._patches is None or "patches" not in need:
            return ImageFeatures((), global_BD)
        patches_BPD = self._patches(pixels)
        edge = math.isqrt(patches_BPD.shape[1])
        if edge * edge != patches_BPD.shape[1]:
            raise UserError(
                f"{self.card.name} gives {patches_BPD.shape[1]} patches, which are no square grid: leave out what is "
                "no patch (class token, registers), or derive a class from sparc_bench.encoder.ImageTextEncoder."
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
    """The function `load` of a Python file that brings in a model.

    Features are not cached, for nothing says whether `preprocess` is the one of the last call; the record's hash of the
    weights is that of the module's state.

    Args:
        module: it has `encode_image` (pixels to BD) and `encode_text` (what `tokenize` gives to BD).
        preprocess: PIL image to pixels of one size, such as a torchvision transform.
        tokenize: list of strings to token ids BL.
        patches: pixels to patch vectors BPD in the joint space, un-normalised, row by row of a square grid, without
            class token; None for a model without them.
        shows: what of an image `preprocess` keeps: "centre" (short side resized, then the centre square cropped) or
            "whole" (squashed to a square). `sparc-bench verify` measures whether it is so.
    """

    def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> ModuleEncoder:  # noqa: ARG001 - the seam
        return ModuleEncoder(card, runtime, module, Transformed(preprocess, shows), tokenize, patches)

    return load


def weights_sha256(module: nn.Module) -> str:
    """Sha256 of all parameters and buffers with their names, wherever they lie."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
