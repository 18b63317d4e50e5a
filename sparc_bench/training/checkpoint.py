"""Checkpoints as safetensors, written atomically; a run resumes exactly and a model travels as one file.

A file holds the tensors of the model (`model.`), of AdamW (`exp_avg.`, `exp_avg_sq.`; only in a run's checkpoint) and,
as metadata, the recipe, the tokenizer and how often each word stood in the training captions.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sparc_bench.atomic import draft
from sparc_bench.cards import Recipe, parse
from sparc_bench.errors import UserError

FORMAT = "sparc-bench 1"


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says about itself."""

    recipe: Recipe
    seed: int
    step: int
    tokenizer: str
    train_words: Mapping[str, int]

    def to_strings(self) -> dict[str, str]:
        """Safetensors metadata: strings only."""
        return {
            "format": FORMAT,
            "recipe": self.recipe.model_dump_json(),
            "seed": str(self.seed),
            "step": str(self.step),
            "tokenizer": self.tokenizer,
            "train_words": json.dumps(self.train_words, sort_keys=True),
        }


def write_atomically(tensors: Mapping[str, Tensor], meta: Meta, file: Path) -> None:
    """Write a file whole or not at all; raises UserError on a full disk."""
    try:
        with draft(file) as path:
            save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, path, meta.to_strings())
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise UserError(
                f"{file} cannot be written, the disk is full: free space and run the command again."
            ) from None
        raise


def model_tensors(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """All parameters and persistent buffers under `model.`, on the CPU."""
    return {
        f"model.{name}": tensor.cpu() if dtype is None or not tensor.is_floating_point() else tensor.cpu().to(dtype)
        for name, tensor in model.state_dict().items()
    }


def save_training(file: Path, model: nn.Module, optimizer: torch.optim.AdamW, meta: Meta) -> None:
    """Model and optimiser state after `meta.step` steps."""
    tensors = model_tensors(model)
    for name, parameter in model.named_parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            if parameter in optimizer.state:
                tensors[f"{key}.{name}"] = optimizer.state[parameter][key].cpu()
    write_atomically(tensors, meta, file)


def load_training(file: Path, model: nn.Module, optimizer: torch.optim.AdamW) -> int:
    """Put a checkpoint back into model and optimiser; returns its step."""
    meta, tensors = read(file)
    load_model(file, model, tensors)
    for name, parameter in model.named_parameters():
        if f"exp_avg.{name}" in tensors:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(meta.step)),
                "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
            }
    return meta.step


def read(file: Path) -> tuple[Meta, dict[str, Tensor]]:
    """Metadata and tensors of one of our files.

    Raises:
        UserError: no such file, a damaged one, or one of somebody else's.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            strings = opened.metadata() or {}
            if strings.get("format") != FORMAT:
                raise UserError(
                    f"{file} is no checkpoint of sparc-bench: name a run folder, or a card of the family it belongs to."
                )
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise UserError(f"{file} does not exist: train first, or check the path.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): delete it and train or copy it again.") from None
    recipe = parse(Recipe, json.loads(strings["recipe"]), str(file))
    words = json.loads(strings["train_words"])
    return Meta(recipe, int(strings["seed"]), int(strings["step"]), strings["tokenizer"], words), tensors


def load_model(file: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy a file's tensors into a model; raises UserError where they do not fit it."""
    own = model.state_dict()
    given = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    odd = sorted(own.keys() ^ given.keys()) or [name for name in own if own[name].shape != given[name].shape]
    if odd:
        raise UserError(
            f"{file} holds another architecture (first difference: '{odd[0]}'): evaluate it by its run folder, or "
            "delete it to train this recipe anew."
        )
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in given.items()})
