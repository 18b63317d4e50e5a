"""The commands that pages tell their readers to type: which a test can run, and whether the others are right."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer.main

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cli.align import told_apart
from sparc_bench.cli.app import app
from sparc_bench.cli.listing import KINDS, suites
from sparc_bench.cli.mistakes import UsageError
from sparc_bench.errors import UserError
from tests.docs.pages import ROOT, Block

PLACEHOLDER = re.compile(r"\b[A-Z][A-Z0-9_]+\b")
"""Words that stand for something of the reader's: DATA, MODEL, FILE."""

LONG = {
    "train": "trains for a minute or more",
    "quickstart": "trains for minutes",
    "study": "trains for hours",
    "cost": "measures for minutes",
    "check": "looks at every card and record, as tests/contract does",
}

NAMES = {"models": "model", "model": "model", "recipe": "model", "run": "model", "a": "record", "b": "record"} | {
    name: name for name in ("task", "suite", "kind", "objectives")
}
"""Parameter of a command -> what it names."""


@dataclass(frozen=True)
class Shown:
    """A command line of a page, and what the page says that it prints (None: nothing is shown)."""

    line: str
    place: int
    output: str | None = None

    @property
    def words(self) -> list[str]:
        """The arguments of sparc-bench, also where another program starts it; [] for another program's line."""
        words = shlex.split(self.line, comments=True)
        if words[:1] == ["sparc-bench"]:
            return words[1:]
        return words[words.index("sparc_bench") + 1 :] if "sparc_bench" in words else []


def shown(block: Block) -> Iterator[Shown]:
    """The commands of a `sh` block (one a line), or of a `console` block (after `$`, each followed by its output)."""
    text = block.text.replace("\\\n", " ")
    if block.language == "sh":
        for line in text.splitlines():
            if line.strip() and not line.startswith("#"):
                yield Shown(line, block.line)
    if block.language == "console":
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield Shown(line, block.line, output.strip() and output)


def parsed(words: list[str]) -> tuple[str, Any]:
    """The command's name and its parameters, as the command line itself reads them."""
    group, name = typer.main.get_command(app), words[0]
    command = group.commands[name]
    rest = words[1:]
    if hasattr(command, "commands"):
        command, name, rest = command.commands[rest[0]], f"{name} {rest[0]}", rest[1:]
    return name, command.make_context(name, list(rest))


def why_not_run(words: list[str], folder: Path) -> str:
    """Why a command is only read here, or "" where it can be run in the folder."""
    if PLACEHOLDER.search(" ".join(words)):
        return "a placeholder stands for something of the reader's"
    name, context = parsed(words)
    if name in LONG:
        return LONG[name]
    for parameter, value in named_values(context):
        if parameter == "task" and not value.endswith(".toml"):
            card = discovery.task(value)
            if discovery.load("datasets", card.dataset).NEEDS_ON_DISK:
                return f"{value} needs data from elsewhere"
        if parameter == "model" and not weights_here(value, folder, plugins_of(context)):
            return f"the weights of {value} are not here"
        if parameter == "suite" and any(
            discovery.load("datasets", card.dataset).NEEDS_ON_DISK for card in discovery.suite(value)
        ):
            return f"the suite {value} needs data from elsewhere"
    return ""


def named_values(context: Any) -> Iterator[tuple[str, str]]:
    """What the parameters of a command name, one by one: (kind, name)."""
    of_name = {"study": "study", "show": "anything", "data check": "catalogue"}
    kinds = NAMES | {"name": of_name.get(str(context.info_name), "")}
    if context.info_name == "align":
        yield from (("model", model) for model in told_apart(context.params["words"])[0])
    for parameter, value in context.params.items():
        for each in value if isinstance(value, tuple | list) else [value]:
            if each is not None and kinds.get(parameter):
                yield kinds[parameter], str(each)


def plugins_of(context: Any) -> list[str]:
    """Names of the plug-ins that a command brings in."""
    return [path.stem for path in context.params.get("plugin") or ()]


def weights_here(model: str, folder: Path, plugins: list[str]) -> bool:
    """Whether a model can be loaded without network and without training first."""
    family, colon, named = model.partition(":")
    if colon:
        return family in ("python", "precomputed", *plugins) and (folder / named).exists()
    if (folder / model).exists():
        return True
    card = discovery.model(model) if model in discovery.names("models") else None
    return isinstance(card, Recipe) and card.weights is not None


def refuse_wrong_words(words: list[str], folder: Path) -> None:
    """Raise where a command, an option or a name does not exist; placeholders may stand for any name."""
    name, context = parsed(words)
    for kind, value in named_values(context):
        if PLACEHOLDER.search(value) or (folder / value).exists() or value.startswith("runs/"):
            continue
        if kind == "model" and value.partition(":")[0] in plugins_of(context):
            continue
        assert exists(kind, value), f"sparc-bench {name}: there is no {kind} '{value}'"


def exists(kind: str, value: str) -> bool:
    """Whether there is a thing of a kind with that name."""
    if kind == "model":
        family = value.partition(":")[0] if ":" in value else ""
        return family in {*discovery.names("encoders"), "hf"} if family else value in discovery.names("models")
    if kind == "record":
        return (ROOT / "results" / value).is_dir()
    if kind == "suite":
        return value in suites()
    if kind == "kind":
        return value in KINDS
    if kind == "objectives":
        return value == "all" or {*value.split(",")} <= {*discovery.names("objectives")}
    if kind == "catalogue":
        return (ROOT / "tasks" / "data" / f"{value}.toml").is_file()
    if kind == "anything":
        return any(exists(of, value) for of in ("model", "task", "study", "catalogue")) or any(
            value in discovery.names(of) for of in discovery.KINDS
        )
    return value in discovery.names({"task": "tasks", "study": "studies"}[kind])


def refuse_wrong_line(line: str) -> None:
    """Raise where a line of another program names what this project does not have."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]  # NAME=VALUE sets a variable
        assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets), line
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.findall(r"\[(.*?)\]", line)
        assert all({*each.split(",")} <= extras.keys() for each in named), line
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]) is not None, line
        source = Path(str(find_spec(words[2]).origin)).read_text(encoding="utf-8")
        options = [word.removeprefix("--").replace("-", "_") for word in words[3:] if word.startswith("--")]
        assert all(f"{option}: Annotated" in source for option in options), line
    else:
        raise AssertionError(f"no test knows how to read '{line}': write another block, or teach tests/docs")


def is_mistake(words: list[str], folder: Path) -> bool:
    """Whether the line is an example of a mistake, which ends at once."""
    try:
        refuse_wrong_words(words, folder)
    except (AssertionError, UserError, KeyError, UsageError):
        return True
    return False
