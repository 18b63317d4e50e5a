"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sparc_bench import distributed
from sparc_bench.cards.recipe import Optim, Recipe
from sparc_bench.errors import UserError
from sparc_bench.objective import Ctx
from sparc_bench.stop_signals import StopRequest, raise_stopped
from sparc_bench.training.loading import LoadedBatch
from sparc_bench.two_towers.model import TwoTowerModel
from sparc_bench.two_towers.towers import no_weight_decay


class NotFiniteError(UserError):
    """A loss, gradient or weight is NaN or infinite."""


@dataclass(frozen=True)
class StepReport:
    """Report of a training step.

    Attributes:
        step: number of the step, from 1.
        figures: the objective's figures, the learning rate, images per second.
        unreadable: ids of images that could not be read.
    """

    step: int
    figures: dict[str, float]
    unreadable: tuple[str, ...]


def make_optimizer(model: torch.nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW over the parameters that learn, with weight decay on matrices only; `peak`: peak rate of a group."""
    own = {"towers.image.": optim.image_lr, "towers.text.": optim.text_lr}
    peaks = {tower: rate for tower, rate in own.items() if rate is not None}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            peak = next((rate for tower, rate in peaks.items() if name.startswith(tower)), optim.lr)
            decay = 0.0 if no_weight_decay(name, parameter) else optim.weight_decay
            groups.setdefault((peak, decay), []).append(parameter)
    tables = [
        {"params": parameters, "weight_decay": decay, "peak": peak} for (peak, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(tables, lr=optim.lr, betas=optim.betas, eps=optim.eps)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate of a step (from 0): linear from 0 to the peak over the warm-up, then a cosine to 0.

    >>> learning_rate(0, 10, peak=1.0, warmup=2)
    0.5
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    model: TwoTowerModel | DistributedDataParallel,
    optimizer: torch.optim.AdamW,
    recipe: Recipe,
    batches: Iterable[LoadedBatch],
    start: int,
    device: torch.device,
    autocast: bool,
    on_step: Callable[[StepReport], None],
    on_checkpoint: Callable[[int], None],
    on_evaluation: Callable[[int], None],
    stop: StopRequest,
) -> None:
    """Train from step `start` to the recipe's last.

    `on_evaluation` runs every `eval_every` steps and at the end; `on_checkpoint` runs before it, every
    `checkpoint_every` steps, and after the step in which a signal came to one of the processes.

    Raises:
        StoppedError: a signal came; the checkpoint of that step is written.
        NotFiniteError: the loss or a gradient is NaN or infinite; the sentence names the step, and the loss's parts or
            the parameter. The weights are still those of the step before.
    """
    model.train()
    for step, loaded in enumerate(batches, start):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, group["peak"], recipe.optim.warmup)
        optimizer.zero_grad(set_to_none=True)
        figures = forward_backward(model, loaded, device, autocast)
        # a signal reaches the processes in different steps: all of them stop where the first of them has noted it
        noted = torch.full_like(figures["loss"], float(stop.number > 0))
        figures = distributed.mean_over_ranks(figures | {"stop": noted})
        stopped = float(figures.pop("stop")) > 0
        values = {name: float(value) for name, value in figures.items()}
        if not math.isfinite(values["loss"]):
            parts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            raise NotFiniteError(f"The loss is not finite at step {step + 1} ({parts})")
        norm = clip_gradients(unwrapped(model), recipe.optim.clip, step + 1)
        if recipe.optim.clip is not None:
            values["gradient_norm"] = norm
        optimizer.step()
        unwrapped(model).objective.after_step(step)
        seconds = time.perf_counter() - began
        rate = learning_rate(step, recipe.steps, recipe.optim.lr, recipe.optim.warmup)
        values |= {"learning_rate": rate, "images_per_second": sum(loaded.counts) / seconds}
        on_step(StepReport(step + 1, values, loaded.unreadable))
        evaluates = is_evaluated(step + 1, recipe)
        stopped |= stop.number > 0 and not distributed.several()
        if evaluates or stopped or (step + 1) % (recipe.checkpoint_every or recipe.eval_every) == 0:
            on_checkpoint(step + 1)
        if stopped:
            raise_stopped(distributed.largest_of_ranks(stop.number, device))
        if evaluates:
            model.eval()
            on_evaluation(step + 1)
            model.train()


def is_evaluated(step: int, recipe: Recipe) -> bool:
    """Whether the model is evaluated on val after a step (from 1)."""
    return step > 0 and (step % recipe.eval_every == 0 or step == recipe.steps)


def clip_gradients(model: torch.nn.Module, largest: float | None, step: int) -> float:
    """Scale the gradients down to the norm `largest` (None: leave them) and return the norm that they had.

    Raises:
        NotFiniteError: the norm is NaN or infinite; the gradients stay as they are.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    limit = math.inf if largest is None else largest
    try:
        # this reads each gradient once; without a limit it multiplies them by 1, which changes none
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit, error_if_nonfinite=True))
    except RuntimeError:
        odd = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ]
        if odd:
            of = f" of {odd[0]}" + (f" and {len(odd) - 1} other parameters" if len(odd) > 1 else "")
            raise NotFiniteError(f"The gradient{of} is not finite at step {step}") from None
        raise NotFiniteError(f"The norm of the gradients is not finite at step {step}") from None


def refuse_not_finite(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Raise NotFiniteError for a weight or a state of the optimiser that is NaN or infinite after a step."""
    for name, parameter in model.named_parameters():
        tensors = [parameter, *(value for value in optimizer.state.get(parameter, {}).values())]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise NotFiniteError(f"The parameter {name} or its state in the optimiser is not finite at step {step}")
    for name, buffer in model.named_buffers():
        if buffer.isnan().any():  # an attention mask holds -inf
            raise NotFiniteError(f"The buffer {name} is not finite at step {step}")


def unwrapped(model: TwoTowerModel | DistributedDataParallel) -> TwoTowerModel:
    """The model without its data-parallel wrapper."""
    return cast("TwoTowerModel", model.module) if isinstance(model, DistributedDataParallel) else model


def forward_backward(
    model: TwoTowerModel | DistributedDataParallel, loaded: LoadedBatch, device: torch.device, autocast: bool
) -> dict[str, Tensor]:
    """Compute loss and gradients of a batch; returns the detached figures. Only a wrapped model uses other ranks."""
    extra = {name: value.to(device) for name, value in loaded.batch.extra.items()}
    alone = not isinstance(model, DistributedDataParallel)
    rank, world = (0, 1) if alone else distributed.rank_and_world()
    ctx = Ctx(
        rank=rank,
        world=world,
        counts=loaded.counts,
        generator=torch.Generator().manual_seed(loaded.draw_seed),
        extra=extra,
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        figures = model(loaded.inputs.to(device), loaded.batch.tokens.to(device), ctx)
    figures["loss"].backward()
    logged = {"known_true_share": extra["known_true_share"]} if "known_true_share" in extra else {}
    return {name: value.detach() for name, value in figures.items()} | logged
