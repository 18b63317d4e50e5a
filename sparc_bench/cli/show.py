"""Text of `sparc-bench show NAME` for any card or module: title, source of its numbers, needs on disk.

Names are unique over all kinds, so that one word is enough.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import splits_for
from sparc_bench.cards.bounds import in_words
from sparc_bench.cards.card import Strict, read_toml
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe, read_model
from sparc_bench.cards.study_card import StudyCard, read_study
from sparc_bench.cards.task_card import TaskCard, read_task
from sparc_bench.cli.listing import KINDS, title_of
from sparc_bench.errors import UserError, nearest

_ONE = {kind: kind.removesuffix("s") for kind in KINDS} | {
    "datasets": "data set",
    "encoders": "encoder family",
    "studies": "study",
}


def show(name: str) -> RenderableType:
    """Text of `show` for the card or module of that name, or for the card at that path.

    Raises:
        UserError: nothing has that name; the sentence names the nearest.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if "recipes" in read_toml(path):
            return _study(read_study(path))
        card = read_task(path) if "protocol" in read_toml(path) else read_model(path)
        return _task(card) if isinstance(card, TaskCard) else _model(card)
    kind = kind_of(name)
    if kind == "tasks":
        return _task(discovery.task(name))
    if kind == "models":
        return _model(discovery.model(name))
    if kind == "studies":
        return _study(discovery.study(name))
    return _module(kind, name, discovery.declared(kind, name))


def kind_of(name: str) -> str:
    """Kind of the thing with that name; raises UserError with the nearest of all names."""
    known = {known: kind for kind in KINDS for known in discovery.names(kind)}
    if name not in known:
        where = f"sparc-bench list KIND ({', '.join(KINDS)})"
        raise UserError(f"There is no card or module '{name}': {nearest(name, known, where)}")
    return known[name]


def picture(name: str, out: Path) -> None:
    """Write the contact sheet of a data set that draws one (scenes1) to a PNG file.

    Raises:
        UserError: nothing to draw, another kind of file, no such folder.
    """
    module = discovery.load("datasets", name) if kind_of(name) == "datasets" else None
    if module is None or not hasattr(module, "contact_sheet"):
        raise UserError(f"There is no picture of '{name}': leave --out out, or show scenes1 --out {out}.")
    if out.suffix.lower() != ".png":
        raise UserError(f"The contact sheet is a PNG file, which '{out.name}' does not say: end --out in .png.")
    if not out.parent.is_dir():
        raise UserError(f"The folder {out.parent} does not exist: make it, or choose another --out.")
    module.contact_sheet(out)


def _task(card: TaskCard) -> RenderableType:
    needs = card.needs or discovery.needs_on_disk(card.dataset)
    protocol = discovery.declared("protocols", card.protocol)
    facts: dict[str, Any] = {
        "family": card.family,
        "suites": card.suites,
        "data": f"{card.dataset}, split {card.split}",
        "protocol": f"{card.protocol}, version {protocol.VERSION}: {title_of(protocol)}",
        "headline": card.headline,
        "beside it": card.reference_rows,
        "expected": card.expect,
        "chance": card.chance,
        "part only": "of the published benchmark: records are samples" if card.sample else None,
        "source": card.source,
        "on disk": needs or "nothing",
        "run it": f"sparc-bench eval MODEL --task {card.name}",
        **_outputs(card, protocol),
    }
    return Group(
        _heading("task", card.name, card.title),
        _facts(facts),
        *_values("options of the data set", card.data, discovery.declared("datasets", card.dataset)),
        *_values("options of the protocol", card.options, protocol),
    )


def _outputs(card: TaskCard, protocol: ModuleType) -> dict[str, Any]:
    """Formats in which another system's outputs are scored on a task, where its protocol takes any."""
    taken = getattr(protocol, "OUTPUTS", ())
    if not taken:
        return {"outputs": "taken of models alone"}
    from sparc_bench.outputs.reader import formats

    return {"or score outputs": f"sparc-bench score {card.name} FILE", "FILE": formats(taken)}


