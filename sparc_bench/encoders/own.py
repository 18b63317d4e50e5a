"""Models that this project trained: a run folder or one safetensors file of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparc_bench.cards import ImageTower, ModelCard, Recipe
from sparc_bench.errors import UserError
from sparc_bench.features import Box, ImageFeatures, ImageItem, Regions, Runtime, TextFeatures
from sparc_bench.image_text_encoder import ImageTextEncoder
from sparc_bench.training import checkpoint
from sparc_bench.training.model import TrainStep, build
from sparc_bench.training.pixels import squash
from sparc_bench.training.tokenizer import Tokenizer
from sparc_bench.training.towers import normalise

TITLE = "models trained here: the whole image squashed to the tower's square, heads of the objective"
SOURCE = "this project's trainer"

WEIGHTS_FILE = "model.safetensors"


VERSION = 1
"""Of this file's arithmetic: one that moves a vector makes cached features stale."""


@dataclass(frozen=True)
class Squashed:
    """Opens an image as uint8 pixels (rows, columns, channels), squashed to the tower's square; all of it is seen."""

    tower: ImageTower
    model: str

    def __call__(self, item: ImageItem, size: int | None = None) -> tuple[Tensor, Box]:
        """Pixels and the whole image's area."""
        if size not in (None, self.tower.size):
            raise UserError(f"{self.model} takes {self.tower.size} px only: leave the size out.")
        image = item.open()
        area = (0.0, 0.0, float(image.width), float(image.height))
        return torch.from_numpy(squash(image, self.tower).copy()), area


class OwnEncoder(ImageTextEncoder):
    """Towers and objective of a recipe, at evaluation (see `sparc_bench.features.Encoder`)."""

    def __init__(
        self,
        card: ModelCard,
        model: TrainStep,
        recipe: Recipe,
        tokenizer: Tokenizer,
        seed: int,
        weights_hash: str,
        train_words: Mapping[str, int],
        runtime: Runtime,
    ) -> None:
        super().__init__(card, runtime, Squashed(recipe.image, card.name), weights_hash, {"own": VERSION})
        self.recipe, self.seed, self.train_words = recipe, seed, train_words
        self._model, self._tokenizer = model.to(self.device).eval(), tokenizer
        self.gives = model.objective.gives
        self.paths = model.objective.paths
        self.prompt_ensemble = model.objective.prompt_ensemble

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:
        """Global vectors and patches by all paths; ids are the images' places in the batch."""
        image = self._model.encode_image(normalise(pixels.to(self.device)))
        global_ND, patches, branches_NKD = self._model.objective.image_features(image, need)
        ids = tuple(map(str, range(len(pixels))))
        return ImageFeatures(ids, global_ND, branches_NKD, patches, image.grid)

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Global vectors and tokens."""
        full = "tokens" in need or self._model.full_context
        tokens = self._tokenizer([[text] for text in texts], full).to(self.device)
        text = self._model.encode_text(tokens)
        global_MD, tokens_MLD = self._model.objective.text_features(text, need)
        mask_ML = None if tokens_MLD is None else text.mask_BKL[:, 0]
        return TextFeatures(tuple(texts), global_MD, tokens_MLD, mask_ML)

    @torch.inference_mode()
    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The objective's own score."""
        return self._model.objective.similarity(images, texts, regions, path)

    @torch.inference_mode()
    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """The objective's own dense score."""
        return self._model.objective.dense_scores(images, texts, path)

    def untrained(self) -> OwnEncoder:
        """The same towers and heads as they were initialised for this seed."""
        return OwnEncoder(
            card=self.card,
            model=build(self.recipe, self._tokenizer, self.seed),
            recipe=self.recipe,
            tokenizer=self._tokenizer,
            seed=self.seed,
            weights_hash=f"untrained, seed {self.seed}",
            train_words=self.train_words,
            runtime=self.runtime,
        )


def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> OwnEncoder:
    """The encoder of a run folder, or of one of its files.

    Raises:
        UserError: no weights, a damaged file, another architecture.
    """
    if weights is None:
        raise UserError(f"There are no weights of {card.name}: run sparc-bench train {card.name}.")
    file = weights / WEIGHTS_FILE if weights.is_dir() else weights
    if not file.is_file() and weights.is_dir():
        raise UserError(f"{weights} holds no finished model: run sparc-bench train {card.name} to finish it.")
    meta, tensors = checkpoint.read(file)
    tokenizer = Tokenizer(meta.recipe.text.context, meta.tokenizer)
    model = build(meta.recipe, tokenizer, meta.seed)
    checkpoint.load_model(file, model, tensors)
    return OwnEncoder(
        card=card,
        model=model,
        recipe=meta.recipe,
        tokenizer=tokenizer,
        seed=meta.seed,
        weights_hash=hashlib.sha256(file.read_bytes()).hexdigest(),
        train_words=meta.train_words,
        runtime=runtime,
    )
