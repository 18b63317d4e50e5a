"""Models trained by this project: a run folder, a kept model or an exported safetensors file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sparc_bench.cards.card import canonical_hash
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe
from sparc_bench.encoder import Encoder, ImageTextEncoder, Runtime, in_float32
from sparc_bench.encoders._frozen_trunk import PATH, FrozenTrunk
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.images.view import Followed, View
from sparc_bench.metrics import cosine
from sparc_bench.objective import ImageOut
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.checkpoint import Meta
from sparc_bench.two_towers.model import TRUNK, TwoTowerModel, build_model
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.two_towers.trunk import TrunkTower
from sparc_bench.weights.weights_file import file_sha256, refuse_odd_values

TITLE = "models trained here: towers of a recipe, or of the checkpoint that it started from; heads of the objective"
SOURCE = "this project's trainer"

WEIGHTS_FILE = "model.safetensors"

VERSION = 1
"""Version of this family's arithmetic; it grows with every change of a vector, so that cached features expire."""

IN_TRAINING = "in training"
"""Stands for the weights hash of a model in training, whose features are never cached."""


class OwnEncoder(ImageTextEncoder):
    """Encoder of a two-tower model (see `sparc_bench.encoder.Encoder`).

    Attributes:
        model: towers and objective.
    """

    recipe: Recipe

    def __init__(
        self,
        card: ModelCard,
        model: TwoTowerModel,
        meta: Meta,
        tokenizer: Tokenizer,
        weights_hash: str,
        runtime: Runtime,
    ) -> None:
        identity = {
            "own": VERSION,
            "towers": meta.architecture.model_dump(mode="json"),
            "objective": [meta.recipe.objective, model.objective.options.model_dump(mode="json")],
            "tokenizer": canonical_hash(meta.tokenizer),
        }
        kept = None if weights_hash == IN_TRAINING else identity
        super().__init__(card, runtime, meta.architecture.image_transform(card.name), weights_hash, kept)
        self.recipe, self.train_words = meta.recipe, meta.train_words
        self._meta = meta
        self.model, self._tokenizer = model.to(self.device).eval(), tokenizer
        tower = self.model.towers.image
        if isinstance(tower, TrunkTower) and tower.frozen:
            self.trunk = FrozenTrunk(card, runtime, tower, meta.architecture.image_transform(card.name))
        self.gives = model.objective.gives
        self.paths = model.paths
        self.prompt_ensemble = model.objective.prompt_ensemble
        self.token_path = model.objective.token_path
        self.logit_scale = model.objective.inverse_temperature()

    def on_trunk(self, trunk: Encoder) -> OwnEncoder:
        """The model on its own frozen trunk by other means."""
        model = copy.copy(self)
        model.trunk = trunk
        return model

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of groups of views, from the patches of a frozen trunk where the model has one."""
        if self.trunk is None:
            yield from super().stream(groups, need)
            return
        followed = Followed(groups)
        tower = self.model.towers.image
        assert isinstance(tower, TrunkTower)
        for features in self.trunk.stream(followed, frozenset({"patches"})):
            size = followed.batch(len(features))[0].size
            sized = tower if size is None else tower.at(size)
            with self._forward():
                own = self._of_tower(sized.finish(sized.project(features.patches[PATH])), need)
            yield replace(in_float32(own), ids=features.ids, area_N4=features.area_N4)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:
        """Global vectors, branches and patches by all paths; ids are positions in the batch."""
        return self._of_tower(self.model.encode_image(pixels.to(self.device)), need)

    def _of_tower(self, image: ImageOut, need: frozenset[str]) -> ImageFeatures:
        global_ND, patches, branches_NKD = self.model.objective.image_features(image, need)
        ids = tuple(map(str, range(len(image.pooled_BMW))))
        return ImageFeatures(ids, global_ND, branches_NKD, patches, image.grid)

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Global vectors, and token vectors."""
        full = "tokens" in need or self.model.full_context
        tokens = self._tokenizer([[text] for text in texts], full).to(self.device)
        text = self.model.encode_text(tokens)
        global_MD, tokens_MLD = self.model.objective.text_features(text, need)
        mask_ML = None if tokens_MLD is None else text.mask_BKL[:, 0]
        return TextFeatures(tuple(texts), global_MD, tokens_MLD, mask_ML)

    @torch.inference_mode()
    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores by the objective's rule."""
        return self.model.objective.similarity(images, texts, regions, path)

    @torch.inference_mode()
    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Dense scores by the objective's rule."""
        return self.model.objective.dense_scores(images, texts, path)

    @torch.inference_mode()
    def token_maps(self, images: ImageFeatures, words: Sequence[str], path: str | None = None) -> Tensor:
        """Cosines of patches with the caption's own token vectors, averaged over the tokens of a word.

        By default of the patches that the loss contrasts with tokens, or else of the first path.
        """
        path = path or self.token_path or next(iter(self.paths), None)
        if path is None or not {"tokens", "patches"} <= self.gives:
            return super().token_maps(images, words, path)
        places = self._tokenizer.places(words)
        caption = self.texts([" ".join(words)], frozenset({"tokens"}))
        maps_NLYX = cosine.token_maps(images, caption, path)[:, 0]
        nothing = maps_NLYX.new_full((), torch.nan).expand_as(maps_NLYX[:, 0])
        return torch.stack([maps_NLYX[:, at].mean(1) if at.start < at.stop else nothing for at in places], dim=1)

    def untrained(self) -> OwnEncoder:
        """The model with random weights of the run's seed, also where the run had an initial model.

        A frozen pretrained trunk, which no run trains, stays as it is.
        """
        model = build_model(self.recipe, self._tokenizer, self._meta.seed, self._meta.init_record)
        model.towers.image.fit(self.model.towers.image.fixed())
        untrained = OwnEncoder(
            card=self.card,
            model=model,
            meta=self._meta,
            tokenizer=self._tokenizer,
            weights_hash=f"untrained, seed {self._meta.seed}",
            runtime=self.runtime,
        )
        return untrained if self.trunk is None else untrained.on_trunk(self.trunk)


def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> OwnEncoder:
    """The encoder of a run folder or weights file.

    Raises:
        UserError: the weights are missing, damaged or not finite, or belong to another architecture.
    """
    if weights is None:
        raise UserError(f"There are no weights of {card.name}: run sparc-bench train {card.name}.")
    file = weights / WEIGHTS_FILE if weights.is_dir() else weights
    if not file.is_file() and weights.is_dir():
        raise UserError(f"{weights} holds no finished model: run sparc-bench train {card.name} to finish it.")
    meta, tensors = checkpoint.read(file)
    for name, tensor in tensors.items():
        refuse_odd_values(file, name, tensor)
    tokenizer = meta.architecture.tokenizer(meta.tokenizer)
    whole = any(name.startswith(f"model.{TRUNK}") for name in tensors)
    model = build_model(meta.recipe, tokenizer, meta.seed, meta.init_record, pretrained=not whole)
    checkpoint.load_model(file, model, meta, tensors)
    return OwnEncoder(
        card=card,
        model=model,
        meta=meta,
        tokenizer=tokenizer,
        weights_hash=file_sha256(file),
        runtime=runtime,
    )
