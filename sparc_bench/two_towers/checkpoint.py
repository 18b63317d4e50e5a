"""Checkpoints as safetensors files, written atomically: a run resumes from one exactly, and a model is one file.

A file holds the tensors of the model (`model.`), those of AdamW (`exp_avg.`, `exp_avg_sq.`; only in a run's
checkpoint) and, as metadata, the recipe, the record of its initial model, the tokenizer and the number of training
captions that contain each word.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from sparc_bench.cards.bounds import Count
from sparc_bench.cards.card import parse
from sparc_bench.cards.model_card import UNKNOWN
from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError, quoted
from sparc_bench.files.json_text import json_value
from sparc_bench.two_towers.architecture import (
    InitRecord,
    OpenClipArchitecture,
    OwnArchitecture,
    TrunkRecord,
    architecture_of,
)
from sparc_bench.weights.configuration import refuse_absurd
from sparc_bench.weights.weights_file import read_tensor, refuse_odd_values, refuse_whole_numbers

if TYPE_CHECKING:  # a damaged file is refused before torch is imported
    import torch
    from torch import Tensor

    from sparc_bench.two_towers.model import TwoTowerModel

FORMAT = "sparc-bench 1"
EXPORTED = "sparc-bench plain 1"
"""Format of an exported model: float32 tensors under names that need no knowledge of this package."""

_COUNT: TypeAdapter[int] = TypeAdapter(Count)
_WORDS: TypeAdapter[dict[str, int]] = TypeAdapter(dict[str, Count])
_HASHES: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])

EXPORTED_NAMES = {
    "image.": "model.towers.image.trunk.",
    "text.": "model.towers.text.trunk.",
    "heads.": "model.objective.",
    "image_fixed.": "model.towers.image.",
}
"""Prefix of a tensor's name in an exported file -> prefix in a checkpoint; the library or the loss names the rest."""


