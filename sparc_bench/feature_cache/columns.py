"""Conversion of features to rows and columns of a store, and back.

Shapes: N images, P patches, D joint width, R rows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from sparc_bench.cards.card import canonical_hash
from sparc_bench.errors import UserError
from sparc_bench.feature_cache import CacheMode
from sparc_bench.feature_cache.store import FeatureStore
from sparc_bench.features import ImageFeatures
from sparc_bench.images.item import Box
from sparc_bench.images.view import View

_GRID, _AREA = "grid", "area"
_JSON = json.JSONEncoder(ensure_ascii=False)


def image_row(view: View, pixels: str) -> str:
    """The row name of a view within a data set: id of the image, its content (else `pixels`), window, size."""
    content = _JSON.encode(view.item.content or pixels)
    return f"[{_JSON.encode(view.id)}, {content}, {_window_and_size(view.window, view.size)}]"


@lru_cache(maxsize=1)
def _window_and_size(window: Box | None, size: tuple[int, int] | None) -> str:
    # a mark, because older rows of windows hold areas in pixels of the window; cached, equal for all whole images
    marked = None if window is None else ["of the image", *window]
    return _JSON.encode([marked, size])[1:-1]


def text_rows(together: Sequence[str]) -> list[str]:
    """The row names of texts that are encoded together: a hash of all of them, and the text."""
    others = canonical_hash(list(together))[:16]
    return [f"{others} {text}" for text in together]


class ImageColumns:
    """The columns of an encoder's image features ("global", "branches", one for each patch path).

    Every shard holds grid and area too. Half-precision patch vectors have columns of other names, so that mode "full"
    never reads rounded ones.
    """

    def __init__(self, paths: Sequence[str], keep: CacheMode, model: str) -> None:
        self._paths, self._half, self._model = tuple(paths), keep == "half", model
        patches = {"full": "patches:{}", "half": "half:{}"}.get(keep)
        self._names = {
            "global": ("global",),
            "branches": ("branches",),
            "patches": tuple(patches.format(path) for path in self._paths) if patches else (),
        }

    def lacking(self, store: FeatureStore, kind: str, rows: Sequence[str]) -> set[int]:
        """Indices of the rows that lack this kind of features in the store."""
        names = self._names.get(kind, ())
        return set().union(*(store.lacks(name, rows) for name in names)) if names else set(range(len(rows)))

    def check(self, store: FeatureStore, kinds: frozenset[str], rows: Sequence[str]) -> None:
        """Remove damaged features of these kinds from the store (see `FeatureStore.check`)."""
        store.check([name for kind in sorted(kinds) for name in self._names.get(kind, ())], rows)

    def to_columns(self, features: ImageFeatures) -> dict[str, Tensor]:
        """Column name -> kept values on the CPU, N first; empty where nothing is kept."""
        vectors = {"global": features.global_ND, "branches": features.branches_NKD}
        columns = {kind: tensor.cpu() for kind, tensor in vectors.items() if tensor is not None}
        if features.patches and self._names["patches"]:
            for name, path in zip(self._names["patches"], self._paths, strict=True):
                patches_NPD = features.patches[path].cpu()
                columns[name] = patches_NPD.half() if self._half else patches_NPD
        if not columns:
            return {}
        area_N4 = features.area_N4
        columns[_AREA] = torch.full((len(features), 4), torch.nan) if area_N4 is None else area_N4.cpu()
        columns[_GRID] = torch.tensor([features.grid or (0, 0)] * len(features))
        return columns

    def to_features(
        self,
        store: FeatureStore,
        rows: Sequence[str],
        ids: tuple[str, ...],
        kinds: frozenset[str],
        device: torch.device,
    ) -> ImageFeatures:
        """The stored features of rows that have all of `kinds`."""
        read = {kind: [store.read(name, rows).to(device) for name in self._names[kind]] for kind in kinds}
        # grid and area of a pass that computed patches: another pass may not know them
        beside = self._names["patches" if "patches" in kinds else min(kinds)][0]
        grid, area_N4 = store.read(_GRID, rows[:1], beside)[0].tolist(), store.read(_AREA, rows, beside)
        return ImageFeatures(
            ids=ids,
            global_ND=read["global"][0] if "global" in kinds else None,
            branches_NKD=read["branches"][0] if "branches" in kinds else None,
            patches={path: each.float() for path, each in zip(self._paths, read.get("patches", ()), strict=False)},
            grid=(grid[0], grid[1]) if any(grid) else None,
            area_N4=None if area_N4.isnan().any() else area_N4,
        )

    def patch_bytes(self, features: ImageFeatures) -> int:
        """Bytes of the kept patch vectors of one image."""
        if not (features.patches and self._names["patches"]):
            return 0
        numbers = sum(each[0].numel() for each in features.patches.values())
        return numbers * (2 if self._half else 4)

    def rounded(self, features: ImageFeatures) -> ImageFeatures:
        """The features with patch vectors as the store will return them.

        Raises:
            UserError: a value is too large for half precision.
        """
        if not self._half:
            return features
        patches = {path: each.half() for path, each in features.patches.items()}
        for path, each in patches.items():
            if each.isinf().any() and not features.patches[path].isinf().any():
                raise UserError(
                    f"{self._model} has patch vectors ('{path}') above 65504, which half precision cannot hold: use "
                    "--cache full."
                )
        return dataclasses.replace(features, patches={path: each.float() for path, each in patches.items()})


def only(features: ImageFeatures, kinds: frozenset[str]) -> ImageFeatures:
    """The features of some kinds; the others are removed."""
    return dataclasses.replace(
        features,
        global_ND=features.global_ND if "global" in kinds else None,
        branches_NKD=features.branches_NKD if "branches" in kinds else None,
        patches=features.patches if "patches" in kinds else {},
    )


def together(one: ImageFeatures, other: ImageFeatures) -> ImageFeatures:
    """The features of the same images from two sources as one; `one` wins where both have a kind."""
    return dataclasses.replace(
        one,
        global_ND=other.global_ND if one.global_ND is None else one.global_ND,
        branches_NKD=other.branches_NKD if one.branches_NKD is None else one.branches_NKD,
        patches=one.patches or other.patches,
        grid=one.grid or other.grid,
        area_N4=other.area_N4 if one.area_N4 is None else one.area_N4,
    )


def in_order(parts: Sequence[ImageFeatures], places: Sequence[int]) -> ImageFeatures:
    """The features of all parts, sorted by `places` (one for each image); a single part stays as it is."""
    if len(parts) == 1:
        return parts[0]
    if any(part.area_N4 is None for part in parts):
        parts = [dataclasses.replace(part, area_N4=None) for part in parts]
    whole = ImageFeatures.concat(parts)
    order_N = torch.tensor(places).argsort()

    def ordered(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[order_N.to(tensor.device)]

    patches: Mapping[str, Tensor] = {path: each[order_N.to(each.device)] for path, each in whole.patches.items()}
    return ImageFeatures(
        ids=tuple(whole.ids[row] for row in order_N.tolist()),
        global_ND=ordered(whole.global_ND),
        branches_NKD=ordered(whole.branches_NKD),
        patches=patches,
        grid=next((part.grid for part in parts if part.grid is not None), None),
        area_N4=ordered(whole.area_N4),
    )
