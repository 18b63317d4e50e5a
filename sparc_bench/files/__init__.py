"""Files on disk: atomic writes, the cache folder, annotation files and their validation."""
