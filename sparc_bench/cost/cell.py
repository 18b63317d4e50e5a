"""One cell of the cost table: time and memory of a training step of one objective at one batch size.

The step is that of the training loop (forward, backward, AdamW, `after_step`), on random pixels and on captions that
fill the context (BOS, words, EOS, no padding).

Shapes: B batch, K texts per image, L text tokens, P patches, M pooled vectors per image, W tower width.
"""

from __future__ import annotations

import dataclasses
import functools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from sparc_bench.cards import discovery
from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.cards.recipe import Optim, Recipe, TextTowerTable, TrainData
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError, nearest
from sparc_bench.images.item import ImageItem, open_image_file
from sparc_bench.objective import ImageOut, Objective, TextOut, Tokens
from sparc_bench.training.loading import LoadedBatch
from sparc_bench.training.loop import forward_backward, make_optimizer
from sparc_bench.two_towers.model import TwoTowerModel, build_model, objective_and_options
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.two_towers.towers import RecipeImageTower

VOCABULARY = 32_000
"""Vocabulary size of the paper's text tower (arXiv 2401.09865, section 4.1)."""

TEXT_LAYERS = 12

HEAD_WIDTH = 64
"""Width of a head of the text tower, as in timm's vision transformers Ti to L (width 192: 3 heads, 768: 12)."""

RUNS = {"cpu": (1, 1), "cuda": (3, 5)}
"""Kind of device -> number of warm-up steps (one creates AdamW's state), number of measured steps (for the median)."""

MB = 1e6


@dataclass(frozen=True)
class Cell:
    """One measurement: an objective with its default options, a batch size, an image tower, a device."""

    objective: str
    batch: int
    model: str
    device: str
    plugins: tuple[Path, ...] = ()

    @property
    def autocast(self) -> bool:
        """Whether the towers run in bf16: on a GPU."""
        return torch.device(self.device).type == "cuda"

    @property
    def precision(self) -> str:
        """The precision as written in the table."""
        return "bf16" if self.autocast else "float32"


@dataclass(frozen=True)
class StepCost:
    """Time and memory of one run, of whole steps or of the objective's forward and backward pass alone.

    Attributes:
        seconds: median over the measured steps.
        peak_bytes: peak memory, since the start of the process (CPU: resident) or within a step (GPU: allocated).
        before_bytes: memory before the first step.
        parameters: number of parameters of the model.
    """

    seconds: float
    peak_bytes: int
    before_bytes: int
    parameters: int


@dataclass(frozen=True)
class TowerCards:
    """The recipe tables of both towers, and the rows and columns of the patch grid."""

    image: ImageTowerTable
    text: TextTowerTable
    grid: tuple[int, int]


