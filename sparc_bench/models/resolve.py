"""Resolution of MODEL on the command line: its card, its weights and its encoder.

MODEL is a card's name, the path of a card (`.toml`), a run folder, or `family:weights`, where weights are a file, a
folder or a name that the family knows (`open_clip:ViT-B-32/openai`, `hf:google/siglip2-base-patch16-224`).
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.model_names import folder_name
from sparc_bench.cards.recipe import Recipe, read_model, training_settings
from sparc_bench.errors import UserError, nearest
from sparc_bench.two_towers import checkpoint
from sparc_bench.weights.pinned import checked_weights

if TYPE_CHECKING:  # a model that is not there is refused before torch is imported
    from sparc_bench.encoder import Encoder, Runtime

WEIGHTS_FILE = "model.safetensors"

PARTS_OF_A_NAME = 3
"""Last parts of a path that make a model's name: enough to tell runs apart (`NAME/checkpoints/epoch_1.pt`)."""

SPELLINGS = {"hf": "transformers"}
"""Short name on the command line -> encoder family."""

FILE_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".json", ".npy", ".npz", ".pkl", ".pt", ".pth", ".py", ".safetensors", ".tar", ".toml", ".zip"}
)
"""Suffixes by which a WEIGHTS argument is a file, not a name."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model with its weights, ready to load.

    Attributes:
        card: the model card (of a recipe: the card of the model that it trains).
        weights: file or folder of the weights; None where the family finds them by the card's options.
        seed: training seed; 0 for third-party checkpoints.
    """

    card: ModelCard
    weights: Path | None
    seed: int = 0


def resolve(model: str, run: Path | None = None, seed: int = 0, runs: Path = Path("runs")) -> ResolvedModel:
    """The card and weights of a model.

    The weights of a recipe come from `run` where one is named, else from the kept model (seed 0), else from the run
    under `runs/<recipe>/seed<seed>`.

    Raises:
        UserError: the model or its weights are unknown or missing, or the weights do not belong to the card.
    """
    family, colon, named = model.partition(":")
    families = discovery.names("encoders")
    family = family if family in families else SPELLINGS.get(family, family)
    if colon and family in families:
        if run is not None:
            raise UserError(f"{model} names its weights already: leave --run out.")
        return _resolve_family(family, named)
    path = Path(model)
    if path.is_dir():
        if run is not None:
            raise UserError(f"{model} is a run folder already: leave --run out.")
        return _resolve_run(path)
    if not model.endswith(".toml") and model not in discovery.names("models"):
        raise _unknown_model(model)
    card = read_model(path) if model.endswith(".toml") else discovery.model(model)
    folder = path.parent if model.endswith(".toml") else discovery.cards_folder("reference_models")
    if isinstance(card, Recipe):
        return _resolve_recipe(card, folder, run, seed, runs)
    if run is not None:
        raise UserError(f"{model} is no recipe, so that it has no runs: leave --run out.")
    return ResolvedModel(card, checked_weights(card.weights, folder, card.name) if card.weights else None)


def load_encoder(resolved: ResolvedModel, runtime: Runtime) -> Encoder:
    """The encoder of a resolved model, loaded by its family."""
    module = discovery.load("encoders", resolved.card.family)
    encoder = module.load(resolved.card, resolved.weights, runtime)
    code = discovery.plugin_code(resolved.card.family)
    if code is None:
        return cast("Encoder", encoder)
    from sparc_bench.models.plugin_encoder import checked_encoder

    return checked_encoder(encoder, resolved.card.family, code)


def _resolve_family(family: str, named: str) -> ResolvedModel:
    if not named:
        raise UserError(f"'{family}:' names no weights: write {family}:WEIGHTS.")
    path = Path(named).expanduser()
    if family == "own":
        return _resolve_run(path)
    if not path.exists() and _means_a_path(family, named):
        raise UserError(f"There is no file or folder {path}: check the path after '{family}:'.")
    options = {} if path.exists() else {"weights": named}
    title = _last_parts(path) if path.exists() else named
    name = folder_name(family, title)
    card = ModelCard(name=name, title=f"{family}:{title}", family=family, source="command line", options=options)
    weights = path if path.exists() else None
    _look_first(card, weights)
    return ResolvedModel(card, weights)


