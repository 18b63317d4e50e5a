"""The frozen image trunk of a model as an encoder: models with the same trunk share what it computes of an image.

Shapes: B images, P patches, W width of the trunk's features.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.features import ImageFeatures
from sparc_bench.two_towers.image_transform import ImageTransform, normalise
from sparc_bench.two_towers.trunk import TrunkTower

VERSION = 1
"""Version of this arithmetic; it grows with every change of a feature, so that cached ones expire."""

PATH = "trunk"
"""Path of the trunk's patches."""


class FrozenTrunk(ImageTextEncoder):
    """Patches of a frozen trunk before any projection, rounded to half precision, in which they are kept.

    Its key knows the trunk's weights and pixels and nothing of the model around it.
    """

    gives = frozenset({"image", "patches"})
    paths: Mapping[str, bool] = {PATH: False}

    def __init__(self, card: ModelCard, runtime: Runtime, tower: TrunkTower, transform: ImageTransform) -> None:
        pixels = [*transform.key, transform.mean, transform.std]
        identity = {"frozen trunk": VERSION, "tower": tower.key, "pixels": pixels}
        super().__init__(card, runtime, transform, tower.weights_digest(), identity)
        self._tower, self._transform = tower, transform

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:  # noqa: ARG002 - patches alone
        """The trunk's patches of a batch; ids are positions in the batch."""
        rows, columns = pixels.shape[1:3]
        tower = self._tower.at((rows, columns))
        pixels_BCHW = normalise(pixels.to(self.device), self._transform.mean, self._transform.std)
        patches_BPW = tower.rounded(tower.trunk_features(pixels_BCHW))
        return ImageFeatures(tuple(map(str, range(len(pixels)))), patches={PATH: patches_BPW}, grid=tower.grid)
