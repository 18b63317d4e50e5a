"""Own towers at other input sizes against timm and open_clip, whose functions resize their positions."""

import open_clip
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.errors import UserError
from sparc_bench.two_towers.open_clip_towers import OpenClipImageTower
from sparc_bench.two_towers.towers import RecipeImageTower
from tests.toys.tiny_open_clip import VIT

CARD = ImageTowerTable(model="vit_tiny_patch16_224", size=32, patch=8, width=24, depth=2, heads=2)
SIZES = [(48, 48), (16, 64), (64, 16), (24, 40)]


def pixels(size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("branches", [0, 2])
def test_a_recipes_tower_is_timms_at_that_size(size, branches):
    torch.manual_seed(0)
    tower = RecipeImageTower(CARD, branches).eval()
    torch.nn.init.normal_(tower.trunk.pos_embed)
    other = tower.at(size)
    grid = (size[0] // 8, size[1] // 8)
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
    tokens = {"class_token": False, "reg_tokens": branches, "no_embed_class": not branches, "global_pool": ""}
    plain = timm.create_model("vit_tiny_patch16_224", img_size=size, **sizes, **tokens).eval()
    state = tower.trunk.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"], new_size=[*grid], old_size=[4, 4], num_prefix_tokens=branches
    )
    plain.load_state_dict(state)
    mask = {"attn_mask": other.sees_SS} if branches else {}
    with torch.no_grad():
        expected = plain.forward_features(pixels(size), **mask)
        found = other(pixels(size))
    assert found.grid == other.grid == grid
    assert torch.equal(found.patches_BPW, expected[:, branches:])
    assert found.pooled_BMW.shape == (2, max(1, branches), 24)
    assert (tower.grid, tower.trunk.pos_embed.shape[1]) == ((4, 4), 16 + branches)
    assert other.trunk.blocks[0].attn.qkv.weight is tower.trunk.blocks[0].attn.qkv.weight


@pytest.mark.parametrize("size", SIZES)
def test_the_tower_of_a_checkpoint_is_open_clips_at_that_size(size):
    torch.manual_seed(0)
    vision, text = (
        VIT | {"image_size": 32},
        {"context_length": 8, "vocab_size": 50, "width": 8, "heads": 1, "layers": 1},
    )
    tower = OpenClipImageTower(open_clip.CustomTextCLIP(8, dict(vision), dict(text)).visual).eval()
    plain = OpenClipImageTower(open_clip.CustomTextCLIP(8, vision | {"image_size": size}, dict(text)).visual).eval()
    state = tower.state_dict()
    state["trunk.positional_embedding"] = resample_abs_pos_embed(
        state["trunk.positional_embedding"][None], new_size=[size[0] // 8, size[1] // 8], old_size=[4, 4]
    )[0]
    plain.load_state_dict(state)
    with torch.no_grad():
        found, expected = tower.at(size)(pixels(size)), plain(pixels(size))
    assert found.grid == (size[0] // 8, size[1] // 8)
    assert torch.equal(found.patches_BPW, expected.patches_BPW)
    assert torch.equal(found.pooled_BMW, expected.pooled_BMW)


def test_the_own_size_is_the_tower_itself_and_parts_of_patches_are_refused():
    tower = RecipeImageTower(CARD)
    assert tower.at((32, 32)) is tower
    with pytest.raises(UserError, match="36 px are no whole number of patches of 8 px: take 32"):
        tower.at((32, 36))
