from pathlib import Path

from tests.toys import tiny_open_clip

OTHER_OPTIONS = {"patches": "value"}


def tiny(folder: Path) -> str:
    return f"open_clip:{tiny_open_clip.folder(folder, 'vit')}"