def _look_first(card: ModelCard, weights: Path | None) -> None:
    """Raise UserError for what is plainly wrong with a family's weights: its module `_look_FAMILY` takes no torch."""
    name = f"sparc_bench.encoders._look_{card.family}"
    if importlib.util.find_spec(name) is not None:
        importlib.import_module(name).refuse(card, weights)


def _last_parts(path: Path) -> str:
    """Last parts of a path, without those that differ between machines."""
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    return "/".join(parts[-PARTS_OF_A_NAME:]) or path.resolve().name


def _means_a_path(family: str, named: str) -> bool:
    """Whether a WEIGHTS argument can only be a path; a family with the option `weights` also takes names."""
    if not (named.startswith(("/", "./", "../", "~")) or Path(named).suffix in FILE_SUFFIXES):
        return False
    options = getattr(discovery.declared("encoders", family), "Options", None)
    return "weights" not in getattr(options, "model_fields", ())


def _unknown_model(model: str) -> UserError:
    """Error for a MODEL argument that names no model."""
    family, colon, _ = model.partition(":")
    families = sorted({*discovery.names("encoders"), *SPELLINGS})
    if colon:
        return UserError(f"There is no encoder family '{family}': {nearest(family, families)}")
    if Path(model).is_file():
        return UserError(f"'{model}' is a file: write FAMILY:{model} with one of {', '.join(families)}.")
    known = discovery.names("models")
    hint = _of_open_clip(model) or _of_the_hub(model) or nearest(model, known, "sparc-bench list models")
    return UserError(f"There is no model, run folder or encoder family for '{model}': {hint}")


def _of_open_clip(model: str) -> str:
    """MODEL to type for an architecture of open_clip, with or without a tag; empty for any other word."""
    from sparc_bench.weights import open_clip_names  # which imports open_clip

    found = open_clip_names.architecture(model)
    if found is None:
        return ""
    arch, tag = found
    weights = tag if open_clip_names.is_tag(arch, tag) else open_clip_names.named_weights(arch)
    return f"write open_clip:{arch}/{weights}."


def _of_the_hub(model: str) -> str:
    """MODEL to type for a word that may be OWNER/NAME; empty for any other word, and for a local folder."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or Path(model).parent.is_dir():
        return ""
    return f"write hf:{model} where that is a repository of huggingface.co, or check the path."


def _resolve_run(path: Path) -> ResolvedModel:
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise UserError(f"{path} holds no {WEIGHTS_FILE}: name a run folder whose training has finished.")
    meta = checkpoint.read_meta(file)
    return ResolvedModel(_run_card(meta.recipe, meta), file, meta.seed)


def _run_card(recipe: Recipe, meta: checkpoint.Meta) -> ModelCard:
    """Model card of a run; its `trained_on` includes that of the initial model."""
    return recipe.model_card().model_copy(update={"weights": None, "trained_on": meta.trained_on})


def _resolve_recipe(recipe: Recipe, folder: Path, run: Path | None, seed: int, runs: Path) -> ResolvedModel:
    if run is not None:
        found = _resolve_run(run)
        if found.card.name != recipe.name:
            raise UserError(f"The run {run} is of {found.card.name}, not of {recipe.name}: name {run} itself as MODEL.")
        return found
    if recipe.weights is not None and seed == 0:
        kept = checked_weights(recipe.weights, folder, recipe.name)
        trained_on = checkpoint.read_meta(kept).trained_on
        return ResolvedModel(recipe.model_card().model_copy(update={"trained_on": trained_on}), kept)
    file = runs / recipe.name / f"seed{seed}" / WEIGHTS_FILE
    if not file.is_file():
        flag = f" --seed {seed}" if seed else ""
        raise UserError(f"There is no trained {recipe.name} at {file}: run sparc-bench train {recipe.name}{flag}.")
    trained = checkpoint.read_meta(file)
    if training_settings(trained.recipe) != training_settings(recipe):
        raise UserError(
            f"{file} was trained by another version of {recipe.name}: delete {file.parent} and run sparc-bench train "
            f"{recipe.name}, or evaluate it as it is with sparc-bench eval {file.parent}."
        )
    return ResolvedModel(_run_card(recipe, trained), file, trained.seed)