def _model(card: ModelCard | Recipe) -> RenderableType:
    return _recipe(card) if isinstance(card, Recipe) else _checkpoint(card)


def _checkpoint(card: ModelCard) -> RenderableType:
    facts: dict[str, Any] = {
        "family": card.family,
        "source": card.source,
        "trained on": card.trained_on or "unknown",
        **_weights(card),
        "options": card.options,
        "run it": f"sparc-bench eval {card.name} --suite SUITE",
    }
    numbers: list[RenderableType] = []
    if card.published:
        from sparc_bench.report.published import numbers_of

        numbers = [_subheading("published numbers, in percent (sparc-bench check --published)"), numbers_of(card)]
    return Group(_heading("model", card.name, card.title), _facts(facts), *numbers)


def _recipe(card: Recipe) -> RenderableType:
    facts: dict[str, Any] = {
        "source": card.source,
        "notes": card.notes,
        "attempts": f"{card.attempts} settings tried on val before these were fixed",
        "cost": card.cost,
        "reaches": card.reaches,
        **_weights(card),
        "on disk": discovery.needs_on_disk(card.data.dataset) or "nothing",
        "run it": f"sparc-bench train {card.name}",
    }
    objective = discovery.declared("objectives", card.objective)
    return Group(
        _heading("model", card.name, card.title),
        _facts(facts),
        _subheading("settings"),
        _settings(card),
        *_values("options of the objective", card.objective_options, objective),
    )


def _study(card: StudyCard) -> RenderableType:
    facts: dict[str, Any] = {
        "source": card.source,
        "notes": card.notes,
        "recipes": card.names,
        "trials": f"{card.trials} of each recipe, {card.trial_steps} steps",
        "chosen by": f"the mean of {', '.join(card.criterion)} on val",
        "second choice by": f"the mean of {', '.join(card.second_criterion)} on val" if card.second_criterion else "",
        "equal CPU time": f"{card.cpu_seconds:g} CPU seconds of steps" if card.cpu_seconds else "",
        "scored on val": card.validate,
        "compared with": card.compared_with,
        "seeds": {name: card.runs_of(name) for name in card.names},
        "tasks": card.tasks,
        "run it": f"sparc-bench study {card.name}",
    }
    boxes = {"drawn for every recipe alike": card.box}
    boxes |= {f"drawn for {recipe}": box for recipe, box in card.boxes.items()}
    boxes |= {f"{name} is {variant.base} with": variant.set for name, variant in card.variants.items()}
    shown = [part for title, box in boxes.items() if box for part in (_subheading(title), _facts(box))]
    return Group(_heading("study", card.name, card.title), _facts(facts), *shown)


_TOLD = {"name", "title", "source", "notes", "attempts", "cost", "reaches", "weights", "probe", "objective_options"}
"""Keys of a recipe that have a place of their own."""


def _settings(card: Recipe) -> Table:
    grid = _grid()
    for key, value, doc in _documented(card):
        if key not in _TOLD and not key.startswith("probe.") and value != {}:
            grid.add_row(key, _documented_value(value, doc))
    return grid


def _documented(values: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted key, value and doc of every setting in nested tables."""
    for key, field in type(values).model_fields.items():
        value = getattr(values, key)
        if isinstance(value, BaseModel):
            yield from _documented(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value, _doc(field)


def _kind(annotation: Any) -> str:  # noqa: ANN401 - any field's annotation
    """A type as it is written in code, without the bounds in it.

    >>> _kind(float | None), _kind(tuple[int, ...])
    ('float | None', 'tuple[int, ...]')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_kind, inner))
    if origin is not None and origin is not Literal:
        return f"{origin.__name__}[{', '.join(map(_kind, inner))}]"
    if annotation in (None, type(None), ...):
        return "..." if annotation is ... else "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _doc(field: FieldInfo) -> str:
    """Meaning of a setting, and its bounds where it is a number."""
    return "; ".join(part for part in (field.description or "", in_words(field)) if part)


