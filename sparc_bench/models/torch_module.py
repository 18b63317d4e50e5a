"""An encoder from your own torch model with `encode_image` and `encode_text`, the two methods of CLIP's code.

In memory, such as in a notebook:

    sparc_bench.evaluate(wrap(model, preprocess, tokenize), tasks=["scenes_retrieval"])

In the Python file that `python:my_model.py` names:

    load = loader(model, preprocess, tokenize, patches=model.encode_patches)

A model that needs more (several patch paths, a score of its own) derives a class from
`sparc_bench.encoder.ImageTextEncoder` instead.

Shapes: B images or texts of a batch, P patches, L text tokens, D joint width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard, refuse_without_split
from sparc_bench.cards.name import LONGEST_NAME, fault_of_model
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.errors import UserError, nearest
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import Box
from sparc_bench.images.view import View

Shows = Literal["centre", "whole"]

PATH = "local"
"""Name of the patch path."""

UNSEEN = "unseen"
"""Weights hash of an object that shows no torch module."""


@dataclass(frozen=True)
class Transformed:
    """Preprocessing of an image by a transform of PIL images; picklable if the transform is.

    Attributes:
        transform: function from a PIL image to pixels of one size.
        shows: image area that the pixels show: its centre square, or the whole image.
    """

    transform: Callable[[Image.Image], Tensor]
    shows: Shows

    def __call__(self, view: View) -> tuple[Tensor, Box]:
        """Pixels, and the area of the original image that they show; raises UserError for another size."""
        if view.size is not None:
            raise UserError(
                f"The transform gives pixels of its own size, not of {view.rows} x {view.columns} px: leave the size "
                "out."
            )
        image = view.open()
        width, height = image.size
        edge = min(width, height)
        left, top = ((width - edge) / 2, (height - edge) / 2) if self.shows == "centre" else (0.0, 0.0)
        return self.transform(image), view.in_original((left, top, width - left, height - top))


class ModuleEncoder(ImageTextEncoder):
    """Encoder with the vectors of a model's `encode_image` and `encode_text`, made by `wrap` or `loader`.

    The model is in evaluation mode while it encodes, and afterwards as it was.
    """

    def __init__(
        self,
        card: ModelCard,
        runtime: Runtime,
        model: Any,  # noqa: ANN401 - a torch module, or any object with the two methods
        opened: Transformed,
        tokenize: Callable[[list[str]], Tensor] | None,
        patches: Callable[[Tensor], Tensor] | None,
    ) -> None:
        if isinstance(model, type):
            name = model.__name__
            raise UserError(f"{name} is a class, not a model: give an object of it, such as {name}().")
        missing = [name for name in ("encode_image", "encode_text") if not hasattr(model, name)]
        if missing:
            raise UserError(
                f"{type(model).__name__} has no {' and no '.join(missing)}: add them, or derive a class from "
                "sparc_bench.encoder.ImageTextEncoder."
            )
        super().__init__(card, runtime, opened, weights_sha256(model))
        self._model, self._tokenize, self._patches = model, tokenize, patches
        self._modules = list(_modules(model).values())
        for module in self._modules:
            module.to(self.device)
        if patches is not None:
            self.gives, self.paths = self.gives | {"patches"}, {PATH: True}

    def at(self, runtime: Runtime) -> ModuleEncoder:
        """The same model with another runtime, and with the hash of the weights that it has now."""
        assert isinstance(self._open, Transformed)
        return ModuleEncoder(self.card, runtime, self._model, self._open, self._tokenize, self._patches)

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:
        """Global vectors BD and patch vectors BPD, as far as `need` names them."""
        with self._evaluating():
            global_BD = self._model.encode_image(pixels) if "global" in need else None
            patches_BPD = self._patches(pixels) if self._patches is not None and "patches" in need else None
        if "global" in need:
            self._refuse_odd("encode_image", global_BD, "BD", len(pixels))
        if self._patches is None or "patches" not in need:
            return ImageFeatures((), global_BD)
        self._refuse_odd("patches", patches_BPD, "BPD", len(pixels))
        assert patches_BPD is not None  # which has just been refused
        edge = math.isqrt(patches_BPD.shape[1])
        if edge * edge != patches_BPD.shape[1]:
            raise UserError(
                f"{self.card.name} gives {patches_BPD.shape[1]} patches, which are no square grid: leave out class "
                "token and registers, or derive a class from sparc_bench.encoder.ImageTextEncoder."
            )
        return ImageFeatures((), global_BD, patches={PATH: patches_BPD}, grid=(edge, edge))

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:  # noqa: ARG002 - one vector
        """Global vectors BD."""
        with self._evaluating():
            global_BD = self._model.encode_text(list(texts) if self._tokenize is None else self._tokens(texts))
        self._refuse_odd("encode_text", global_BD, "BD", len(texts))
        return TextFeatures(tuple(texts), global_BD)

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        assert self._tokenize is not None  # the caller has looked
        found: object = self._tokenize(list(texts))
        if not isinstance(found, Tensor):
            raise UserError(
                f"The tokenizer of {self.card.name} gives a {type(found).__name__}: return a tensor, such as "
                'tokenizer(texts, padding=True, return_tensors="pt")["input_ids"] of a Hugging Face tokenizer.'
            )
        return found.to(self.device)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = [each for module in self._modules for each in module.modules() if each.training]
        for each in training:
            each.training = False
        try:
            yield
        finally:
            for each in training:
                each.training = True

    def _refuse_odd(self, method: str, found: object, axes: str, rows: int) -> None:
        """Raise UserError for what is no tensor of real numbers with these axes, the first of them `rows` long."""
        what = f"a {type(found).__name__}"
        if isinstance(found, Tensor):
            odd = [str(found.dtype).removeprefix("torch.")] if found.is_complex() else []
            odd += [str(found.layout).removeprefix("torch.")] if found.layout != torch.strided else []
            odd += ["meta"] if found.is_meta else []
            if not odd and found.ndim == len(axes) and found.shape[0] == rows and found.numel():
                return
            what = f"a {' '.join([*odd, 'tensor'])} of shape {tuple(found.shape)}"
        wanted = ", ".join(axes).replace("B", str(rows))
        raise UserError(f"{method} of {self.card.name} gives {what}: return a dense, real tensor of shape ({wanted}).")


def wrap(
    model: Any,  # noqa: ANN401 - a torch module, or any object with the two methods
    preprocess: Callable[[Image.Image], Tensor],
    tokenizer: Callable[[list[str]], Tensor] | None = None,
    patches: Callable[[Tensor], Tensor] | None = None,
    *,
    name: str | None = None,
    title: str = "",
    trained_on: Sequence[str] = (),
    shows: Shows = "centre",
) -> ModuleEncoder:
    """An encoder of a model in memory, for `sparc_bench.evaluate`: a torch module, or any object with the two methods.

    Args:
        model: has `encode_image` (pixels to BD) and `encode_text` (what `tokenizer` gives, or a list of strings, to
            BD). A model of `open_clip.create_model_and_transforms` is one. It stays where it is, unless `evaluate`
            names a device, and in the mode in which it is; its weights are hashed at each evaluation.
        preprocess: function from a PIL image to pixels of one size, such as a torchvision transform.
        tokenizer: function from a list of strings to token ids BL; None where `encode_text` takes the strings.
        patches: function from pixels to patch vectors BPD in the joint space, un-normalised, row-major over a square
            grid, without class token; None for a model without patches.
        name: folder of its records; the name of its class by default.
        title: one line about it, for tables.
        trained_on: DATASET:SPLIT of its training data, as in a model card; none: not known.
        shows: image area that `preprocess` keeps: "centre" (short side resized, centre square cropped) or "whole"
            (squashed to a square).

    Raises:
        UserError: a method is missing, or a name that cannot be a folder's or that a card has.
    """
    name = type(model).__name__ if name is None else str(name)
    if not callable(preprocess):
        raise UserError(
            f"preprocess is of type {type(preprocess).__name__}: give a function from a PIL image to pixels, such as a "
            "torchvision transform."
        )
    if shows not in get_args(Shows):
        raise UserError(f"shows is '{shows}', which no image area has for a name: {nearest(shows, get_args(Shows))}")
    if reason := fault_of_model(name):
        raise UserError(f"The name {name[:LONGEST_NAME]!r} {reason}.")
    if name in discovery.names("models"):
        raise UserError(f"'{name}' is the name of a model card: choose another name for the model in memory.")
    for entry in trained_on:
        refuse_without_split(entry, "trained_on")
    card = ModelCard(name=name, title=title or name, family="python", source="in memory", trained_on=tuple(trained_on))
    tensors = [each for module in _modules(model).values() for each in (*module.parameters(), *module.buffers())]
    runtime = Runtime(str(tensors[0].device) if tensors else Runtime.device)
    return ModuleEncoder(card, runtime, model, Transformed(preprocess, shows), tokenizer, patches)


def loader(
    module: Any,  # noqa: ANN401 - a torch module, or any object with the two methods
    preprocess: Callable[[Image.Image], Tensor],
    tokenize: Callable[[list[str]], Tensor] | None = None,
    patches: Callable[[Tensor], Tensor] | None = None,
    shows: Shows = "centre",
) -> Callable[[ModelCard, Path | None, Runtime], ModuleEncoder]:
    """A function `load` for a Python file with a model; the arguments are those of `wrap`.

    Features are not cached, because a change of `preprocess` cannot be detected. The weights hash of the record is that
    of the module's state dict.
    """

    def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> ModuleEncoder:  # noqa: ARG001 - the seam
        return ModuleEncoder(card, runtime, module, Transformed(preprocess, shows), tokenize, patches)

    return load


def weights_sha256(model: object) -> str:
    """Sha256 of all parameters and buffers with their names, independent of the device.

    Of an object that is no module, those of the modules that are its attributes; UNSEEN where it has none.
    """
    tensors = {
        f"{attribute}.{name}" if attribute else name: tensor
        for attribute, module in _modules(model).items()
        for name, tensor in module.state_dict().items()
    }
    if not tensors:
        return UNSEEN
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _modules(model: object) -> dict[str, nn.Module]:
    """The model itself, under an empty name, where it is a torch module; else its attributes that are modules."""
    if isinstance(model, nn.Module):
        return {"": model}
    return {name: each for name, each in getattr(model, "__dict__", {}).items() if isinstance(each, nn.Module)}
