"""Models that this project trained: a run folder or one safetensors file of ours."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sparc_bench.cards import ModelCard, Recipe
from sparc_bench.errors import UserError
from sparc_bench.features import Box, ImageFeatures, ImageItem, Regions, TextFeatures
from sparc_bench.training import checkpoint
from sparc_bench.training.model import TrainStep, build
from sparc_bench.training.pixels import squash
from sparc_bench.training.tokenizer import Tokenizer
from sparc_bench.training.towers import normalise

TITLE = "models trained here: the whole image squashed to the tower's square, heads of the objective"
SOURCE = "this project's trainer"

WEIGHTS_FILE = "model.safetensors"


class OwnEncoder:
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
        device: torch.device,
        precision: str,
        batch_size: int,
    ) -> None:
        self.card, self.recipe, self.seed = card, recipe, seed
        self.weights_hash, self.train_words = weights_hash, train_words
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self._model, self._tokenizer = model.to(device).eval(), tokenizer
        self.gives = model.objective.gives
        self.paths: Mapping[str, bool] = model.objective.paths
        self.prompt_ensemble: Literal["embeddings", "scores"] = model.objective.prompt_ensemble

    def preprocess(self, item: ImageItem, size: int | None = None) -> tuple[Tensor, Box]:
        """uint8 pixels (rows, columns, channels) squashed to the tower's square; all of the image is seen."""
        if size not in (None, self.recipe.image.size):
            raise UserError(f"{self.card.name} takes {self.recipe.image.size} px only: leave the size out.")
        image = item.open()
        area = (0.0, 0.0, float(image.width), float(image.height))
        return torch.from_numpy(squash(image, self.recipe.image).copy()), area

    @torch.inference_mode()
    def images(self, items: Sequence[ImageItem], need: frozenset[str], size: int | None = None) -> ImageFeatures:
        """Global vectors and patches by both paths, in float32."""
        parts: list[ImageFeatures] = []
        with ThreadPoolExecutor(max_workers=2) as pool:
            for start in range(0, len(items), self.batch_size):
                chunk = items[start : start + self.batch_size]
                pixels, areas = zip(*pool.map(lambda item: self.preprocess(item, size), chunk), strict=True)
                features = self.encode_pixels(torch.stack(pixels), need)
                ids = tuple(item.id for item in chunk)
                parts.append(dataclasses.replace(features, ids=ids, area_N4=torch.tensor(areas)))
        if not parts:
            raise RuntimeError("no images to encode")
        return ImageFeatures.concat(parts)

    @torch.inference_mode()
    def encode_pixels(self, pixels_BHWC: Tensor, need: frozenset[str]) -> ImageFeatures:
        """Features of images that are decoded and squashed already; ids are their places, areas are left out."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            image = self._model.encode_image(normalise(pixels_BHWC.to(self.device)))
            global_ND, patches, branches_NKD = self._model.objective.image_features(image, need)
        return ImageFeatures(
            ids=tuple(map(str, range(len(pixels_BHWC)))),
            global_ND=None if global_ND is None else global_ND.float(),
            branches_NKD=None if branches_NKD is None else branches_NKD.float(),
            patches={path: vectors.float() for path, vectors in patches.items()},
            grid=image.grid,
        )

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Global vectors and tokens of texts, in float32."""
        vectors: list[Tensor] = []
        tokens_parts: list[Tensor] = []
        masks: list[Tensor] = []
        full = "tokens" in need or self._model.full_context
        for start in range(0, len(texts), 4 * self.batch_size):
            chunk = texts[start : start + 4 * self.batch_size]
            tokens = self._tokenizer([[text] for text in chunk], full).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                text = self._model.encode_text(tokens)
                global_MD, tokens_MLD = self._model.objective.text_features(text, need)
            if global_MD is not None:
                vectors.append(global_MD.float())
            if tokens_MLD is not None:
                tokens_parts.append(tokens_MLD.float())
                masks.append(text.mask_BKL[:, 0])
        return TextFeatures(
            texts=tuple(texts),
            global_MD=torch.cat(vectors) if vectors else None,
            tokens_MLD=torch.cat(tokens_parts) if tokens_parts else None,
            mask_ML=torch.cat(masks) if masks else None,
        )

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
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
        )


def load(
    card: ModelCard, weights: Path | None, device: str = "cpu", precision: str = "float32", batch_size: int = 256
) -> OwnEncoder:
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
        device=torch.device(device),
        precision=precision,
        batch_size=batch_size,
    )