@dataclass(frozen=True)
class Meta:
    """Metadata of a checkpoint.

    Attributes:
        recipe: recipe of the run.
        seed: seed of the run.
        step: training steps done.
        tokenizer: state of the tokenizer (see `Tokenizer.state`).
        train_words: word -> number of training captions that contain it.
        init_record: record of the initial model; None for a run from random weights.
        data: "train" and "val" -> hash of the run's images, captions and negatives; empty where unknown.
        trunk: the pretrained image trunk, whose tensors a checkpoint leaves out where it was frozen.
    """

    recipe: Recipe
    seed: int
    step: int
    tokenizer: str
    train_words: Mapping[str, int]
    init_record: InitRecord | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    trunk: TrunkRecord | None = None

    @property
    def architecture(self) -> OwnArchitecture | OpenClipArchitecture:
        """Configuration from which the towers are built."""
        return architecture_of(self.recipe, self.init_record)

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Data sets of the run and of its initial model, as dataset:split."""
        known = self.recipe.model_card().trained_on
        if self.init_record is None:
            return known
        return tuple(dict.fromkeys([*(entry for entry in known if entry != UNKNOWN), *self.init_record.trained_on]))

    def to_strings(self) -> dict[str, str]:
        """The metadata as the strings that safetensors can hold."""
        return {
            "format": FORMAT,
            "recipe": self.recipe.model_dump_json(),
            "seed": str(self.seed),
            "step": str(self.step),
            "tokenizer": self.tokenizer,
            "train_words": json.dumps(self.train_words, sort_keys=True),
            **({} if self.init_record is None else {"start": self.init_record.model_dump_json()}),
            **({"data": json.dumps(self.data, sort_keys=True)} if self.data else {}),
            **({} if self.trunk is None else {"trunk": self.trunk.model_dump_json()}),
        }


def write_checkpoint(tensors: Mapping[str, Tensor], meta: Meta, file: Path) -> None:
    """Write a checkpoint whole or not at all; raises UserError where the file system refuses."""
    from sparc_bench.files.tensor_file import write_tensors

    write_tensors(tensors, meta.to_strings(), file)


def model_tensors(model: TwoTowerModel) -> dict[str, Tensor]:
    """Parameters and persistent buffers, on the CPU, with `model.` before their names; a frozen trunk is left out."""
    return {f"model.{name}": tensor.cpu() for name, tensor in _own_state(model).items()}


def _own_state(model: TwoTowerModel) -> dict[str, Tensor]:
    elsewhere = model.kept_elsewhere
    return {name: x for name, x in model.state_dict().items() if elsewhere is None or not name.startswith(elsewhere)}


def save_training(file: Path, model: TwoTowerModel, optimizer: torch.optim.AdamW, meta: Meta) -> None:
    """Write model and optimiser state after `meta.step` steps."""
    tensors = model_tensors(model)
    for name, parameter in model.named_parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            if parameter in optimizer.state:
                tensors[f"{key}.{name}"] = optimizer.state[parameter][key].cpu()
    write_checkpoint(tensors, meta, file)


def load_training(file: Path, model: TwoTowerModel, optimizer: torch.optim.AdamW) -> int:
    """Load a checkpoint into model and optimiser; returns its step.

    Raises:
        UserError: the checkpoint holds another architecture, or values that are NaN or infinite.
    """
    import torch

    meta, tensors = read(file)
    for name, tensor in tensors.items():
        refuse_odd_values(file, name, tensor, f"nothing can go on from it; delete {file} to train anew.")
    load_model(file, model, meta, tensors)
    for name, parameter in model.named_parameters():
        if f"exp_avg.{name}" in tensors:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(meta.step)),
                "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
            }
    return meta.step


def read(file: Path) -> tuple[Meta, dict[str, Tensor]]:
    """Metadata and tensors of a checkpoint or an exported model.

    Raises:
        UserError: the file is missing, damaged, or was not written by this package.
    """
    with _opened(file, "pt") as opened:
        tensors = {name: read_tensor(file, opened, name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        is_exported = opened.metadata()["format"] == EXPORTED
        return _meta(file, opened), _renamed(tensors, EXPORTED_NAMES) if is_exported else tensors


def read_meta(file: Path) -> Meta:
    """Metadata of a checkpoint or an exported model; raises UserError as `read` does."""
    with _opened(file, "np") as opened:
        return _meta(file, opened)


@contextlib.contextmanager
def _opened(file: Path, framework: Literal["np", "pt"]) -> Iterator[Any]:
    try:
        with safe_open(file, framework=framework) as opened:
            if (opened.metadata() or {}).get("format") not in (FORMAT, EXPORTED):
                raise UserError(
                    f"{file} is no checkpoint of sparc-bench: name a run folder, or a card of the family it belongs to."
                )
            yield opened
    except (FileNotFoundError, PermissionError):  # safetensors calls a file missing that it may not read
        if file.is_file():
            raise UserError(f"{file} may not be read by this user: have its owner allow it (chmod a+r).") from None
        raise UserError(f"{file} does not exist: train first, or check the path.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): delete it and train or copy it again.") from None


def _meta(file: Path, opened: Any) -> Meta:  # noqa: ANN401 - safetensors has no types
    strings: dict[str, str] = opened.metadata()
    try:
        meta = Meta(
            recipe=parse(Recipe, json_value(strings["recipe"]), str(file)),
            seed=_COUNT.validate_python(strings["seed"]),
            step=_COUNT.validate_python(strings["step"]),
            tokenizer=strings["tokenizer"],
            train_words=_WORDS.validate_python(json_value(strings["train_words"])),
            init_record=parse(InitRecord, json_value(strings["start"]), str(file)) if "start" in strings else None,
            data=_HASHES.validate_python(json_value(strings.get("data", "{}"))),
            trunk=parse(TrunkRecord, json_value(strings["trunk"]), str(file)) if "trunk" in strings else None,
        )
    except KeyError as error:
        raise UserError(f"{file} lacks {error} in its metadata: copy it again, or train anew.") from None
    except (ValueError, TypeError):
        raise UserError(f"{file} has metadata that sparc-bench never writes: copy it again, or train anew.") from None
    refuse_absurd(meta.architecture.model_dump(), f"{file}, its towers", file)
    return meta


def write_exported(file: Path, meta: Meta, tensors: Mapping[str, Tensor]) -> None:
    """Write an exported model: float32 tensors under `EXPORTED_NAMES`, its architecture in the metadata."""
    import torch

    from sparc_bench.files.tensor_file import write_tensors

    ours = {checkpoint: exported for exported, checkpoint in EXPORTED_NAMES.items()}
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    single = {name: x.to(torch.float32) if x.is_floating_point() else x for name, x in _renamed(kept, ours).items()}
    write_tensors(
        single, {**meta.to_strings(), "format": EXPORTED, "towers": meta.architecture.model_dump_json()}, file
    )


def _renamed(tensors: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        old = next((each for each in prefixes if name.startswith(each)), None)
        if old is not None:
            found[prefixes[old] + name.removeprefix(old)] = tensor
    return found


def model_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `TwoTowerModel`, from the tensors of a checkpoint."""
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}


def refuse_other_trunk(name: str, trunk: TrunkRecord | None, model: TwoTowerModel) -> None:
    """Raise UserError where the model's pretrained trunk has other weights than the one that `name` was trained on."""
    source = model.towers.source
    if trunk is not None and source is not None and trunk.sha256 != source.sha256:
        raise UserError(
            f"{name} was trained on the image trunk {trunk.name} (sha256 {trunk.sha256[:12]}...), and {source.file} "
            f"has the sha256 {source.sha256[:12]}...: install or copy that version of the trunk."
        )


def load_model(file: Path, model: TwoTowerModel, meta: Meta, tensors: Mapping[str, Tensor]) -> None:
    """Load a checkpoint's tensors into a model; raises UserError where names, shapes or the trunk's weights differ."""
    refuse_other_trunk(str(file), meta.trunk, model)
    given = model_state(tensors)
    whole = model.kept_elsewhere is None or any(name.startswith(model.kept_elsewhere) for name in given)
    own = model.state_dict() if whole else _own_state(model)
    odd = sorted(own.keys() ^ given.keys()) or [name for name in own if own[name].shape != given[name].shape]
    if odd:
        raise UserError(
            f"{file} holds another architecture (first difference: {quoted(odd[0])}): evaluate it by its run folder, "
            "or delete it to train this recipe anew."
        )
    refuse_whole_numbers(file, own, given)
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in given.items()}, strict=whole)
