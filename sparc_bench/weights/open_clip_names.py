"""Names that open_clip has for architectures and their weights, however they are spelt, and commands that list them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

NAMED = 3
"""Tags that a sentence names where there are more than it holds."""


def architecture(word: str) -> tuple[str, str] | None:
    """The architecture that a word begins with, as open_clip writes it, and what follows; None where it begins none.

    >>> architecture("vit-b-32"), architecture("ViT-B/32"), architecture("ViT-B-32/openai")
    (('ViT-B-32', ''), ('ViT-B-32', ''), ('ViT-B-32', 'openai'))
    """
    known = {_plain(name): name for name in _architectures()}
    parts = word.split("/")
    for count in range(len(parts), 0, -1):
        name = known.get(_plain("-".join(parts[:count])))
        if name is not None:
            return name, "/".join(parts[count:])
    return None


def _architectures() -> list[str]:
    """What `open_clip.list_models()` lists: the files of its package, which takes seconds to import."""
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    return sorted(file.stem for file in (Path(found.origin).parent / "model_configs").glob("*.json"))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def is_tag(arch: str, word: str) -> bool:
    """Whether open_clip lists weights of an architecture under a tag."""
    import open_clip

    return word in open_clip.list_pretrained_tags_by_model(arch)


def named_weights(arch: str) -> str:
    """Tags of an architecture, or a few of them and the command that lists all.

    >>> named_weights("ViT-L-14-336"), named_weights("coca_base")
    ('TAG, which is openai', 'FILE, a file of weights: open_clip has no tag for it')
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not tags:
        return "FILE, a file of weights: open_clip has no tag for it"
    if len(tags) <= NAMED:
        return f"TAG, which is {_either(tags)}"
    return f"TAG, such as {_either(tags[:NAMED])}; list all {len(tags)} tags with {listed_by(arch)}"


def _either(names: list[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def listed_by(arch: str = "") -> str:
    """The command that lists the tags of an architecture, or all architectures."""
    call = f"list_pretrained_tags_by_model('{arch}')" if arch else "list_models()"
    return f'python -c "import open_clip; print(*open_clip.{call})"'
