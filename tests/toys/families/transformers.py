from pathlib import Path

LIBRARY = "transformers"
OTHER_OPTIONS = {"patches": "value"}


def tiny(folder: Path) -> str:
    from tests.toys import tiny_transformers

    return f"transformers:{tiny_transformers.clip(folder)}"
