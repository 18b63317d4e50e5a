"""Names that open_clip has for architectures and their weights, however they are spelt, and commands that list them."""

from __future__ import annotations

import ast
import copy
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sparc_bench.errors import UserError, nearest

CONFIG = "open_clip_config.json"
"""File beside weights that names their architecture."""

NAMED = 3
"""Tags that a sentence names where there are more than it holds."""


def architecture(word: str) -> tuple[str, str] | None:
    """The architecture that a word begins with, as open_clip writes it, and what follows; None where it begins none.

    >>> architecture("vit-b-32"), architecture("ViT-B/32"), architecture("ViT-B-32/openai")
    (('ViT-B-32', ''), ('ViT-B-32', ''), ('ViT-B-32', 'openai'))
    """
    known = {_plain(name): name for name in architectures()}
    parts = word.split("/")
    for count in range(len(parts), 0, -1):
        name = known.get(_plain("-".join(parts[:count])))
        if name is not None:
            return name, "/".join(parts[count:])
    return None


def architectures() -> list[str]:
    """What `open_clip.list_models()` lists: the files of its package, which takes seconds to import.

    Where it is imported it is asked itself, for a plug-in can add to its list.
    """
    if "open_clip" in sys.modules:
        import open_clip

        return list(open_clip.list_models())
    return files()


def files() -> list[str]:
    """Architectures by the files of open_clip's package."""
    return sorted(file.stem for file in (_package() / "model_configs").glob("*.json"))


def tags_of(arch: str) -> list[str]:
    """What `open_clip.list_pretrained_tags_by_model(arch)` lists, without the import: see `tables`.

    >>> tags_of("ViT-L-14-336"), tags_of("coca_base")
    (['openai'], [])
    """
    if "open_clip" in sys.modules:
        import open_clip

        return list(open_clip.list_pretrained_tags_by_model(arch))
    return list(tables().get(arch, ()))


@cache
def tables() -> dict[str, dict[str, Any]]:
    """Architecture -> tag -> its settings: the statements of open_clip's module `pretrained` that make its table.

    Its imports, of torch among others, are left out: constants and `copy` are all that the table takes.
    """
    place: dict[str, Any] = {"copy": copy}
    for name in ("constants", "pretrained"):
        file = _package() / f"{name}.py"
        tree = ast.parse(file.read_bytes())
        kept = [each for each in tree.body if not isinstance(each, ast.Import | ast.ImportFrom | ast.Try)]
        functions = [each for each in kept if isinstance(each, ast.FunctionDef)]
        for function in functions:
            function.args = _without_annotations(function.args)
            function.returns = None
        exec(compile(ast.Module(kept, []), str(file), "exec", dont_inherit=True), place)
    return dict(place["_PRETRAINED"])


def _without_annotations(arguments: ast.arguments) -> ast.arguments:
    """A function's arguments without the types that they name."""
    for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        each.annotation = None
    return arguments


def _package() -> Path:
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def is_tag(arch: str, word: str) -> bool:
    """Whether open_clip lists weights of an architecture under a tag, which it takes in either spelling of a dash."""
    return word.lower().replace("-", "_") in tags_of(arch)


def named_weights(arch: str) -> str:
    """Tags of an architecture, or a few of them and the command that lists all.

    >>> named_weights("ViT-L-14-336"), named_weights("coca_base")
    ('TAG, which is openai', 'FILE, a file of weights: open_clip has no tag for it')
    """
    tags = tags_of(arch)
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


def split(word: str) -> tuple[str, str]:
    """The architecture and the tag or file of ARCHITECTURE/TAG; the architecture may contain a slash (ViT-B/32)."""
    parts = word.split("/")
    known = set(architectures())
    for count in range(len(parts), 0, -1):
        if "-".join(parts[:count]) in known:
            return "-".join(parts[:count]), "/".join(parts[count:])
    return parts[0], "/".join(parts[1:])


def refuse_unknown_architecture(arch: str) -> None:
    """Raise UserError with the nearest name for an architecture that open_clip does not have."""
    known = architectures()
    if arch not in known:
        raise UserError(f"open_clip has no architecture '{arch}': {nearest(arch, known, listed_by())}")


def unnamed_weights(arch: str, where: str) -> UserError:
    """Error for an architecture without a tag or file."""
    return UserError(f"{where}: {arch} is an architecture without weights: add /FILE or /{named_weights(arch)}.")


def named_file(arch: str, named: str) -> Path:
    """The file named after an architecture: a relative path, or an absolute one without its first slash.

    Raises:
        UserError: neither is there, and open_clip has no such tag.
    """
    for path in (Path(named).expanduser(), Path("/") / named):
        if path.exists():
            return path
    raise UserError(f"'{named}' is no tag of {arch} and no file: {nearest(named, tags_of(arch), listed_by(arch))}")


def refuse_without_configuration(weights: Path) -> None:
    """Raise UserError for a file or folder that has no configuration of open_clip with it."""
    folder = weights if weights.is_dir() else weights.parent
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{weights} does not name its architecture: write open_clip:ARCHITECTURE/{weights} or a card with "
            f'model = "ARCHITECTURE", or put open_clip\'s {CONFIG} beside it.'
        )
