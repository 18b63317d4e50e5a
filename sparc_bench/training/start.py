"""The model that a recipe starts from (`init`): its towers, its tokenizer, and those of its heads that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparc_bench.cards.card import parse
from sparc_bench.cards.model_card import UNKNOWN
from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError
from sparc_bench.models.resolve import ResolvedModel, resolve
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.architecture import OpenClipTowers, Start
from sparc_bench.two_towers.model import TrainStep
from sparc_bench.two_towers.open_clip_towers import from_open_clip, refuse_other_towers
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.weights import open_clip_model, open_clip_source
from sparc_bench.weights.weights_file import file_sha256

SET_BY_OPTION = {"log_scale": "temperature", "bias": "bias"}
"""Parameter of an objective -> the option that sets its first value: a recipe that names it wants that value."""


@dataclass(frozen=True)
class InitialModel:
    """A model to start from.

    Attributes:
        start: what the run's checkpoints keep of it.
        tokenizer: its own.
        words: word -> in how many captions of its trainings it stood; None where nobody knows.
        tensors: reads its weights, by the names of `TrainStep`.
    """

    start: Start
    tokenizer: Tokenizer
    words: Mapping[str, int] | None
    tensors: Callable[[], dict[str, Tensor]]


def initial_model(recipe: Recipe) -> InitialModel | None:
    """The model that a recipe names as its `init`; None where it names none.

    Raises:
        UserError: no such model, one of another family, or towers that are not two plain transformers.
    """
    if recipe.init is None:
        return None
    found = resolve(recipe.init)
    if found.card.family == "own":
        return _of_own(found)
    if found.card.family == "open_clip":
        return _of_open_clip(found)
    raise UserError(
        f"{recipe.name}: a training starts from a model of the family own or open_clip, and {recipe.init} is of "
        f"{found.card.family}: name another as init."
    )


def take(model: TrainStep, initial: InitialModel, recipe: Recipe) -> tuple[list[str], list[str]]:
    """Fill a new model with the weights that it starts from.

    All of the towers is taken, and those tensors of the objective that have the same name and shape; a temperature or
    bias that the recipe's objective_options name is not.

    Returns:
        The objective's tensors that were taken, and those that start anew.

    Raises:
        UserError: an objective that wants other towers than the model has.
    """
    own, given = model.state_dict(), initial.tensors()
    towers = {name for name in own if name.startswith("towers.")}
    odd = sorted(towers ^ {name for name in given if name.startswith("towers.")})
    odd = odd or [name for name in towers if own[name].shape != given[name].shape]
    if odd:
        raise UserError(
            f"{recipe.objective} wants other towers than {recipe.init} has (first difference: '{odd[0]}'): name a "
            "model that was trained with as many branches, or another objective."
        )
    named = {f"objective.{name}" for name, option in SET_BY_OPTION.items() if option in recipe.objective_options}
    heads = sorted(own.keys() - towers)
    taken = [name for name in heads if name not in named and name in given and given[name].shape == own[name].shape]
    model.load_state_dict(own | {name: given[name].to(own[name].dtype) for name in (*towers, *taken)})
    new = [name for name in heads if name not in taken]
    return [name.removeprefix("objective.") for name in taken], [name.removeprefix("objective.") for name in new]


def _of_own(found: ResolvedModel) -> InitialModel:
    if found.weights is None:
        raise UserError(f"There are no weights of {found.card.name}: run sparc-bench train {found.card.name}.")
    file = found.weights
    meta = checkpoint.read_meta(file)

    def tensors() -> dict[str, Tensor]:
        return checkpoint.of_model(checkpoint.read(file)[1])

    width = tensors().get("objective.g_v.weight", torch.empty(0)).shape[0]
    heads = {} if meta.start is None else meta.start.heads
    start = Start(
        model=found.card.name,
        weights_hash=file_sha256(file),
        trained_on=meta.trained_on,
        towers=meta.towers,
        heads={**heads, "dim": width} if width else heads,
    )
    return InitialModel(start, meta.towers.tokenizer(meta.tokenizer), meta.train_words or None, tensors)


def _of_open_clip(found: ResolvedModel) -> InitialModel:
    card = found.card
    options = parse(open_clip_source.Options, card.options, f"Model {card.name}: [options]")
    source = open_clip_source.find(options, found.weights, card.name)
    refuse_other_towers(source.name, source.model_cfg)
    vision = dict(source.model_cfg["vision_cfg"])
    vision |= {"image_size": options.size or vision.get("image_size", 224), "patch_dropout": 0.0}
    config = {**source.model_cfg, "vision_cfg": vision, "quick_gelu": source.quick_gelu}
    towers = OpenClipTowers(config=config, preprocess={**source.preprocess_cfg, "size": vision["image_size"]})
    start = Start(
        model=card.name,
        weights_hash=file_sha256(source.file),
        trained_on=card.trained_on_here or (UNKNOWN,),
        towers=towers,
        heads={"dim": config["embed_dim"], "image_head": "none"},
    )

    def tensors() -> dict[str, Tensor]:
        return from_open_clip(open_clip_model.build(source, options.size).state_dict())

    return InitialModel(start, towers.tokenizer(""), None, tensors)
