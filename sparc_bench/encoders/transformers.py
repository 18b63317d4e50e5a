"""Checkpoints in transformers' layout: CLIP, SigLIP, SigLIP 2 and other models with their two methods.

Any model whose `get_image_features` and `get_text_features` return one vector each has global vectors; those in
`_transformers_layout.LAYOUTS` also have patches and tokens in the joint space. Images and texts go through the
checkpoint's own image processor and tokenizer, as the library loads them.

Shapes: B images or texts, P patches, L text tokens, D joint width.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from sparc_bench.cards.card import Strict, parse
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.encoders import _transformers_folder as files
from sparc_bench.encoders._transformers_layout import LAYOUTS, NAFLEX, Layout, tap
from sparc_bench.encoders._transformers_pixels import (
    NaflexPixels,
    ProcessorPixels,
    naflex_inputs,
    output_shape,
    settings_of,
)
from sparc_bench.encoders._transformers_texts import TextInputs, text_inputs
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures

TITLE = "transformers' checkpoints: CLIP, SigLIP, SigLIP 2 and models with the same API (extra hf)"
SOURCE = "https://github.com/huggingface/transformers"

VERSION = 1
"""Version of this family's arithmetic; it grows with every change of a vector, so that cached features expire."""


class Options(Strict):
    """Options of a card of a transformers checkpoint."""

    weights: str = Field(default="", description="OWNER/NAME on the hub, or a folder")
    revision: str | None = Field(default=None, description="commit, branch or tag of the repository on the hub")
    sha256: str | None = Field(default=None, description="hash of the weights (of several files, see file_sha256)")
    patches: Literal["last", "value", "sclip", "clearclip"] | None = Field(
        default=None,
        description="patch vectors: all four for CLIP (default last), value for SigLIP (default none)",
    )
    clean: Literal["none", "lower", "canonicalize"] | None = Field(
        default=None,
        description="text cleaning before tokenization; default: the one that the model was trained on",
    )
    remote_code: str | None = Field(
        default=None, description="OWNER/NAME (or the folder's name) whose code, already on this machine, may run"
    )


class TransformersEncoder(ImageTextEncoder):
    """A checkpoint of transformers (see `sparc_bench.encoder.Encoder`).

    Attributes:
        logit_scale: trained factor of the cosines; None where the model has none.
        logit_bias: trained bias of the logits; None for a softmax loss.
    """

    def __init__(
        self,
        card: ModelCard,
        runtime: Runtime,
        preprocess: ProcessorPixels | NaflexPixels,
        weights_hash: str,
        identity: Mapping[str, Any] | None,
        model: Any,  # noqa: ANN401 - a class of transformers
        words: TextInputs,
        layout: Layout | None,
        way: str,
    ) -> None:
        super().__init__(card, runtime, preprocess, weights_hash, identity)
        self._model, self._words, self._layout, self._way = model.to(self.device), words, layout, way
        self._interpolates_from = preprocess.positions if isinstance(preprocess, ProcessorPixels) else None
        self.gives = frozenset({"image", "text", "global"} | ({"tokens"} if layout else set()))
        if way:
            self.gives, self.paths = self.gives | {"patches"}, {way: False}
        scale, bias = getattr(model, "logit_scale", None), getattr(model, "logit_bias", None)
        self.logit_scale = float(scale.detach().exp()) if isinstance(scale, Tensor) else None
        self.logit_bias = float(bias.detach()) if isinstance(bias, Tensor) else None

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:
        """The library's image vectors, and patches by the card option `patches`."""
        inputs: dict[str, Any] = {"pixel_values": pixels}
        if self._layout is NAFLEX:
            inputs = naflex_inputs(pixels)
        elif self._interpolates_from is not None and pixels.shape[-2:] != (self._interpolates_from,) * 2:
            inputs["interpolate_pos_encoding"] = True
        dense = self._layout if self._way and "patches" in need else None
        with tap(dense.tapped(self._model) if dense else None) as seen:
            global_BD = self._vectors(self._model.get_image_features(**inputs), "get_image_features")
        ids, kept_BD = tuple(map(str, range(len(pixels)))), global_BD if "global" in need else None
        if dense is None:
            return ImageFeatures(ids, kept_BD)
        patch = self._model.config.vision_config.patch_size
        grid = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        return ImageFeatures(ids, kept_BD, None, {self._way: dense.patches(self._model, self._way, seen[0])}, grid)

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """The library's text vectors, and its last hidden states projected to the joint space."""
        inputs, mask_BL = self._words(texts)
        dense = self._layout if "tokens" in need else None
        with tap(self._model.text_model if dense else None) as seen:
            output = self._model.get_text_features(**{key: each.to(self.device) for key, each in inputs.items()})
        global_BD = self._vectors(output, "get_text_features")
        kept_BD = global_BD if "global" in need else None
        if dense is None:
            return TextFeatures(tuple(texts), kept_BD)
        return TextFeatures(tuple(texts), kept_BD, dense.tokens(self._model, seen[0][1]), mask_BL.to(self.device))

    def _vectors(self, output: Any, method: str) -> Tensor:  # noqa: ANN401
        """Vectors from a method's output: a tensor in transformers 4, an object that holds it in 5."""
        vectors = output if isinstance(output, Tensor) else getattr(output, "pooler_output", None)
        if not isinstance(vectors, Tensor) or vectors.ndim != 2:
            shape = f"a tensor of {vectors.ndim} axes" if isinstance(vectors, Tensor) else type(output).__name__
            raise UserError(
                f"{method} of {type(self._model).__name__} returns {shape} instead of one vector each, so that "
                f"{self.card.name} cannot be scored by cosine: bring it in with a plug-in (--plugin)."
            )
        return vectors


