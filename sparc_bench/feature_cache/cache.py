"""The feature cache of a command: wraps encoders, and finds the store of their features by key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from sparc_bench.cards.card import canonical_hash
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.feature_cache import FEATURES, CacheMode
from sparc_bench.feature_cache.cached_encoder import CachedEncoder
from sparc_bench.feature_cache.key import image_key, pixels_of, text_key
from sparc_bench.feature_cache.store import FeatureStore
from sparc_bench.files.cache_folder import cache_folder


def to_stderr(sentence: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"{sentence}\n")


class FeatureCache:
    """Stores of features under the cache folder, one for each key.

    Args:
        keep: the kept features.
        say: function that shows the user a sentence; each sentence is shown once.
    """

    def __init__(self, keep: CacheMode, say: Callable[[str], None] = to_stderr) -> None:
        self.keep, self._say_it = keep, say
        self._stores: dict[str, FeatureStore] = {}
        self._said: set[str] = set()

    def around(self, encoder: Encoder, data: Examples) -> Encoder:
        """The encoder behind the cache; the encoder itself with mode "off" or where it has no key (no `identity`).

        The patches of a frozen trunk are kept for all models that have it; the model's own, which follow from them
        within moments, are kept only where `rounds` them.
        """
        keep = self.keep
        if (
            encoder.trunk is not None
            and keep in ("full", "half", "trunk")
            and image_key(encoder.trunk, data) is not None
        ):
            if not isinstance(encoder.trunk, CachedEncoder):  # untrained towers have that of their model
                encoder = encoder.on_trunk(self._kept_trunk(encoder.trunk, data))
            keep = "vectors" if keep == "full" else keep
        texts = text_key(encoder)
        if keep in ("trunk", "off") or texts is None:
            return encoder
        images, model = image_key(encoder, data), encoder.card.name
        return CachedEncoder(
            encoder,
            None if images is None else self._store(model, images),
            self._store(model, texts),
            len(data),
            pixels_of(data),
            keep,
            partial(self.around, data=data),
            self._say,
        )

    def rounds(self, encoder: Encoder, data: Examples) -> bool:
        """Whether the patch vectors of this encoder and data are rounded to half precision."""
        return self.keep == "half" and image_key(encoder, data) is not None

    def _kept_trunk(self, trunk: Encoder, data: Examples) -> Encoder:
        """A frozen trunk behind its own store; its patches are rounded already, so that half precision holds them."""
        images = image_key(trunk, data)
        assert images is not None
        store = self._store(f"image trunk of {trunk.card.name}", images)
        around = partial(self.around, data=data)
        return CachedEncoder(trunk, store, store, len(data), pixels_of(data), "half", around, self._say)

    def flush(self) -> None:
        """Write pending rows; where the disk refuses them, tell the user and go on."""
        for store in self._stores.values():
            store.flush()
            store.touch()
            if store.error:
                self._say(
                    f"The feature cache {cache_folder()} cannot be written ({store.error}): going on without it; free "
                    "some space, or set SPARC_BENCH_CACHE to another folder."
                )

    def _store(self, model: str, key: dict[str, Any]) -> FeatureStore:
        name = canonical_hash(key)[:16]
        if name not in self._stores:
            self._stores[name] = FeatureStore(cache_folder() / FEATURES / name, {"model": model, **key}, self._say)
        return self._stores[name]

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say_it(sentence)