def _documented_value(value: Any, doc: str) -> Text:  # noqa: ANN401 - anything that TOML holds
    return Text.assemble(_plain(value), (f"   {doc}" if doc else "", "dim"))


def _weights(card: ModelCard | Recipe) -> dict[str, Any]:
    if card.weights is None:
        return {"weights": "none kept here: train it first" if isinstance(card, Recipe) else None}
    source = f" of {card.weights.hub} on the hub" if card.weights.hub else ""
    pins = {"revision": card.weights.revision, "sha256": card.weights.sha256}
    said = ", ".join(f"{name} {value}" for name, value in pins.items() if value)
    return {"weights": f"{card.weights.file}{source} ({said})"}


def _module(kind: str, name: str, module: ModuleType) -> RenderableType:
    facts: dict[str, Any] = {"source": getattr(module, "SOURCE", None)}
    if kind == "datasets":
        to_train, to_watch = splits_for(module, "train"), splits_for(module, "val")
        facts |= {"splits": list(module.SPLITS), "to train on": to_train, "to watch": to_watch}
        facts["provides"] = sorted(module.PROVIDES)
        facts["on disk"] = discovery.needs_on_disk(name) or "nothing"
        facts["tasks"] = [task for task in discovery.names("tasks") if discovery.task(task).dataset == name]
    elif kind == "protocols":
        facts |= {
            "version": module.VERSION,
            "needs of a model": sorted(module.NEEDS),
            "needs of data": sorted(module.DATA),
            "takes outputs": sorted(getattr(module, "OUTPUTS", ())),
            "tasks": [task for task in discovery.names("tasks") if discovery.task(task).protocol == name],
        }
    else:
        attribute = "objective" if kind == "objectives" else "family"
        facts["models"] = [
            model for model in discovery.names("models") if getattr(discovery.model(model), attribute, None) == name
        ]
    options = _options_class(module)
    return Group(
        _heading(_ONE[kind], name, title_of(module)),
        _facts(facts),
        *(_schema(options) if options is not None and options.model_fields else ()),
        Text(""),
        Text(inspect.getdoc(module) or "", style="dim"),
    )


def _options_class(module: ModuleType) -> type[Strict] | None:
    found: type[Strict] | None = getattr(module, "Options", None) or getattr(
        getattr(module, "Objective", None), "Options", None
    )
    return found


def _schema(options: type[BaseModel]) -> tuple[Text, Table]:
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for column in ("option", "default", "what it means"):
        drawn.add_column(column, overflow="fold")
    for key, field in options.model_fields.items():
        default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
        shown = "must be given" if default is PydanticUndefined else _plain(default) or '""'
        drawn.add_row(key, shown, f"{_doc(field)} [{_kind(field.annotation)}]".strip())
    return _subheading("options"), drawn


def _values(heading: str, values: Mapping[str, Any], module: ModuleType) -> list[RenderableType]:
    """Options that a card sets, each with its description in the module."""
    if not values:
        return []
    options = _options_class(module)
    grid = _grid()
    for key, value in values.items():
        field = options.model_fields.get(key) if options is not None else None
        grid.add_row(key, _documented_value(value, "" if field is None else _doc(field)))
    return [_subheading(heading), grid]


def _heading(kind: str, name: str, title: str) -> Text:
    return Text.assemble((name, "bold"), f" ({kind})", f": {_plain(title)}" if title else "")


def _subheading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _facts(facts: Mapping[str, Any]) -> Table:
    grid = _grid()
    for key, value in facts.items():
        if value not in (None, "", (), [], {}):
            grid.add_row(key, _plain(value))
    return grid


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _plain(value: Any) -> str:  # noqa: ANN401 - anything that TOML or JSON holds
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(member)}" for key, member in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else " ".join(str(value).splitlines())
