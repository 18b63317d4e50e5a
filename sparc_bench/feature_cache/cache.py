"""The feature cache of a command: which encoders it stands around, and where their vectors lie."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from sparc_bench.cards.card import canonical_hash
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder
from sparc_bench.feature_cache import FEATURES, Keep
from sparc_bench.feature_cache.cached_encoder import CachedEncoder
from sparc_bench.feature_cache.key import image_key, text_key
from sparc_bench.feature_cache.store import FeatureStore
from sparc_bench.files.cache_folder import cache_folder


def to_stderr(sentence: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{sentence}\n")


class FeatureCache:
    """Folders of features under the cache folder, one for each key.

    Args:
        keep: what is kept.
        say: takes a sentence for the user; each is said once.
    """

    def __init__(self, keep: Keep, say: Callable[[str], None] = to_stderr) -> None:
        self.keep, self._say_it = keep, say
        self._stores: dict[str, FeatureStore] = {}
        self._said: set[str] = set()

    def around(self, encoder: Encoder, data: DataSplit) -> Encoder:
        """The encoder behind the cache; itself where nothing is kept or where it does not say what decides a vector."""
        texts = text_key(encoder)
        if self.keep == "off" or texts is None:
            return encoder
        images, model = image_key(encoder, data), encoder.card.name
        return CachedEncoder(
            encoder,
            None if images is None else self._store(model, images),
            self._store(model, texts),
            self.keep,
            partial(self.around, data=data),
            self._say,
        )

    def rounds(self, encoder: Encoder, data: DataSplit) -> bool:
        """Whether the patch vectors of this encoder and data are rounded to half precision."""
        return self.keep == "half" and image_key(encoder, data) is not None

    def flush(self) -> None:
        """Write what waits; where that is not possible the user is told, and the evaluation goes on."""
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
            self._stores[name] = FeatureStore(cache_folder() / FEATURES / name, {"model": model, **key})
        return self._stores[name]

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say_it(sentence)
