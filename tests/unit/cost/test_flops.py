"""Counted FLOPs: by hand for the towers, as real tensors count, and the goal for SPARC."""

import pytest
import torch

from sparc_bench.cards import discovery
from sparc_bench.cost.cell import Cell, FixedTowers, FullContext, objective_alone, random_batch, recipe_of
from sparc_bench.cost.flops import _counted, count, own_flops, towers_flops
from sparc_bench.training.loop import forward_backward
from sparc_bench.two_towers.model import TwoTowerModel, build_model

BASE = "vit_base_patch16_224"
TINY = "vit_tiny_patch16_224"
TEST = "test_vit"  # 64 wide, 160 px
CPU = torch.device("cpu")


def layers_by_hand(positions, width, layers):
    """Forward: q, k, v and output (4 W^2), two MLP products (8 W^2), two attention products, each with 2 per MAC."""
    return layers * (2 * positions * 12 * width**2 + 2 * 2 * positions**2 * width)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), [(BASE, 768), (TINY, 192)])
def test_clip_is_what_the_formula_of_the_towers_says(model, width):
    batch, dim = 16, 512
    patch_embedding = 2 * 196 * 3 * 16**2 * width
    towers = 3 * (layers_by_hand(196, width, 12) + layers_by_hand(55, width, 12)) + 2 * patch_embedding
    heads = 3 * 2 * (width**2 + 2 * width * dim)
    logits = 3 * 2 * 2 * batch**2 * dim
    flops = count(Cell("clip", batch, model, "cpu"))
    assert flops.towers == batch * towers
    assert flops.own == batch * heads + logits


@pytest.mark.slow
def test_sparc_costs_at_most_one_per_cent_more_than_clip_at_vit_base():
    for batch in (2, 256):
        clip, sparc = (count(Cell(name, batch, BASE, "cpu")) for name in ("clip", "sparc"))
        assert clip.step < sparc.step <= 1.01 * clip.step
    # what sparc adds grows with the batch, not with its square
    added = [count(Cell("sparc", b, BASE, "cpu")).own - count(Cell("clip", b, BASE, "cpu")).own for b in (2, 256)]
    assert added[1] == 128 * added[0]


@pytest.mark.slow
def test_sparc_projects_each_patch_once():
    """Of what it adds, one projection of patches and tokens; the rest is arithmetic on projected vectors."""
    patches, tokens, width, dim = 196, 55, 768, 512
    projections = 3 * 2 * (patches + tokens) * width * dim
    similarity_grouping_contrast = 3 * 2 * (2 * tokens * patches * dim + tokens**2 * dim)
    added = count(Cell("sparc", 2, BASE, "cpu")).own - count(Cell("clip", 2, BASE, "cpu")).own
    assert added == 2 * (projections + similarity_grouping_contrast)


@pytest.mark.slow
def test_pairs_of_all_images_with_all_texts_are_counted_at_the_real_batch():
    own = {batch: count(Cell("filip", batch, TINY, "cpu")).own for batch in (8, 16)}
    quadratic = own[16] - 2 * own[8]
    # 2 B^2 P L D forward, again in the backward pass, and for both gradients; token dropping may leave out a third
    once = 2 * (16**2 - 2 * 8**2) * 196 * 54 * 512
    assert 2 <= quadratic / once <= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", discovery.names("objectives"))
def test_fake_tensors_count_what_real_ones_do(name):
    cell = Cell(name, 4, TEST, "cpu")
    objective = objective_alone(cell, CPU)
    loaded = random_batch(objective, recipe_of(cell), size=1)
    model = TwoTowerModel(FixedTowers(cell, objective, loaded.batch.tokens, CPU), objective)
    fake = own_flops(cell, objective_alone(cell, torch.device("meta")))
    assert fake == _counted(lambda: forward_backward(model, loaded, CPU, autocast=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparc", "holistic"])
def test_towers_and_objective_are_the_whole_step(name):
    cell = Cell(name, 2, TEST, "cpu")
    recipe = recipe_of(cell)
    model = build_model(recipe, FullContext(recipe.text.context), seed=0)
    loaded = random_batch(model.objective, recipe)
    assert count(cell).step == _counted(lambda: forward_backward(model, loaded, CPU, autocast=False))


@pytest.mark.slow
def test_several_texts_cost_the_text_tower_several_times():
    one, two, eight = (towers_flops(TEST, 0, texts) for texts in (1, 2, 8))
    assert eight - one == 7 * (two - one)
