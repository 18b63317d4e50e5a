"""Any model of timm with a feature map as an image tower: ConvNets, vision transformers, hybrids, pretrained or not.

Shapes: B batch, P patches, W width of the trunk's features, K their width after the projection, C channels, H W rows
and columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.models import is_model_in_modules
from torch import Tensor, nn

from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.errors import UserError, is_short_of_memory
from sparc_bench.objective import ImageOut
from sparc_bench.two_towers.half_precision import halved
from sparc_bench.two_towers.image_tower import ImageTower
from sparc_bench.two_towers.image_transform import HALF
from sparc_bench.two_towers.other_sizes import shared_copy
from sparc_bench.weights.trunk_weights import TrunkSource, find_trunk, load_trunk, timms_own

AT_ONCE = 8
"""Images that go through a frozen trunk at once on a CPU: 64 take over twice as long, for the memory of their maps."""


class TrunkInput(NamedTuple):
    """What a trunk's pixels are.

    Attributes:
        size: rows and columns.
        interpolation: bicubic or bilinear.
        mean: of the channels, of values from 0 to 1.
        std: of the channels.
    """

    size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def trunk_input(card: ImageTowerTable) -> TrunkInput:
    """Input of a table [image]: as the card says, else timm's for pretrained weights; see `ImageTowerTable`."""
    known = timms_own(card.model) if card.pretrained else None
    size, interpolation = card.size, card.interpolation
    if known is None:
        return TrunkInput(size or 224, interpolation or "bicubic", card.mean or HALF, card.std or HALF)
    theirs = known.interpolation if known.interpolation in ("bicubic", "bilinear") else "bicubic"
    return TrunkInput(
        size or known.input_size[-1],
        interpolation or theirs,
        card.mean or tuple(known.mean),
        card.std or tuple(known.std),
    )


def is_trunk(card: ImageTowerTable) -> bool:
    """Whether a table [image] names timm's own model, and not a vision transformer of a recipe's sizes."""
    plain = is_model_in_modules(card.model, ["vision_transformer"])
    return bool(card.pretrained or card.out_indices) or not plain