@functools.cache
def towers_of(model: str) -> TowerCards:
    """The image tower at timm's own size, and a text tower of the same width: 12 layers, heads 64 wide, context 55.

    Raises:
        UserError: timm does not know the model, or it is no vision transformer.
    """
    if not timm.is_model(model):
        known = timm.list_models("vit_*_patch*")
        where = "python -c \"import timm; print(*timm.list_models('vit_*_patch*'))\""
        raise UserError(f"timm has no model '{model}': {nearest(model, known, where)}")
    config = timm.get_pretrained_cfg(model)
    image = ImageTowerTable(model=model, size=224 if config is None else config.input_size[-1])
    with torch.device("meta"):
        trunk = RecipeImageTower(image)
    heads = next(heads for heads in range(max(1, trunk.width // HEAD_WIDTH), 0, -1) if trunk.width % heads == 0)
    return TowerCards(image, TextTowerTable(width=trunk.width, depth=TEXT_LAYERS, heads=heads), trunk.grid)


def recipe_of(cell: Cell) -> Recipe:
    """The recipe of a cell, from which its model is built as in training."""
    for plugin in cell.plugins:
        if plugin.stem not in discovery.names("objectives"):  # not yet loaded in a fresh process
            discovery.add_plugin(plugin)
    towers = towers_of(cell.model)
    return Recipe(
        name="step",
        title="a measured step",
        source="random pixels and captions",
        objective=cell.objective,
        data=TrainData(dataset="random"),
        image=towers.image,
        text=towers.text,
        optim=Optim(warmup=0),
        batch_size=cell.batch,
        steps=1,
        eval_every=1,
    )


class FullContext(Tokenizer):
    """A tokenizer that turns any text into ids that fill the context: BOS, random words, EOS."""

    def __init__(self, context: int) -> None:
        self.context, self.vocabulary, self.pad_id = context, VOCABULARY, 0
        self.state = ""

    def __call__(self, captions: Sequence[Sequence[str]], full_context: bool = False) -> Tokens:  # noqa: ARG002
        """Token ids BKL with L = context."""
        shape = (len(captions), len(captions[0]), self.context)
        ids_BKL = torch.randint(1, self.vocabulary, shape, generator=torch.Generator().manual_seed(0))
        special_BKL = torch.zeros(shape, dtype=torch.bool)
        special_BKL[..., 0] = special_BKL[..., -1] = True
        return Tokens(ids_BKL, ~special_BKL, special_BKL)


def random_batch(objective: Objective, recipe: Recipe, size: int | None = None) -> LoadedBatch:
    """A batch collated by the objective: random pixels B H W 3 (uint8), K texts per image, negatives where it has some.

    `size`: edge in pixels, instead of the image tower's, where the pixels are not used.
    """
    names = tuple(f"caption {number}" for number in range(objective.captions_per_image))
    nothing = ImageItem("random", functools.partial(open_image_file, Path("random")))
    example = Example("random", nothing, captions=names, negatives=names)
    image, text = recipe.own_towers
    count, edge = recipe.batch_size, size or image.size
    assert edge is not None
    tokenizer = FullContext(text.context)
    rngs = [np.random.default_rng(row) for row in range(count)]
    batch = objective.collate([example] * count, range(count), tokenizer, rngs)
    draw = torch.Generator().manual_seed(0)
    pixels_BHWC = torch.randint(0, 256, (count, edge, edge, 3), dtype=torch.uint8, generator=draw)
    return LoadedBatch(pixels_BHWC, batch, (count,), 0)


class FixedTowers(nn.Module):
    """A stand-in for both towers: fixed random outputs of the same shapes, which collect gradients.

    The outputs are float32, because a layer norm ends each tower.
    """

    def __init__(self, cell: Cell, objective: Objective, tokens: Tokens, device: torch.device) -> None:
        super().__init__()
        towers = towers_of(cell.model)
        images, texts, length = tokens.ids_BKL.shape
        branches = objective.tower_options(objective.options).get("branches", 0)
        width = towers.text.width
        shapes = (
            (images, towers.grid[0] * towers.grid[1], width),
            (images, branches or 1, width),
            (images, texts, length, width),
            (images, texts, width),
        )
        self.leaves = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
        patches_BPW, pooled_BMW, tokens_BKLW, pooled_BKW = self.leaves
        self.image_out = ImageOut(patches_BPW, pooled_BMW, towers.grid)
        self.text_out = TextOut(tokens_BKLW, pooled_BKW, tokens.mask_BKL, tokens.special_BKL)

    def forward(self, pixels_BCHW: Tensor, tokens: Tokens) -> tuple[ImageOut, TextOut]:  # noqa: ARG002 - as TowerPair
        """The fixed outputs, for any input."""
        return self.image_out, self.text_out

    def forget_gradients(self) -> None:
        """Remove the gradients of the last backward pass from the outputs."""
        for leaf in self.leaves:
            leaf.grad = None


def objective_alone(cell: Cell, device: torch.device) -> Objective:
    """The cell's objective with its default options, for the width of the towers."""
    recipe = recipe_of(cell)
    loss, options = objective_and_options(recipe)
    torch.manual_seed(0)
    with device:
        width = towers_of(cell.model).text.width
        return loss(width, width, options)


def measure_step(cell: Cell) -> StepCost:
    """Time and memory of training steps; on a CPU to be called in a fresh process."""
    device, recipe = torch.device(cell.device), recipe_of(cell)
    with device:
        model = build_model(recipe, FullContext(towers_of(cell.model).text.context), seed=0)
    model.to(device).train()
    optimizer = make_optimizer(model, recipe.optim)
    loaded = _on_device(random_batch(model.objective, recipe), device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward_backward(model, loaded, device, cell.autocast)
        optimizer.step()
        model.objective.after_step(0)

    return _measured(step, device, sum(parameter.numel() for parameter in model.parameters()))


def measure_own(cell: Cell) -> StepCost:
    """Time and memory of the objective's forward and backward pass on detached outputs of the towers.

    A pass over two pairs comes first, so that the start of libraries and threads does not count.
    """
    device = torch.device(cell.device)
    objective = objective_alone(cell, device).to(device).train()
    _own_pass(dataclasses.replace(cell, batch=2), objective)()
    objective.zero_grad(set_to_none=True)
    parameters = sum(parameter.numel() for parameter in objective.parameters())
    return _measured(_own_pass(cell, objective), device, parameters)


def _own_pass(cell: Cell, objective: Objective) -> Callable[[], None]:
    device = torch.device(cell.device)
    loaded = _on_device(random_batch(objective, recipe_of(cell), size=1), device)
    stand_in = FixedTowers(cell, objective, loaded.batch.tokens, device)
    model = TwoTowerModel(stand_in, objective)  # type: ignore[arg-type] # called as the towers are

    def once() -> None:
        stand_in.forget_gradients()
        objective.zero_grad(set_to_none=True)
        forward_backward(model, loaded, device, cell.autocast)

    return once


def _on_device(loaded: LoadedBatch, device: torch.device) -> LoadedBatch:
    batch = dataclasses.replace(loaded.batch, tokens=loaded.batch.tokens.to(device))
    return dataclasses.replace(loaded, inputs=loaded.inputs.to(device), batch=batch)


def _measured(step: Callable[[], None], device: torch.device, parameters: int) -> StepCost:
    warm_up, timed = RUNS[device.type]
    before = memory_now(device)
    for _ in range(warm_up):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(timed):
        _synchronise(device)
        began = time.perf_counter()
        step()
        _synchronise(device)
        seconds.append(time.perf_counter() - began)
    return StepCost(statistics.median(seconds), max(before, memory_peak(device)), before, parameters)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_now(device: torch.device) -> int:
    """Memory in bytes: allocated on a GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    status = Path("/proc/self/statm")
    if not status.is_file():
        return memory_peak(device)
    return int(status.read_text().split()[1]) * resource.getpagesize()


def memory_peak(device: torch.device) -> int:
    """Peak memory in bytes: allocated on a GPU since the last reset, or resident since this process started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
