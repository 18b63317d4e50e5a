"""Models in one Python file of the user's: a factory that returns an encoder.

MODEL is `python:my_model.py` or `python:my_model.py:WEIGHTS`; a card names `file` in its [options]. The file has a
function `load(card, weights, runtime)` that returns a `sparc_bench.encoder.Encoder`, best derived from
`sparc_bench.encoder.ImageTextEncoder`. `weights` is the path of the weights, or None where WEIGHTS is no
path: then it is `card.options["weights"]`. All other options of the card are the file's own.

With `--plugin my_model.py`, or from an installed package with the entry point `sparc_bench.plugins`, the same file is a
family of its own name: `my_model:WEIGHTS`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import Encoder, Runtime
from sparc_bench.errors import UserError
from sparc_bench.models.plugin_encoder import checked_encoder

TITLE = "a model in a Python file of one's own, which is run: load(card, weights, runtime) returns an encoder"
SOURCE = "whoever wrote the file"

VERSION = 1
"""Of this file's arithmetic: one that moves a vector makes cached features stale."""


class Options(BaseModel):
    """What a card says; keys beyond these are the file's own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    file: str = Field(default="", description="the Python file, from where the command runs")
    weights: str = Field(default="", description="weights that the file reads: a path, or what else it takes")


def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> Encoder:
    """What the file's own `load` returns.

    Raises:
        UserError: no such file, one without `load`, or what `load` returns is no encoder.
    """
    file, card, weights = _parts(card, weights)
    module = discovery.add_plugin(file)
    if not hasattr(module, "load"):
        raise UserError(f"{file} has no function load: define load(card, weights, runtime), which returns an encoder.")
    return checked_encoder(module.load(card, weights, runtime), str(file), discovery.plugin_code(file.stem) or "")


def _parts(card: ModelCard, weights: Path | None) -> tuple[Path, ModelCard, Path | None]:
    """The Python file, the card as the file's own family would see it, and the weights."""
    options = dict(card.options)
    named = options.pop("file", None)
    if named is None:  # MODEL is all there is
        name, suffix, rest = str(weights or options.pop("weights", "")).partition(".py:")
        named, weights = f"{name}{suffix[:-1]}", None
        if rest:
            options["weights"] = rest
    if not named:
        raise UserError(f'The card of {card.name} names no Python file: add file = "my_model.py" to its [options].')
    path = Path(str(options.get("weights", ""))).expanduser()
    if weights is None and "weights" in options and path.exists():
        del options["weights"]
        weights = path
    return Path(str(named)).expanduser(), card.model_copy(update={"options": options}), weights