class TrunkTower(ImageTower):
    """The features of a timm model as patches, and their average; see `ImageTowerTable` for the options.

    With `pretrained` False, pretrained weights are not looked for: a checkpoint holds them.

    Attributes:
        source: the pretrained weights; None for random ones.
        projection_WK: with `projection`, the directions that the features are projected to; zeros until fitted.
        mean_PK: with `position_mean`, the mean of the training features at each position; zeros until fitted.
    """

    averages = True

    def __init__(self, card: ImageTowerTable, pretrained: bool = True) -> None:
        super().__init__()
        self.card = card
        opened = trunk_input(card)
        self.size = (opened.size, opened.size)
        self.source: TrunkSource | None = find_trunk(card) if card.pretrained and pretrained else None
        self.trunk: Any = _timm_model(card)
        if self.source is not None:
            load_trunk(self.trunk, self.source, card.model)
        without_classifier = getattr(self.trunk, "reset_classifier", None)
        if without_classifier is not None:
            without_classifier(0)
        own = timms_own(card.model)
        if hasattr(self.trunk, "set_input_size") and (own is None or self.size != tuple(own.input_size[1:])):
            self._resized(self.size)
        self._taken: set[tuple[int, int]] = set()
        self.edge = self._coarsest()
        self._refuse_cut_edge(self.size)
        map_CHW = self._tried()
        self.grid = cast("tuple[int, int]", tuple(map_CHW.shape[1:]))
        self.cell = (self.size[0] // self.grid[0], self.size[1] // self.grid[1])
        self.edge = max(self.edge, *self.cell)
        self._refuse_cut_edge(self.size)
        features = map_CHW.shape[0]
        self.width = card.projection or features
        if card.projection is not None:
            if card.projection > features:
                raise UserError(
                    f"timm's {card.model} has {features} features, fewer than image.projection = {card.projection}: "
                    "lower it, or leave it out."
                )
            self.register_buffer("projection_WK", torch.zeros(features, card.projection))
        if card.position_mean:
            self.register_buffer("mean_PK", torch.zeros(self.grid[0] * self.grid[1], self.width))

    @property
    def key(self) -> list[Any]:
        """What decides `trunk_features`, as plain values."""
        opened = trunk_input(self.card)
        weights = None if self.source is None else self.source.sha256
        return [self.card.model, weights, list(self.card.out_indices), *self.grid, *opened.mean, *opened.std]

    def fixed(self) -> dict[str, Tensor]:
        """The buffers that are fitted to the training features."""
        return dict(self.named_buffers(recurse=False))

    def at(self, size: tuple[int, int]) -> TrunkTower:
        """The tower for another input size; positions are resized by timm's `set_input_size`, means bilinearly."""
        if size == self.size:
            return self
        self._refuse_cut_edge(size)
        tower: TrunkTower = shared_copy(self)
        tower.size, tower.grid = size, (size[0] // self.cell[0], size[1] // self.cell[1])
        if hasattr(tower.trunk, "set_input_size"):
            tower._resized(size)
        elif size not in self._taken:
            tower._tried()
            self._taken.add(size)
        if self.card.position_mean:
            mean_1KHW = self.get_buffer("mean_PK").T.reshape(1, -1, *self.grid)
            other_1KHW = F.interpolate(mean_1KHW, tower.grid, mode="bilinear", align_corners=False)
            tower.mean_PK = other_1KHW[0].flatten(1).T.contiguous()
        return tower

    def trunk_features(self, pixels_BCHW: Tensor) -> Tensor:
        """Features of the trunk, row-major over the grid: BPW."""
        if not self.frozen or pixels_BCHW.device.type != "cpu":
            return self._map(pixels_BCHW).flatten(2).transpose(1, 2)
        pieces = [self._map(piece).flatten(2).transpose(1, 2) for piece in torch.split(pixels_BCHW, AT_ONCE)]
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def raw(self, pixels_BCHW: Tensor) -> Tensor:
        """What can be kept of an image: its features, projected where the card says so.

        Those of a frozen trunk are rounded to half precision, in which they are kept, before and after the projection:
        the model is the same with kept features and without.
        """
        return self.project(self.rounded(self.trunk_features(pixels_BCHW)))

    def project(self, features_BPW: Tensor) -> Tensor:
        """What can be kept of an image, from its features as they are kept."""
        if features_BPW.shape[1] != self.grid[0] * self.grid[1]:
            raise UserError(
                f"timm's {self.card.model} gives no grid of {self.grid} at {self.size} px: take another size."
            )
        if self.card.projection is None:
            return features_BPW
        return self.rounded(features_BPW @ self.get_buffer("projection_WK"))

    def rounded(self, features_BPW: Tensor) -> Tensor:
        """Features as they are kept, in float32, where the trunk is frozen; else as they are."""
        return halved(features_BPW, (), self.card.model).float() if self.frozen else features_BPW

    def finish(self, raw_BSW: Tensor) -> ImageOut:
        """Patches without the mean of their position where the card says so, and their average."""
        return super().finish(raw_BSW - self.get_buffer("mean_PK") if self.card.position_mean else raw_BSW)

    def forward(self, pixels_BCHW: Tensor) -> ImageOut:
        """Patches, row-major over the grid, and their average."""
        return self.finish(self.raw(pixels_BCHW))

    def _map(self, pixels_BCHW: Tensor) -> Tensor:
        """Feature map B C rows columns."""
        if not self.card.out_indices:
            return self._as_map(self.trunk.forward_features(pixels_BCHW), pixels_BCHW)
        maps = self.trunk.forward_intermediates(
            pixels_BCHW, indices=list(self.card.out_indices), output_fmt="NCHW", intermediates_only=True
        )
        finest = max((tuple(each.shape[-2:]) for each in maps), key=lambda grid: grid[0] * grid[1])
        same = [
            each
            if tuple(each.shape[-2:]) == finest
            else F.interpolate(each, finest, mode="bilinear", align_corners=False)
            for each in maps
        ]
        return torch.cat(same, 1)

    def _as_map(self, features: Any, pixels_BCHW: Tensor) -> Tensor:  # noqa: ANN401 - of any timm model
        if isinstance(features, Tensor) and features.ndim == 4:
            return features.permute(0, 3, 1, 2) if getattr(self.trunk, "output_fmt", "") == "NHWC" else features
        if isinstance(features, Tensor) and features.ndim == 3:
            patches_BPW = features[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
            rows, columns = pixels_BCHW.shape[-2:]
            grid = self._rows_and_columns(patches_BPW.shape[1], (rows, columns))
            if grid is not None:
                return patches_BPW.transpose(1, 2).reshape(len(patches_BPW), -1, *grid)
        raise UserError(
            f"timm's {self.card.model} gives no feature map: name a model that keeps its patches apart, or stages of "
            "it as image.out_indices."
        )

    @staticmethod
    def _rows_and_columns(patches: int, size: tuple[int, int]) -> tuple[int, int] | None:
        """The grid of square cells that has so many patches, or None."""
        edge = (size[0] * size[1] / max(patches, 1)) ** 0.5
        grid = round(size[0] / edge), round(size[1] / edge)
        return grid if patches > 1 and grid[0] * grid[1] == patches else None

    def _resized(self, size: tuple[int, int]) -> None:
        try:
            self.trunk.set_input_size(size)
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            raise self._no_such_size(size, error) from None

    @torch.no_grad()
    def _tried(self) -> Tensor:
        """The feature map of one grey image."""
        training = self.trunk.training
        self.trunk.eval()
        device = next(self.trunk.parameters()).device
        try:
            return self._map(torch.zeros(1, 3, *self.size, device=device))[0]
        except (RuntimeError, TypeError, AssertionError, ValueError, IndexError, AttributeError) as error:
            if is_short_of_memory(error):
                raise
            raise self._no_such_size(self.size, error) from None
        finally:
            self.trunk.train(training)

    def _no_such_size(self, size: tuple[int, int], error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return UserError(
            f"timm's {self.card.model} gives no features of {size[0]} x {size[1]} px ({reason}): change image.size or "
            "image.out_indices, or name another model."
        )

    def _refuse_cut_edge(self, size: tuple[int, int]) -> None:
        """Raise UserError for a size that the cells of the coarsest features do not divide."""
        for pixels in size:
            if pixels % self.edge:
                nearest = max(round(pixels / self.edge), 1) * self.edge
                raise UserError(
                    f"{pixels} px are no whole number of the cells of {self.edge} px of timm's {self.card.model}: take "
                    f"{nearest}."
                )

    def _coarsest(self) -> int:
        """Edge in pixels of a cell of the coarsest features, as timm says it; 1 where it says nothing."""
        stages = getattr(self.trunk, "feature_info", None)
        stages = list(getattr(stages, "info", stages) or [])
        used = [stages[k] for k in self.card.out_indices if k < len(stages)] or stages[-1:]
        return max((int(each["reduction"]) for each in used), default=1)


def _timm_model(card: ImageTowerTable) -> nn.Module:
    changes = {"patch_size": card.patch, "embed_dim": card.width, "depth": card.depth, "num_heads": card.heads}
    changes = {key: value for key, value in changes.items() if value is not None}
    try:
        model: nn.Module = timm.create_model(card.model, pretrained=False, **changes)
        return model
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        if is_short_of_memory(error):
            raise
        raise UserError(
            f"timm cannot make '{card.model}' ({error}): name a model of timm.list_models(), or leave sizes out."
        ) from None
