"""An encoder that computes nothing twice: vectors come from the feature cache where they are there.

What comes out is cut into the same runs as the encoder's own output and equals it bit for bit. (Where only a part of
the images of a stream is there, the others are encoded in batches of their own, which a matrix product may round
otherwise.)

Shapes: N images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sparc_bench.encoder import TEXTS_PER_IMAGE, Encoder, ImageTextEncoder, runs, stream
from sparc_bench.feature_cache import Keep
from sparc_bench.feature_cache.columns import ImageColumns, image_row, in_order, only, text_rows, together
from sparc_bench.feature_cache.store import FeatureStore
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import ImageItem
from sparc_bench.models.encoder_wrapper import PassingEncoder

WORTH_SAYING = 2**30
"""Bytes of patch vectors from which on the user is told what they take."""

LEFT_FREE = 2**30
"""Bytes that patch vectors leave free on the disk."""


class CachedEncoder(PassingEncoder):
    """Asks `inner` (see `sparc_bench.encoder.Encoder`) for what the stores do not hold.

    Token vectors are not kept: only models that score token by token ask for them, and there the scores take the time.

    Args:
        inner: the encoder itself.
        images: the store of its images of a data set; None where they have no key.
        texts: the store of its texts.
        keep: what is kept; in "half" all patch vectors are rounded to float16, the computed ones as well.
        around: puts the cache around the encoder of a reference row.
        say: takes a sentence for the user.
    """

    def __init__(
        self,
        inner: Encoder,
        images: FeatureStore | None,
        texts: FeatureStore,
        keep: Keep,
        around: Callable[[Encoder], Encoder],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(inner)
        self._images, self._texts, self._around, self._say = images, texts, around, say
        self._columns = ImageColumns(tuple(inner.paths), keep, inner.card.name)

    def images(self, items: Sequence[ImageItem], need: frozenset[str], size: int | None = None) -> ImageFeatures:
        """Features of images; only what is missing is opened and computed."""
        if not items:
            raise RuntimeError("no images to encode")
        return ImageFeatures.concat(list(self.stream(items, need, len(items), size)))

    def stream(
        self, items: Sequence[ImageItem], need: frozenset[str], most: int, size: int | None = None
    ) -> Iterator[ImageFeatures]:
        """Features of runs of at most `most` images in order; only what is missing is opened and computed."""
        store = self._images
        if store is None:
            yield from stream(self.inner, items, need, most, size)
            return
        store.refresh()
        rows = [image_row(item, size) for item in items]
        lacking = {kind: self._columns.lacking(store, kind, rows) for kind in need}
        absent = frozenset(kind for kind, places in lacking.items() if places)
        missing = sorted(set().union(*lacking.values()))
        missing_N = np.zeros(len(items), dtype=bool)
        missing_N[missing] = True
        # runs as the encoder itself cuts them: a matrix product of another number of rows may round otherwise
        batch = self.inner.runtime.batch_size if isinstance(self.inner, ImageTextEncoder) else most
        names = [rows[place] for place in missing]
        computed = _Rest(self._computed(store, [items[place] for place in missing], names, absent, batch, size))
        for start in range(0, len(items), batch):
            is_new = missing_N[start : start + batch]
            new, old = ((np.flatnonzero(chosen) + start).tolist() for chosen in (is_new, ~is_new))
            parts = []
            if new:
                features = computed.take(len(new))
                there = need - absent
                parts.append(together(features, self._stored(store, items, rows, new, there)) if there else features)
            if old:
                parts.append(self._stored(store, items, rows, old, need))
            yield from runs(in_order(parts, [*new, *old]), most)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Features of texts; as many as the encoder takes at once are there together, or are computed together.

        A few texts alone round otherwise than among others (a shorter padding, another matrix product), and prompts are
        few: so the same text in another set of prompts is another row.
        """
        if need != frozenset({"global"}) or not texts:
            return self.inner.texts(texts, need)
        self._texts.refresh()
        at_once = len(texts)
        if isinstance(self.inner, ImageTextEncoder):
            at_once = TEXTS_PER_IMAGE * self.inner.runtime.batch_size
        runs_of_texts = (texts[start : start + at_once] for start in range(0, len(texts), at_once))
        return TextFeatures.concat([self._texts_together(run, need) for run in runs_of_texts])

    def _texts_together(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        rows = text_rows(texts)
        if not self._texts.lacks("global", rows):
            return TextFeatures(tuple(texts), self._texts.read("global", rows).to(self.device))
        features = self.inner.texts(texts, need)
        if features.global_MD is not None:
            self._texts.add(rows, {"global": features.global_MD.cpu()})
        return features

    def untrained(self) -> Encoder | None:
        """Of the inner encoder, with a key of its own."""
        towers = self.inner.untrained()
        return None if towers is None else self._around(towers)

    def _computed(
        self,
        store: FeatureStore,
        items: Sequence[ImageItem],
        rows: Sequence[str],
        need: frozenset[str],
        most: int,
        size: int | None,
    ) -> Iterator[ImageFeatures]:
        """What the inner encoder says, kept before it is handed on."""
        done, kept = 0, need
        for features in stream(self.inner, items, need, most, size):
            features = self._columns.rounded(only(features, need))
            if done == 0 and not self._room(store, features, len(items)):
                kept = need - {"patches"}
            store.add(rows[done : done + len(features)], self._columns.to_columns(only(features, kept)))
            done += len(features)
            yield features

    def _stored(
        self,
        store: FeatureStore,
        items: Sequence[ImageItem],
        rows: Sequence[str],
        places: Sequence[int],
        kinds: frozenset[str],
    ) -> ImageFeatures:
        ids = tuple(items[place].id for place in places)
        return self._columns.to_features(store, [rows[place] for place in places], ids, kinds, self.device)

    def _room(self, store: FeatureStore, first: ImageFeatures, images: int) -> bool:
        """Whether the patch vectors of so many images find room on the disk; says so where they take much of it."""
        size = images * self._columns.patch_bytes(first)
        if size < WORTH_SAYING:
            return True
        free = store.free_bytes()
        what = f"the patch vectors of {images} images in {store.folder.parent}"
        if size + LEFT_FREE > free:
            self._say(
                f"Not kept: {what} would take {size / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free; free some "
                "space, set SPARC_BENCH_CACHE to another folder, or leave them out with --cache vectors."
            )
            return False
        self._say(f"Kept: {what} take {size / 1e9:.1f} GB; --cache half takes half of it, --cache vectors none.")
        return True


class _Rest:
    """Runs of features, taken by number of images instead."""

    def __init__(self, source: Iterator[ImageFeatures]) -> None:
        self._source = source
        self._waiting: list[ImageFeatures] = []

    def take(self, count: int) -> ImageFeatures:
        """The next `count` images."""
        while sum(len(part) for part in self._waiting) < count:
            self._waiting.append(next(self._source))
        whole = ImageFeatures.concat(self._waiting)
        self._waiting = [whole[count:]] if len(whole) > count else []
        return whole[:count]
