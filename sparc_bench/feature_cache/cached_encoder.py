"""An encoder that reads its features from the feature cache and computes only missing ones.

Its output has the same batches as the inner encoder's and equals it bit for bit. (Where only some images of a stream
are cached, the others are encoded in batches of their own, where a matrix product may round differently.)

Shapes: N images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sparc_bench.encoder import TEXTS_PER_IMAGE, Encoder, ImageTextEncoder, batches, stream
from sparc_bench.feature_cache import CacheMode
from sparc_bench.feature_cache.columns import ImageColumns, image_row, in_order, only, text_rows, together
from sparc_bench.feature_cache.store import FeatureStore
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import ImageItem
from sparc_bench.models.encoder_wrapper import EncoderWrapper
from sparc_bench.models.finite_encoder import odd_images, odd_texts

WORTH_SAYING = 2**30
"""Bytes of patch vectors from which on the user is told their size."""

LEFT_FREE = 2**30
"""Bytes of the disk that patch vectors leave free."""


class CachedEncoder(EncoderWrapper):
    """An encoder (see `sparc_bench.encoder.Encoder`) whose features come from stores, and from `inner` where missing.

    Token vectors are not kept: only models that score token by token need them, and their scores take most of the time.

    Args:
        inner: the wrapped encoder.
        images: store of the image features of one data set; None where the images have no key.
        texts: store of the text features.
        pixels: hash that stands for the content of images that have none.
        keep: the kept features; "half" rounds all patch vectors to float16, newly computed ones too.
        around: function that wraps the encoder of a reference row in the cache.
        say: function that shows the user a sentence.
    """

    def __init__(
        self,
        inner: Encoder,
        images: FeatureStore | None,
        texts: FeatureStore,
        pixels: str,
        keep: CacheMode,
        around: Callable[[Encoder], Encoder],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(inner)
        self._images, self._texts, self._around, self._say = images, texts, around, say
        self._pixels = pixels
        self._columns = ImageColumns(tuple(inner.paths), keep, inner.card.name)

    def images(self, items: Sequence[ImageItem], need: frozenset[str], size: int | None = None) -> ImageFeatures:
        """Features of images; only missing ones are decoded and computed."""
        if not items:
            raise RuntimeError("no images to encode")
        return ImageFeatures.concat(list(self.stream(items, need, len(items), size)))

    def stream(
        self, items: Sequence[ImageItem], need: frozenset[str], most: int, size: int | None = None
    ) -> Iterator[ImageFeatures]:
        """Features of at most `most` images at a time, in order; only missing ones are decoded and computed."""
        store = self._images
        if store is None:
            yield from stream(self.inner, items, need, most, size)
            return
        store.refresh()
        rows = [image_row(item, size, self._pixels) for item in items]
        self._columns.check(store, need, rows)
        lacking = {kind: self._columns.lacking(store, kind, rows) for kind in need}
        absent = frozenset(kind for kind, places in lacking.items() if places)
        missing = sorted(set().union(*lacking.values()))
        missing_N = np.zeros(len(items), dtype=bool)
        missing_N[missing] = True
        # batches as the encoder itself makes them: a matrix product of another number of rows may round differently
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
            yield from batches(in_order(parts, [*new, *old]), most)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Features of texts; all texts of one batch are read together or computed together.

        A text rounds differently among other texts (shorter padding, another matrix product), and prompts are few:
        therefore the same text in another batch is another row.
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
        self._texts.check(("global",), rows)
        if not self._texts.lacks("global", rows):
            return TextFeatures(tuple(texts), self._texts.read("global", rows).to(self.device))
        features = self.inner.texts(texts, need)
        if features.global_MD is not None and not odd_texts(features):
            self._texts.add(rows, {"global": features.global_MD.cpu()})
        return features

    def untrained(self) -> Encoder | None:
        """The untrained towers of the inner encoder, cached under their own key."""
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
        """Features computed by the inner encoder, each added to the store first."""
        done, kept = 0, need
        for features in stream(self.inner, items, need, most, size):
            features = self._columns.rounded(only(features, need))
            if odd_images(features):
                kept = frozenset()  # whoever asked refuses them, by name
            elif done == 0 and not self._room(store, features, len(items)):
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
        """Whether the patch vectors of `images` images fit on the disk; tells the user where they are large."""
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
    """A stream of features, read in parts with a chosen number of images."""

    def __init__(self, source: Iterator[ImageFeatures]) -> None:
        self._source = source
        self._waiting: list[ImageFeatures] = []

    def take(self, count: int) -> ImageFeatures:
        """The features of the next `count` images."""
        while sum(len(part) for part in self._waiting) < count:
            self._waiting.append(next(self._source))
        whole = ImageFeatures.concat(self._waiting)
        self._waiting = [whole[count:]] if len(whole) > count else []
        return whole[:count]
