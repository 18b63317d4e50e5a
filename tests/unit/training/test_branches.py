"""The image tower with class tokens: branches do not see each other, patches see them, nothing else changes."""

import pytest
import torch

from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.errors import UserError
from sparc_bench.two_towers.image_transform import normalise
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.tokenizer import make_tokenizer
from sparc_bench.two_towers.towers import RecipeImageTower, no_weight_decay

M = 3


def trunk(branches=M, depth=1, **changes):
    torch.manual_seed(0)
    card = ImageTowerTable(
        **{"model": "vit_tiny_patch16_224", "size": 64, "patch": 16, "width": 24, "depth": depth, "heads": 2, **changes}
    )
    return RecipeImageTower(card, branches).eval()


def pixels():
    draw = torch.Generator().manual_seed(0)
    return normalise(torch.randint(0, 256, (2, 64, 64, 3), generator=draw, dtype=torch.uint8))


def moved(tower, branch):
    """Change of every output when one class token's input changes: branches (M), patches (P)."""
    with torch.no_grad():
        before = tower(pixels())
        tower.trunk.reg_token[:, branch] += torch.linspace(-1, 1, tower.width)
        after = tower(pixels())
    return (
        (after.pooled_BMW - before.pooled_BMW).abs().amax((0, 2)),
        (after.patches_BPW - before.patches_BPW).abs().amax((0, 2)),
    )


def test_shapes():
    out = trunk()(pixels())
    assert out.pooled_BMW.shape == (2, M, 24)
    assert out.patches_BPW.shape == (2, 16, 24)
    assert out.grid == (4, 4)


@pytest.mark.parametrize("branch", range(M))
def test_in_one_layer_a_branch_reaches_itself_and_the_patches_only(branch):
    branches_M, patches_P = moved(trunk(), branch)
    others = [m for m in range(M) if m != branch]
    assert (branches_M[others] == 0).all()
    assert branches_M[branch] > 1e-3
    assert (patches_P > 1e-5).all()


def test_in_two_layers_branches_meet_in_the_patches():
    branches_M, _ = moved(trunk(depth=2), 0)
    assert (branches_M > 0).all()


def test_a_branch_sees_every_patch():
    tower = trunk()
    images = pixels().requires_grad_()
    # not the sum: a layer norm's outputs sum to a constant
    tower(images).pooled_BMW[:, 1].square().mul(torch.arange(24.0)).sum().backward()
    assert (images.grad.unflatten(2, (4, 16)).unflatten(4, (4, 16)).abs().amax((0, 1, 3, 5)) > 0).all()


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "vit_base_patch14_reg4_dinov2"])
def test_branches_differ_from_the_start_also_in_models_without_class_positions(model):
    tower = trunk(model=model)
    assert tower.trunk.pos_embed.shape == (1, M + 16, 24)
    branches_BMW = tower(pixels()).pooled_BMW
    assert (branches_BMW[:, 0] - branches_BMW[:, 1]).abs().max() > 1e-3


def test_a_tower_without_branches_is_what_it_was(tiny):
    tower = trunk(branches=0)
    assert not [name for name in tower.state_dict() if "reg_token" in name or "cls_token" in name]
    assert tower.trunk.pos_embed.shape == (1, 16, 24)
    out = tower(pixels())
    torch.testing.assert_close(out.pooled_BMW[:, 0], out.patches_BPW.mean(1))
    assert set(trunk().state_dict()) == {*tower.state_dict(), "trunk.reg_token"}


def test_a_recipe_gets_the_branches_of_its_objective(tiny):
    tokenizer = make_tokenizer(tiny.text, ["a red circle"] * 3)
    assert build_model(tiny, tokenizer, 0).towers.image.branches == 0
    recipe = tiny.model_copy(update={"objective": "holistic", "objective_options": {"dim": 16, "branches": 2}})
    model = build_model(recipe, tokenizer, 0)
    raw_BHWC = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    assert model.encode_image(raw_BHWC).pooled_BMW.shape == (2, 2, 24)
    assert model.objective.tower_options(model.objective.options)["branches"] == 2


def test_class_tokens_do_not_decay():
    kept = {name for name, p in trunk().named_parameters() if no_weight_decay(name, p) and p.ndim > 1}
    assert kept == {"trunk.pos_embed", "trunk.reg_token"}


def test_a_model_without_class_tokens_is_a_user_error():
    with pytest.raises(UserError, match="vision transformer of timm"):
        RecipeImageTower(ImageTowerTable(model="resnet18", size=64), M)
