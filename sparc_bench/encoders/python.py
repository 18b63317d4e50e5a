"""Models in a Python file of the user, whose function `load` returns an encoder.

MODEL is `python:my_model.py` or `python:my_model.py:WEIGHTS`; a card names the file as `file` in its [options]. The
file has a function `load(card, weights, runtime)` that returns a `sparc_bench.encoder.Encoder`, best derived from
`sparc_bench.encoder.ImageTextEncoder`. `weights` is the path of the weights; where WEIGHTS is no path, it is None and
`card.options["weights"]` holds WEIGHTS. All other options of the card are passed on to the file.

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

TITLE = "a model in a Python file of your own, which is executed: load(card, weights, runtime) returns an encoder"
SOURCE = "the author of the file"

VERSION = 1
"""Version of this family's arithmetic; it grows with every change of a vector, so that cached features expire."""


class Options(BaseModel):
    """Options of a card of a Python file; further keys are passed on to the file."""

    model_config = ConfigDict(frozen=True, extra="allow")

    file: str = Field(default="", description="the Python file, relative to the working directory")
    weights: str = Field(default="", description="weights that the file loads: a path, or any name that it knows")


def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> Encoder:
    """The encoder that the file's own `load` returns.

    Raises:
        UserError: the file or its `load` is missing, or `load` returns no encoder.
    """
    file, card, weights = _parts(card, weights)
    module = discovery.add_plugin(file)
    if not hasattr(module, "load"):
        raise UserError(f"{file} has no function load: define load(card, weights, runtime), which returns an encoder.")
    return checked_encoder(module.load(card, weights, runtime), str(file), discovery.plugin_code(file.stem) or "")


def _parts(card: ModelCard, weights: Path | None) -> tuple[Path, ModelCard, Path | None]:
    """The Python file, the card with the file's own options, and the path of the weights."""
    options = dict(card.options)
    named = options.pop("file", None)
    if named is None:  # from the command line, without a card
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
