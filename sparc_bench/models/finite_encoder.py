"""An encoder with one finite vector for every image and text, and finite areas, scores and detections.

No task can score others: rows that are missing would move every later one to another image.
NaN is neither above nor below any score, so that a rank counted by comparison would be the best one.

Shapes: N images, M texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor

from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.features import Detections, ImageFeatures, Regions, TextFeatures
from sparc_bench.images.view import View
from sparc_bench.models.encoder_wrapper import EncoderWrapper


class FiniteEncoder(EncoderWrapper):
    """An encoder (see `sparc_bench.encoder.Encoder`) that raises UserError where a vector or score is not finite."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner)
        self._images = 0
        self._widths: dict[str, int] = {}

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of groups of views, all finite."""
        for features in self.inner.stream(groups, need):
            self._refuse_odd_rows(features, need)
            self._images += len(features)
            for kind, bad_N in odd_images(features).items():
                of = len(features) if self._images == len(features) else f"the last {len(features)}"
                self._refuse(f"{kind} of {int(bad_N.sum())} of {of} images", f"'{features.ids[_first(bad_N)]}'")
            yield features

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Features of texts, all finite."""
        features = self.inner.texts(texts, need)
        for each in (features.global_MD, features.tokens_MLD):
            if len(features) != len(texts) or (each is not None and len(each) != len(texts)):
                rows = len(features) if each is None else len(each)
                raise UserError(
                    f"{self.card.name} gives vectors of {rows} texts where it was asked for {len(texts)}: return one "
                    "row for each."
                )
        for kind, bad_M in odd_texts(features).items():
            self._refuse(f"{kind} of {int(bad_M.sum())} of {len(features)} texts", f"'{features.texts[_first(bad_M)]}'")
        return features

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of both directions, all finite."""
        scores = self.inner.similarity(images, texts, regions, path)
        rows = images.ids if regions is None else [images.ids[at] for at in regions.image_index_R.tolist()]
        for scores_RM in scores[:1] if scores[0] is scores[1] else scores:
            self._check_scores(scores_RM, rows, "images" if regions is None else "regions", path)
        return scores

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Dense scores, all finite."""
        scores_NMYX = self.inner.dense_scores(images, texts, path)
        self._check_scores(scores_NMYX, images.ids, "images", path)
        return scores_NMYX

    def token_maps(self, images: ImageFeatures, words: Sequence[str], path: str | None = None) -> Tensor:
        """Maps of words, all finite but those of words that are not read, of which there is no number anywhere."""
        maps_NLYX = self.inner.token_maps(images, words, path)
        if _all_finite(maps_NLYX):
            return maps_NLYX
        read_L = ~maps_NLYX.isnan().transpose(0, 1).flatten(1).all(1)
        self._check_scores(maps_NLYX[:, read_L] if read_L.any() else maps_NLYX, images.ids, "images", path)
        return maps_NLYX

    def detect(self, views: Sequence[View], texts: TextFeatures) -> Detections:
        """Detections, with finite boxes and scores."""
        return self._checked_boxes(self.inner.detect(views, texts), views, "detections")

    def propose(self, views: Sequence[View]) -> Detections:
        """Proposals, with finite boxes and scores."""
        return self._checked_boxes(self.inner.propose(views), views, "proposals")

    def untrained(self) -> Encoder | None:
        """The model with its initial weights, checked as well."""
        towers = self.inner.untrained()
        return None if towers is None else FiniteEncoder(towers)

    def _refuse_odd_rows(self, features: ImageFeatures, need: frozenset[str]) -> None:
        """Raise UserError where a batch lacks the vectors of some images, or has them of another width."""
        if "global" in need & self.gives and features.global_ND is None:
            raise UserError(f"{self.card.name} gives no vectors of images: fill in global_ND whenever it is asked for.")
        found = {"vectors": features.global_ND, "branches": features.branches_NKD}
        found |= {f"patch vectors of path '{path}'": patches for path, patches in features.patches.items()}
        for kind, each in found.items():
            if each is None:
                continue
            if len(each) != len(features):
                raise UserError(
                    f"{self.card.name} gives {kind} of {len(each)} images where it was shown {len(features)}: return "
                    "one row for each."
                )
            width = self._widths.setdefault(kind, each.shape[-1])
            if width != each.shape[-1]:
                raise UserError(
                    f"{self.card.name} gives {kind} of {width} numbers for some images and of {each.shape[-1]} for "
                    "others: return one width."
                )

    def _checked_boxes(self, found: Detections, views: Sequence[View], what: str) -> Detections:
        odd_R = _odd_rows(found.score_R) | _odd_rows(found.box_R4)
        if odd_R.any():
            first = views[int(found.image_index_R[_first(odd_R)])]
            self._refuse(f"boxes or scores of {int(odd_R.sum())} of {len(odd_R)} {what}", f"in image '{first.id}'")
        return found

    def _check_scores(self, scores: Tensor, ids: Sequence[str], rows: str, path: str | None) -> None:
        if _all_finite(scores):
            return
        odd = _odd_rows(scores)
        by = f" by its path '{path}'" if path else ""
        self._refuse(f"scores of {int(odd.sum())} of {len(odd)} {rows}{by}", f"of image '{ids[_first(odd)]}'")

    def _refuse(self, what: str, example: str) -> None:
        raise UserError(
            f"{self.card.name} gives {what} that are not finite (NaN or infinite), such as {example}: try --precision "
            "float32, or take other weights; sparc-bench verify MODEL probes them."
        )


def odd_images(features: ImageFeatures) -> Mapping[str, Tensor]:
    """Kind of vectors, or areas -> which images have one that is not finite, N; only kinds with any."""
    kinds = {"vectors": features.global_ND, "branch vectors": features.branches_NKD}
    kinds["areas of the patch grid"] = features.area_N4
    kinds |= {f"patch vectors ('{path}')": patches for path, patches in features.patches.items()}
    return _odd(kinds)


def odd_texts(features: TextFeatures) -> Mapping[str, Tensor]:
    """Kind of vectors -> which texts have one that is not finite, M; only kinds with any. Padding may be anything."""
    tokens, mask = features.tokens_MLD, features.mask_ML
    words = tokens if tokens is None or mask is None else tokens.masked_fill(~mask.bool().unsqueeze(2), 0)
    return _odd({"vectors": features.global_MD, "token vectors": words})


def _odd(kinds: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {kind: _odd_rows(each) for kind, each in kinds.items() if each is not None and not _all_finite(each)}


def _all_finite(values: Tensor) -> bool:
    # a sum is several times faster than a mask; it may overflow where all values are finite
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _odd_rows(values: Tensor) -> Tensor:
    return ~values.isfinite().flatten(1).all(1) if values.ndim > 1 else ~values.isfinite()


def _first(odd: Tensor) -> int:
    return int(odd.int().argmax())
