"""An encoder that reads its features from the feature cache and computes only missing ones.

Its output has the same batches as the inner encoder's and equals it bit for bit. (Where only some images of a batch are
cached, the others are encoded in a batch of their own, where a matrix product may round differently.)

Shapes: N images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sparc_bench.encoder import TEXTS_PER_IMAGE, Encoder
from sparc_bench.feature_cache import CacheMode
from sparc_bench.feature_cache.columns import ImageColumns, image_row, in_order, only, text_rows, together
from sparc_bench.feature_cache.store import FeatureStore
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.view import View, in_batches
from sparc_bench.models.encoder_wrapper import EncoderWrapper
from sparc_bench.models.finite_encoder import odd_images, odd_texts

WORTH_SAYING = 2**30
"""Bytes of patch vectors from which on the user is told their size."""

LEFT_FREE = 2**30
"""Bytes of the disk that patch vectors leave free."""

AHEAD = 64
"""Most batches in a row without anything to compute that are looked up before their turn."""


@dataclass(frozen=True)
class _Batch:
    """Views of one batch, and what the store lacks of them.

    Attributes:
        views: the views.
        rows: their names in the store.
        lacking: places of the views that lack a kind of features.
        absent: the kinds that any of them lacks.
    """

    views: list[View]
    rows: list[str]
    lacking: list[int]
    absent: frozenset[str]


class CachedEncoder(EncoderWrapper):
    """An encoder (see `sparc_bench.encoder.Encoder`) whose features come from stores, and from `inner` where missing.

    Token vectors are not kept: only models that score token by token need them, and their scores take most of the time.

    Args:
        inner: the wrapped encoder.
        images: store of the image features of one data set; None where the images have no key.
        texts: store of the text features.
        count: number of images of the data set.
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
        count: int,
        pixels: str,
        keep: CacheMode,
        around: Callable[[Encoder], Encoder],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(inner)
        self._images, self._texts, self._around, self._say = images, texts, around, say
        self._count, self._pixels, self._half = count, pixels, keep == "half"
        self._columns = ImageColumns(tuple(inner.paths), keep, inner.card.name)

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of groups of views, batch by batch, in order; only missing ones are decoded and computed."""
        store = self._images
        if store is None:
            yield from self.inner.stream(groups, need)
            return
        store.refresh()
        to_do = _Rest(self._looked_up(store, in_batches(groups, self.runtime.batch_size), need))
        while (batch := to_do.first) is not None:
            if batch.absent:
                yield from self._run(store, to_do, need, batch.absent)
            else:
                to_do.take()
                yield self._stored(store, batch, range(len(batch.views)), need)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Features of texts; all texts of one batch are read together or computed together.

        A text rounds differently among other texts (shorter padding, another matrix product), and prompts are few:
        therefore the same text in another batch is another row.
        """
        if need != frozenset({"global"}) or not texts:
            return self.inner.texts(texts, need)
        self._texts.refresh()
        at_once = TEXTS_PER_IMAGE * self.runtime.batch_size
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

    def _looked_up(self, store: FeatureStore, batches: Iterable[list[View]], need: frozenset[str]) -> Iterator[_Batch]:
        """Batches with what the store lacks of them."""
        for views in batches:
            rows = [image_row(view, self._pixels) for view in views]
            self._columns.check(store, need, rows)
            lacking = {kind: self._columns.lacking(store, kind, rows) for kind in need}
            absent = frozenset(kind for kind, places in lacking.items() if places)
            yield _Batch(views, rows, sorted(set().union(*lacking.values())), absent)

    def _run(
        self, store: FeatureStore, to_do: _Rest, need: frozenset[str], absent: frozenset[str]
    ) -> Iterator[ImageFeatures]:
        """Features of the next batches that lack the kinds `absent` or nothing, by one stream of the inner encoder."""
        under_way: deque[_Batch] = deque()

        def missing() -> Iterator[list[View]]:
            idle = 0
            while (batch := to_do.first) is not None and batch.absent in (absent, frozenset()) and idle < AHEAD:
                idle = 0 if batch.absent else idle + 1
                under_way.append(to_do.take())
                yield [batch.views[place] for place in batch.lacking]

        def known() -> Iterator[ImageFeatures]:
            while under_way and not under_way[0].lacking:
                batch = under_way.popleft()
                yield self._stored(store, batch, range(len(batch.views)), need)

        kept: frozenset[str] | None = None
        for features in self.inner.stream(missing(), absent):
            features = self._columns.rounded(only(features, absent))
            yield from known()
            batch = under_way.popleft()
            if odd_images(features):
                kept = frozenset()  # whoever asked refuses them, by name
            elif kept is None:
                kept = absent if self._room(store, features) else absent - {"patches"}
            store.add([batch.rows[place] for place in batch.lacking], self._columns.to_columns(only(features, kept)))
            yield self._whole(store, batch, features, need, need - absent)
        yield from known()

    def _whole(
        self,
        store: FeatureStore,
        batch: _Batch,
        computed: ImageFeatures,
        need: frozenset[str],
        beside: frozenset[str],
    ) -> ImageFeatures:
        """Features of a batch: `computed` ones, with the kinds `beside` that are stored, and the other views'."""
        stored = [place for place in range(len(batch.views)) if place not in set(batch.lacking)]
        parts = [computed]
        if beside:
            parts = [together(computed, self._stored(store, batch, batch.lacking, beside))]
        if stored:
            parts.append(self._stored(store, batch, stored, need))
        return in_order(parts, [*batch.lacking, *stored])

    def _stored(
        self, store: FeatureStore, batch: _Batch, places: Sequence[int], kinds: frozenset[str]
    ) -> ImageFeatures:
        ids = tuple(batch.views[place].id for place in places)
        return self._columns.to_features(store, [batch.rows[place] for place in places], ids, kinds, self.device)

    def _room(self, store: FeatureStore, first: ImageFeatures) -> bool:
        """Whether the patch vectors of all images fit on the disk; tells the user where they are large."""
        size = self._count * self._columns.patch_bytes(first)
        if size < WORTH_SAYING:
            return True
        free = store.free_bytes()
        what = f"the patch vectors of {self._count} images in {store.folder.parent}"
        if size + LEFT_FREE > free:
            self._say(
                f"Not kept: {what} would take {size / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free; free some "
                "space, set SPARC_BENCH_CACHE to another folder, or leave them out with --cache vectors."
            )
            return False
        less = "--cache vectors takes none" if self._half else "--cache half takes half of it, --cache vectors none"
        self._say(f"Kept: {what} take {size / 1e9:.1f} GB; {less}.")
        return True


class _Rest:
    """Batches that are still to come, the first of which can be looked at."""

    def __init__(self, source: Iterator[_Batch]) -> None:
        self._source = source
        self._first: _Batch | None = None

    @property
    def first(self) -> _Batch | None:
        """The next batch, which stays; None at the end."""
        if self._first is None:
            self._first = next(self._source, None)
        return self._first

    def take(self) -> _Batch:
        """The next batch, which `first` has shown."""
        batch, self._first = self._first, None
        assert batch is not None
        return batch
