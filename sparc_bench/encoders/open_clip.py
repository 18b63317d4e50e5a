"""Checkpoints of open_clip: any architecture with a tag, file, hub repository or folder, OpenAI's CLIP included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from sparc_bench.cards.card import parse
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.encoders._open_clip_text import OpenClipText, open_clip_tokenizer
from sparc_bench.encoders._open_clip_visual import OpenClipVisual, open_clip_visual
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.two_towers.open_clip_preprocess import Normalization, OpenClipPreprocess, open_clip_preprocess
from sparc_bench.weights.open_clip_model import build
from sparc_bench.weights.open_clip_source import OpenClipSource, Options, find
from sparc_bench.weights.weights_file import file_sha256

TITLE = (
    "checkpoints of open_clip: MODEL/TAG, MODEL/FILE, hf-hub:OWNER/NAME or a folder; patches by the plain last layer, "
    "or by the card's option patches: value (MaskCLIP), sclip, clearclip"
)
SOURCE = "https://github.com/mlfoundations/open_clip"

VERSION = 1
"""Version of this family's arithmetic; it grows with every change of a vector, so that cached features expire."""


class OpenClipEncoder(ImageTextEncoder):
    """A model of open_clip (see `sparc_bench.encoder.Encoder`); vectors are not normalised, scores are cosines.

    Attributes:
        logit_scale: trained factor of the cosines.
        logit_bias: trained bias of the logits; None for a softmax loss.
        activation: quickgelu or gelu, where the towers have a choice.
    """

    def __init__(
        self,
        card: ModelCard,
        runtime: Runtime,
        model: Any,  # noqa: ANN401 - one of open_clip's classes
        tower: OpenClipVisual,
        texts: OpenClipText,
        pixels: tuple[OpenClipPreprocess, Normalization],
        way: str | None,
        weights_hash: str,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__(card, runtime, pixels[0], weights_hash, identity)
        self._size, self._normalised = pixels[0].size, pixels[1]
        self._way, self._texts = way, texts
        self._towers = {self._size: tower}
        model.to(self.device)
        self.logit_scale = float(model.logit_scale.exp().max())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.max())
        self.activation = str(identity["activation"])
        self.gives = frozenset({"image", "text", "global"})
        self.gives |= {"patches"} if way else set()
        self.gives |= {"tokens"} if texts.gives_tokens else set()
        self.paths = {way: False} if way else {}

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:
        """Global vectors, and patch vectors by the card option `patches`."""
        size = (pixels.shape[-2], pixels.shape[-1])
        if size not in self._towers:
            self._towers[size] = self._towers[self._size].at(size)
        tower = self._towers[size]
        way = self._way if "patches" in need else None
        global_ND, patches_NPD = tower.read(self._normalised(pixels), "global" in need, way)
        ids = tuple(map(str, range(len(pixels))))
        if patches_NPD is None or tower.cell is None or way is None:
            return ImageFeatures(ids, global_ND)
        grid = (size[0] // tower.cell[0], size[1] // tower.cell[1])
        assert patches_NPD.shape[1] == grid[0] * grid[1]
        return ImageFeatures(ids, global_ND, patches={way: patches_NPD}, grid=grid)

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Global vectors, and token vectors."""
        return self._texts(texts, need, self.device)


def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> OpenClipEncoder:
    """The encoder of a checkpoint.

    The encoder's identity names no library versions: a version that changed a vector would be a bug of the library, and
    records name the versions.

    Raises:
        UserError: see `find` and `build`; or the architecture does not support the card option `patches`.
    """
    where = f"Model {card.name}"
    options = parse(Options, card.options, f"{where}, table [options]")
    source = find(options, weights, where)
    model = build(source, options.size)
    tower = open_clip_visual(model.visual)
    way = _way(options, tower, source.name)
    tokenizer = open_clip_tokenizer(source.model_cfg["text_cfg"], source.tokenizer, source.name)
    return OpenClipEncoder(
        card=card,
        runtime=runtime,
        model=model,
        tower=tower,
        texts=OpenClipText(model, tokenizer),
        pixels=_pixels(model, tower, source, options.size),
        way=way,
        weights_hash=file_sha256(source.file),
        identity={
            "open_clip": VERSION,
            "model": dict(source.model_cfg),
            "activation": "quickgelu" if source.quick_gelu else "gelu",
            "preprocess": dict(model.visual.preprocess_cfg),
            "patches": way,
            "tokenizer": _fingerprint(tokenizer),
        },
    )


def _pixels(
    model: Any,  # noqa: ANN401 - one of open_clip's classes
    tower: OpenClipVisual,
    source: OpenClipSource,
    size: int | None,
) -> tuple[OpenClipPreprocess, Normalization]:
    """Preprocessing and normalisation of images; raises UserError for a card's size that the tower does not take."""
    config = model.visual.preprocess_cfg
    if size is not None:
        own = {**config, "size": source.model_cfg["vision_cfg"].get("image_size", 224)}
        open_clip_preprocess(own, source.name, tower.cell, tower.flexible)[0].checked((size, size))
    return open_clip_preprocess(config, source.name, tower.cell, tower.flexible)


def _way(options: Options, tower: OpenClipVisual, name: str) -> str | None:
    """Value of the option `patches`: the card's, else "last" where the tower supports it, else None."""
    if options.patches is None:
        return "last" if "last" in tower.ways else None
    if options.patches not in tower.ways:
        has = f"write one of {', '.join(tower.ways)}" if tower.ways else "leave the option out"
        raise UserError(f'{name} has no patches = "{options.patches}" in the joint space: {has}.')
    return options.patches


def _fingerprint(tokenizer: Any) -> str:  # noqa: ANN401 - open_clip's
    """Identity of a tokenizer: the class of open_clip's own one, a hash of the whole vocabulary of others."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return "SimpleTokenizer"
    backend = getattr(inner, "backend_tokenizer", None)
    state = backend.to_str() if backend is not None else json.dumps(inner.get_vocab(), sort_keys=True)
    return sha256(state.encode()).hexdigest()
