"""From the word that a user typed for a model to its card, its weights and its encoder.

MODEL is a card's name, the path of a card (`.toml`), a run folder, or `family:weights`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sparc_bench import discover
from sparc_bench.cards import ModelCard, Recipe, Weights, read_model
from sparc_bench.errors import UserError, nearest
from sparc_bench.features import Encoder, Runtime
from sparc_bench.training import checkpoint
from sparc_bench.training.run import training_part

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class ResolvedModel:
    """A model that can be loaded.

    Attributes:
        card: its card (of a recipe: the card of the model that it trains).
        weights: its file of weights, None where the family finds them by the card's options.
        seed: that it was trained with (0 for a checkpoint of others).
    """

    card: ModelCard
    weights: Path | None
    seed: int = 0


def resolve(model: str, run: Path | None = None, seed: int = 0, runs: Path = Path("runs")) -> ResolvedModel:
    """Find a model.

    A recipe's weights are those of `run` where one is named; else the kept reference weights (seed 0); else the run
    under `runs/<recipe>/seed<seed>`.

    Raises:
        UserError: no such model, no weights, weights that do not belong to the card.
    """
    family, colon, named = model.partition(":")
    if colon and family in discover.names("encoders"):
        return _of_family(family, named)
    path = Path(model)
    if path.is_dir():
        if run is not None:
            raise UserError(f"{model} is a run folder already: leave --run out.")
        return _of_run(path)
    if not model.endswith(".toml") and model not in discover.names("models"):
        known = discover.names("models")
        raise UserError(f"There is no model, run folder or encoder family for '{model}': {nearest(model, known)}")
    card = read_model(path) if model.endswith(".toml") else discover.model(model)
    folder = path.parent if model.endswith(".toml") else discover.cards_folder("reference_models")
    if isinstance(card, Recipe):
        return _of_recipe(card, folder, run, seed, runs)
    if run is not None:
        raise UserError(f"{model} is no recipe, so that it has no runs: leave --run out.")
    return ResolvedModel(card, checked_weights(card.weights, folder, card.name) if card.weights else None)


def load_encoder(resolved: ResolvedModel, runtime: Runtime) -> Encoder:
    """The encoder of a resolved model, by its family."""
    module = discover.load("encoders", resolved.card.family)
    return cast("Encoder", module.load(resolved.card, resolved.weights, runtime))


def checked_weights(weights: Weights, folder: Path, name: str) -> Path:
    """The file of weights that a card names, its sha256 checked.

    Raises:
        UserError: missing, or another file than the card means.
    """
    path = folder / weights.file
    if not path.is_file():
        raise UserError(f"The weights {path} of {name} are missing: restore the file, or name a run with --run.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != weights.sha256:
        raise UserError(
            f"{path} has the sha256 {found[:12]}..., but the card of {name} says {weights.sha256[:12]}...: restore the "
            "file, or mend the card."
        )
    return path


def _of_family(family: str, named: str) -> ResolvedModel:
    if not named:
        raise UserError(f"'{family}:' names no weights: write {family}:WEIGHTS.")
    path = Path(named)
    if family == "own":
        return _of_run(path)
    slug = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{family}_{named}").strip("_.")
    options = {} if path.exists() else {"weights": named}
    card = ModelCard(name=slug, title=f"{family}:{named}", family=family, source="command line", options=options)
    return ResolvedModel(card, path if path.exists() else None)


def _of_run(path: Path) -> ResolvedModel:
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise UserError(f"{path} holds no {WEIGHTS_FILE}: name a run folder whose training has finished.")
    meta, _ = checkpoint.read(file)
    return ResolvedModel(meta.recipe.model_card().model_copy(update={"weights": None}), file, meta.seed)


def _of_recipe(recipe: Recipe, folder: Path, run: Path | None, seed: int, runs: Path) -> ResolvedModel:
    if run is not None:
        found = _of_run(run)
        if found.card.name != recipe.name:
            raise UserError(f"The run {run} is of {found.card.name}, not of {recipe.name}: name {run} itself as MODEL.")
        return found
    if recipe.weights is not None and seed == 0:
        return ResolvedModel(recipe.model_card(), checked_weights(recipe.weights, folder, recipe.name))
    file = runs / recipe.name / f"seed{seed}" / WEIGHTS_FILE
    if not file.is_file():
        flag = f" --seed {seed}" if seed else ""
        raise UserError(f"There is no trained {recipe.name} at {file}: run sparc-bench train {recipe.name}{flag}.")
    trained, _ = checkpoint.read(file)
    if training_part(trained.recipe) != training_part(recipe):
        raise UserError(
            f"{file} was trained by another version of {recipe.name}: delete {file.parent} and run sparc-bench train "
            f"{recipe.name}, or evaluate it as it is with sparc-bench eval {file.parent}."
        )
    return ResolvedModel(recipe.model_card().model_copy(update={"weights": None}), file, trained.seed)
