"""One cell: its towers, its batch, what runs in a process of its own."""

import os
import signal
import time

import pytest
import torch

from sparc_bench.cost.cell import (
    Cell,
    FixedTowers,
    StepCost,
    measure_own,
    measure_step,
    objective_alone,
    random_batch,
    recipe_of,
    towers_of,
)
from sparc_bench.cost.fresh_process import CellFailedError, DoesNotFitError, in_fresh_process
from sparc_bench.errors import UserError
from sparc_bench.two_towers.towers import RecipeTowers

TINY = "vit_tiny_patch16_224"
CPU = torch.device("cpu")


@pytest.mark.parametrize(("model", "width", "heads"), [(TINY, 192, 3), ("vit_base_patch16_224", 768, 12)])
def test_text_tower_goes_with_the_image_tower(model, width, heads):
    towers = towers_of(model)
    assert (towers.text.width, towers.text.heads, towers.text.depth, towers.text.context) == (width, heads, 12, 55)
    assert (towers.image.size, towers.grid) == (224, (14, 14))


def test_size_is_the_models_own():
    assert towers_of("vit_base_patch32_384").grid == (12, 12)


@pytest.mark.parametrize(
    ("model", "words"), [("vit_tiny_patch16_244", "did you mean 'vit_tiny_patch16_224'?"), ("resnet18", "resnet18")]
)
def test_a_model_that_is_none_is_refused(model, words):
    with pytest.raises(UserError, match=words):
        towers_of(model)


@pytest.mark.parametrize(("name", "texts"), [("clip", 1), ("negclip", 2), ("holistic", 5), ("mv_dhel", 2)])
def test_captions_fill_the_context(name, texts):
    cell = Cell(name, 3, TINY, "cpu")
    loaded = random_batch(objective_alone(cell, CPU), recipe_of(cell))
    tokens = loaded.batch.tokens
    assert tokens.ids_BKL.shape == (3, texts, 55)
    assert (tokens.mask_BKL.sum(-1) == 53).all()
    assert (tokens.mask_BKL ^ tokens.special_BKL).all()
    assert loaded.inputs.shape == (3, 224, 224, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "holistic"])
def test_stand_in_has_the_shapes_of_the_towers(name):
    cell = Cell(name, 2, TINY, "cpu")
    objective, cards, meta = objective_alone(cell, CPU), towers_of(TINY), torch.device("meta")
    tokens = random_batch(objective, recipe_of(cell), size=1).batch.tokens
    with meta:
        towers = RecipeTowers(
            cards.image, cards.text, 32_000, 0, objective.tower_options(objective.options).get("branches", 0)
        )
        real = towers(torch.empty(2, 3, 224, 224), tokens.to(meta))
    alone = FixedTowers(cell, objective, tokens, CPU)(torch.empty(0), tokens)
    for out, fixed in zip(real, alone, strict=True):
        for field, value in vars(out).items():
            other = getattr(fixed, field)
            assert getattr(value, "shape", value) == getattr(other, "shape", other), field


def test_the_objective_alone_is_measured_without_towers():
    reading = measure_own(Cell("sparc", 4, TINY, "cpu"))
    assert reading.parameters == 2 * 192 * 512 + 192 * 192 + 192 + 1
    assert reading.seconds > 0
    assert reading.peak_bytes >= reading.before_bytes > 0


def sleeps(cell):
    time.sleep(60)


def is_killed(cell):
    os.kill(os.getpid(), signal.SIGKILL)


def runs_out(cell):
    torch.empty(2**50, dtype=torch.uint8)


def is_wrong(cell):
    raise ValueError(f"no {cell.objective}")


def leaves(cell):
    os._exit(3)


def fine(cell):
    return StepCost(0.5, 2, 1, 3)


@pytest.mark.slow
def test_what_happens_in_a_process_is_told():
    cell = Cell("clip", 2, TINY, "cpu")
    assert in_fresh_process(fine, cell, 300) == StepCost(0.5, 2, 1, 3)
    for measure, seconds, words in (
        (sleeps, 0.1, "ten minutes"),
        (is_killed, 60, "killed"),
        (runs_out, 60, "allocate"),
    ):
        with pytest.raises(DoesNotFitError, match=words):
            in_fresh_process(measure, cell, seconds)
    for measure, words in ((is_wrong, "ValueError: no clip"), (leaves, "exit code 3")):
        with pytest.raises(CellFailedError, match=words):
            in_fresh_process(measure, cell, 60)


@pytest.mark.slow
def test_peak_memory_of_a_process_holds_weights_gradients_and_adamw():
    """And is its own: it does not grow with what was measured before."""
    readings = [in_fresh_process(measure_step, Cell("clip", batch, TINY, "cpu"), 300) for batch in (8, 2, 2)]
    for reading in readings:
        assert reading.peak_bytes - reading.before_bytes > 3 * 4 * reading.parameters
    large, small, again = (reading.peak_bytes for reading in readings)
    assert small < 0.95 * large
    assert again == pytest.approx(small, rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_sparc_costs_at_most_three_per_cent_more_than_clip_on_a_gpu(tmp_path):
    from sparc_bench.cost.measure_costs import make_plan, run

    plan = make_plan("clip,sparc", "64", "vit_base_patch16_224", "cuda", 5, ())
    rows = {row.objective: row for row in run(plan, tmp_path / "cost.csv", False, lambda _: None, lambda: None)}
    assert rows["sparc"].status == "measured", rows["sparc"].reason
    assert rows["sparc"].step_ratio <= 1.03
    assert rows["sparc"].peak_ratio <= 1.03