def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> TransformersEncoder:
    """The encoder of a folder, or of the hub repository that the card names.

    Raises:
        UserError: transformers is not installed; the checkpoint is missing, damaged or of another architecture; or an
            option does not fit it.
    """
    try:
        import transformers
    except ImportError:
        raise UserError(f"{card.name} needs the library transformers: {files.INSTALL}") from None
    options = parse(Options, card.options, f"options of {card.name}")
    with files.quiet():
        folder = _folder(card, weights, options)
        trusted = files.trusts(folder, folder.json(files.CONFIG), options.remote_code)
        if not trusted:
            files.refuse_missing_parts(folder)
        config = files.configuration(folder, trusted)
        layout = None if trusted else LAYOUTS.get(config.model_type)
        way = _way(options.patches, layout, card.name)
        model = files.model(folder, config, trusted)
        missing = [each for each in ("get_image_features", "get_text_features") if not hasattr(model, each)]
        if missing:
            raise UserError(
                f"{card.name} is a {type(model).__name__}, which has no {missing[0]}: name a checkpoint with an image "
                "and a text tower."
            )
        processor, tokenizer = files.image_processor(folder, trusted), files.tokenizer(folder, trusted)
        texts = text_inputs(tokenizer, model, layout, options.clean, card.name)
        images = (
            NaflexPixels(processor, card.name) if layout is NAFLEX else _images(processor, model, layout, card.name)
        )
    identity = (
        None
        if trusted
        else {  # no identity for remote code: it can change without a trace in the folder
            "transformers": VERSION,
            "library": transformers.__version__,
            "files": folder.hashes(),
            "processor": [type(processor).__name__, json.loads(json.dumps(settings_of(processor), default=str))],
            "tokenizer": [type(tokenizer).__name__, texts.context, texts.clean, texts.full_context],
            "patches": way,
        }
    )
    return TransformersEncoder(card, runtime, images, folder.sha256, identity, model, texts, layout, way)


def _folder(card: ModelCard, weights: Path | None, options: Options) -> files.Folder:
    if weights is not None and options.weights:
        raise UserError(f"{card.name}: both {weights} and '{options.weights}' are named as weights: leave one out.")
    pin = card.weights
    if pin is not None and pin.hub is not None:
        return files.hub_folder(pin.hub, pin.revision, pin.sha256, pin.file)
    path = weights or Path(options.weights).expanduser()
    if weights is not None or (options.weights and path.exists()):
        return files.local_folder(path, options.sha256)
    if not options.weights:
        raise UserError(f'The card of {card.name} names no weights: write weights = "OWNER/NAME" into its options.')
    return files.hub_folder(options.weights, options.revision, options.sha256)


def _way(asked: str | None, layout: Layout | None, name: str) -> str:
    """Value of the option `patches`; empty for a model without patch vectors."""
    has = layout.ways if layout else ()
    if asked is not None and asked not in has:
        what = f"has the patches {', '.join(has)}" if has else "has no grid of patches in the joint space"
        raise UserError(f'{name} {what}, but its card asks for patches = "{asked}": change it, or leave it out.')
    return asked or (layout.default if layout else "")


def _images(processor: Any, model: Any, layout: Layout | None, name: str) -> ProcessorPixels:  # noqa: ANN401
    rows, columns = output_shape(settings_of(processor), name)
    resizes = inspect.signature(model.get_image_features).parameters.get("interpolate_pos_encoding")
    vision = getattr(model.config, "vision_config", None)
    own = getattr(vision, "image_size", None)
    fixed = layout is not None or (resizes is not None and not resizes.default)
    if fixed and isinstance(own, int) and (rows, columns) != (own, own):
        raise UserError(
            f"The image processor of {name} makes images of {columns} x {rows} px, but the model takes {own} px: take "
            "preprocessor_config.json and config.json from the same checkpoint."
        )
    patch = model.config.vision_config.patch_size if layout else 1
    if resizes is None or not isinstance(own, int):
        return ProcessorPixels(processor, name, patch, own_size=(rows, columns))
    return ProcessorPixels(processor, name, patch, positions=own)
