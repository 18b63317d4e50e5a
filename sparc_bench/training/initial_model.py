"""The initial model of a run (`init` in the recipe): its towers, its tokenizer and the heads that fit the objective."""

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
from sparc_bench.two_towers.architecture import InitRecord, OpenClipArchitecture, TrunkRecord
from sparc_bench.two_towers.model import TRUNK, TwoTowerModel
from sparc_bench.two_towers.open_clip_towers import from_open_clip, refuse_other_towers
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.weights import open_clip_model, open_clip_source
from sparc_bench.weights.weights_file import file_sha256, refuse_odd_values

SET_BY_OPTION = {"log_scale": "temperature", "log_fine_scale": "fine_start_temperature", "bias": "bias"}
"""Parameter of an objective -> option that sets its initial value; a recipe with that option keeps its value."""


@dataclass(frozen=True)
class InitialModel:
    """The initial model of a run.

    Attributes:
        init_record: record of the model for the run's checkpoints.
        tokenizer: the model's tokenizer.
        words: word -> number of its training captions that contain it; None where they are unknown.
        tensors: function that reads its weights, as a state dict of `TwoTowerModel`.
        trunk: the pretrained image trunk that it was trained on, if any.
    """

    init_record: InitRecord
    tokenizer: Tokenizer
    words: Mapping[str, int] | None
    tensors: Callable[[], dict[str, Tensor]]
    trunk: TrunkRecord | None = None


def initial_model(recipe: Recipe) -> InitialModel | None:
    """The model that a recipe names as `init`, or None.

    Raises:
        UserError: the model does not exist, or is of a family or architecture that cannot be trained here.
    """
    if recipe.init is None:
        return None
    found = resolve(recipe.init)
    if found.card.family == "own":
        return _own_model(found)
    if found.card.family == "open_clip":
        return _open_clip_model(found)
    raise UserError(
        f"{recipe.name}: a training starts from a model of the family own or open_clip, and {recipe.init} is of "
        f"{found.card.family}: name another as init."
    )


def load_initial_weights(model: TwoTowerModel, initial: InitialModel, recipe: Recipe) -> tuple[list[str], list[str]]:
    """Load the initial model's weights into a new model.

    Both towers are loaded whole. Tensors of the objective are loaded where name and shape agree, except a temperature
    or bias that the recipe's objective_options set.

    Returns:
        Names of the objective's tensors that were loaded, and of those that keep their random values.

    Raises:
        UserError: the objective needs other towers than the initial model has.
    """
    checkpoint.refuse_other_trunk(str(recipe.init), initial.trunk, model)
    own, given = model.state_dict(), initial.tensors()
    towers = {name for name in own if name.startswith("towers.")}
    if not any(name.startswith(TRUNK) for name in given) and model.towers.source is not None:
        towers = {name for name in towers if not name.startswith(TRUNK)}  # the pretrained ones are loaded already
    odd = sorted(towers ^ {name for name in given if name.startswith("towers.")})
    odd = odd or [name for name in towers if own[name].shape != given[name].shape]
    if odd:
        raise UserError(
            f"{recipe.objective} wants other towers than {recipe.init} has (first difference: '{odd[0]}'): name a "
            "model that was trained with as many branches, or another objective."
        )
    named = {f"objective.{name}" for name, option in SET_BY_OPTION.items() if option in recipe.objective_options}
    heads = sorted(name for name in own if not name.startswith("towers."))
    loaded = [name for name in heads if name not in named and name in given and given[name].shape == own[name].shape]
    model.load_state_dict(own | {name: given[name].to(own[name].dtype) for name in (*towers, *loaded)})
    new = [name for name in heads if name not in loaded]
    return [name.removeprefix("objective.") for name in loaded], [name.removeprefix("objective.") for name in new]


def _own_model(found: ResolvedModel) -> InitialModel:
    if found.weights is None:
        raise UserError(f"There are no weights of {found.card.name}: run sparc-bench train {found.card.name}.")
    file = found.weights
    meta = checkpoint.read_meta(file)

    def tensors() -> dict[str, Tensor]:
        given = checkpoint.model_state(checkpoint.read(file)[1])
        for name, tensor in given.items():
            refuse_odd_values(file, name, tensor)
        return given

    width = tensors().get("objective.g_v.weight", torch.empty(0)).shape[0]
    heads = {} if meta.init_record is None else meta.init_record.heads
    init_record = InitRecord(
        model=found.card.name,
        weights_hash=file_sha256(file),
        trained_on=meta.trained_on,
        towers=meta.architecture,
        heads={**heads, "dim": width} if width else heads,
    )
    tokenizer = meta.architecture.tokenizer(meta.tokenizer)
    return InitialModel(init_record, tokenizer, meta.train_words or None, tensors, meta.trunk)


def _open_clip_model(found: ResolvedModel) -> InitialModel:
    card = found.card
    options = parse(open_clip_source.Options, card.options, f"Model {card.name}: [options]")
    source = open_clip_source.find(options, found.weights, card.name)
    refuse_other_towers(source.name, source.model_cfg)
    vision = dict(source.model_cfg["vision_cfg"])
    vision |= {"image_size": options.size or vision.get("image_size", 224), "patch_dropout": 0.0}
    config = {**source.model_cfg, "vision_cfg": vision, "quick_gelu": source.quick_gelu}
    towers = OpenClipArchitecture(config=config, preprocess={**source.preprocess_cfg, "size": vision["image_size"]})
    init_record = InitRecord(
        model=card.name,
        weights_hash=file_sha256(source.file),
        trained_on=card.trained_on_here or (UNKNOWN,),
        towers=towers,
        heads={"dim": config["embed_dim"], "image_head": "none"},
    )

    def tensors() -> dict[str, Tensor]:
        return from_open_clip(open_clip_model.build(source, options.size).state_dict())

    return InitialModel(init_record, towers.tokenizer(""), None, tensors)
