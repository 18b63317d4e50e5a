"""The frozen image tower of a recipe, before its training: what computes the features that are kept, and their key.

Shapes: B images of a batch, S vectors of an image, W their width, P patches, H W rows and columns of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparc_bench.cards.recipe import Recipe
from sparc_bench.feature_cache.key import LIBRARIES
from sparc_bench.records.environment import library_versions
from sparc_bench.training.initial_model import InitialModel, load_initial_weights
from sparc_bench.two_towers.architecture import OwnArchitecture, architecture_of
from sparc_bench.two_towers.image_tower import ImageTower
from sparc_bench.two_towers.image_transform import ImageTransform, normalise
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.two_towers.trunk import TrunkTower

BATCH = 64
"""Images that go through the tower at once."""


@dataclass(frozen=True)
class FrozenTower:
    """A frozen image tower on its device.

    Attributes:
        name: name of the recipe, for errors.
        tower: the tower.
        transform: transform from an image to its pixels.
        architecture: configuration of the tower.
        device: device that it computes on.
    """

    name: str
    tower: ImageTower
    transform: ImageTransform
    architecture: dict[str, Any]
    device: torch.device

    @torch.inference_mode()
    def features(self, pixels_BHWC: Tensor) -> Tensor:
        """What the tower keeps of images before any projection, in float32: BSW."""
        pixels_BCHW = normalise(pixels_BHWC.to(self.device), self.transform.mean, self.transform.std)
        if isinstance(self.tower, TrunkTower):
            return self.tower.trunk_features(pixels_BCHW).float()
        return self.tower.raw(pixels_BCHW).float()

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Number and width of the features of one image."""
        grey_BHWC = torch.full((1, *self.transform.shape), 128, dtype=torch.uint8)
        _, vectors, width = self.features(grey_BHWC).shape
        return vectors, width

    @cached_property
    def key(self) -> dict[str, Any]:
        """All that decides the features of given pixels: architecture, weights, device, libraries."""
        return {
            "tower": [type(self.tower).__name__, self.architecture],
            "weights": self.tower.weights_digest(),
            "device": self.device.type,
            "libraries": library_versions(LIBRARIES),
        }


def frozen_tower(recipe: Recipe, tokenizer: Tokenizer, initial: InitialModel | None, device: str) -> FrozenTower:
    """The frozen image tower of a recipe, with the weights that its training begins with; see `build_model`."""
    init_record = None if initial is None else initial.init_record
    model = build_model(recipe, tokenizer, 0, init_record)
    if initial is not None:
        load_initial_weights(model, initial, recipe)
    towers = architecture_of(recipe, init_record)
    about = towers.image.model_dump(mode="json") if isinstance(towers, OwnArchitecture) else towers.config["vision_cfg"]
    architecture = {name: value for name, value in about.items() if name not in ("projection", "position_mean")}
    if not isinstance(towers, OwnArchitecture):
        architecture["quick_gelu"] = bool(towers.config.get("quick_gelu"))
    tower = model.towers.image.eval().to(device)
    return FrozenTower(recipe.name, tower, towers.image_transform(recipe.name), architecture, torch.device(device))
