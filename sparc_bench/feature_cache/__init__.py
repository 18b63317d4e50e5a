"""Features of images and texts on disk: one pass over a data set serves every task, prompt set, threshold and k."""

from typing import Literal

Keep = Literal["full", "half", "vectors", "off"]
"""What is kept: vectors and patches in float32; patches in float16; vectors alone; nothing, and nothing is read."""

FEATURES = "features"
"""The folder of the features in the cache folder; a folder for each key lies in it."""

KEY_FILE = "key.json"
"""Says for a person what lies in a folder of features."""

ROWS = "rows"
"""The names of a shard's rows, in its metadata."""
