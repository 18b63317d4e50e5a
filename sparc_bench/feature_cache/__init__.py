"""The feature cache: features of images and texts on disk, computed once for all tasks, prompt sets and thresholds."""

from typing import Literal

CacheMode = Literal["full", "half", "vectors", "trunk", "off"]
"""Kept features.

full: vectors and patches in float32; half: patches in float16; vectors: no patches; trunk: nothing but the patches of a
frozen trunk, which all models on it share; off: no cache.
"""

FEATURES = "features"
"""Folder of all features within the cache folder, with one folder for each key."""

KEY_FILE = "key.json"
"""File that describes the key of a folder of features for a person."""

ROWS = "rows"
"""Key of the row names in the metadata of a shard."""
