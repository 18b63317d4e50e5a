"""Image towers that are timm's own models: their grids, sizes, pretrained weights and checkpoints."""

import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file

from sparc_bench.cards.card import parse
from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.cards.recipe import Recipe, read_model, training_settings
from sparc_bench.errors import UserError
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.checkpoint import Meta
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.tokenizer import Tokenizer
from sparc_bench.two_towers.trunk import TrunkTower, trunk_input

MODEL = "test_efficientnet"
"""timm's own tiny ConvNet for tests: 48 and 64 channels at strides 16 and 32."""

TEXT = {"width": 16, "depth": 1, "heads": 2, "context": 8}


def made(file, state=None):
    """A file of weights of the model, and its sha256."""
    torch.manual_seed(0)
    save_file(timm.create_model(MODEL).state_dict() if state is None else state, file)
    return {"pretrained": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return made(tmp_path_factory.mktemp("trunk") / "trunk.safetensors")


def recipe_with(image, **changes):
    values = {
        "name": "photos",
        "title": "t",
        "source": "s",
        "objective": "clip",
        "objective_options": {"dim": 8},
        "data": {"dataset": "flickr8k"},
        "image": {"model": MODEL, "size": 64, **image},
        "text": TEXT,
        "batch_size": 4,
        "steps": 2,
        "optim": {"warmup": 1},
        "eval_every": 2,
        **changes,
    }
    return parse(Recipe, values, "photos.toml")


@pytest.mark.parametrize(
    ("model", "grid"), [("test_efficientnet", (2, 2)), ("test_vit", (4, 4)), ("test_resnet", (2, 2))]
)
def test_the_patches_are_timms_own_features(model, grid):
    tower = TrunkTower(ImageTowerTable(model=model, size=64, patch=None)).eval()
    pixels_BCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        image = tower(pixels_BCHW)
        own = tower.trunk.forward_features(pixels_BCHW)
    patches_BPW = own[:, tower.trunk.num_prefix_tokens :] if own.ndim == 3 else own.flatten(2).transpose(1, 2)
    assert (image.grid, tower.width) == (grid, patches_BPW.shape[-1])
    assert torch.equal(image.patches_BPW, patches_BPW)
    assert torch.equal(image.pooled_BMW[:, 0], patches_BPW.mean(1))


def test_several_stages_are_joined_on_the_finest_grid():
    tower = TrunkTower(ImageTowerTable(model=MODEL, size=64, out_indices=(3, 4))).eval()
    pixels_BCHW = torch.randn(1, 3, 64, 64)
    fine, coarse = timm_stages(tower, pixels_BCHW, [3, 4])
    with torch.no_grad():
        patches_BPW = tower(pixels_BCHW).patches_BPW
    assert tower.grid == (4, 4)
    assert torch.equal(patches_BPW[0, :, : fine.shape[1]], fine[0].flatten(1).T)
    upsampled = torch.nn.functional.interpolate(coarse, (4, 4), mode="bilinear", align_corners=False)
    assert torch.equal(patches_BPW[0, :, fine.shape[1] :], upsampled[0].flatten(1).T)


def timm_stages(tower, pixels_BCHW, stages):
    with torch.no_grad():
        found = tower.trunk.forward_intermediates(
            pixels_BCHW, indices=stages, output_fmt="NCHW", intermediates_only=True
        )
    return found


def test_another_size_has_a_grid_of_its_own_and_the_means_of_the_nearest_positions():
    tower = TrunkTower(ImageTowerTable(model=MODEL, size=64, position_mean=True)).eval()
    tower.fit({"mean_PK": torch.arange(4.0)[:, None].expand(4, tower.width)})
    wide = tower.at((64, 128))
    assert (wide.grid, tower.grid) == ((2, 4), (2, 2))
    assert wide.mean_PK[:, 0].tolist() == [0.0, 0.25, 0.75, 1.0, 2.0, 2.25, 2.75, 3.0]
    with pytest.raises(UserError, match=r"100 px are no whole number of the cells of 32 px .*: take 96"):
        tower.at((64, 100))


def test_projection_and_mean_are_what_is_stored_and_what_is_taken_off():
    tower = TrunkTower(ImageTowerTable(model=MODEL, size=64, projection=3, position_mean=True)).eval()
    basis_WK, mean_PK = torch.randn(tower.get_buffer("projection_WK").shape), torch.randn(4, 3)
    tower.fit({"projection_WK": basis_WK, "mean_PK": mean_PK})
    pixels_BCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        raw_BPK = tower.raw(pixels_BCHW)
        assert torch.allclose(raw_BPK, tower.trunk_features(pixels_BCHW) @ basis_WK)
        assert torch.allclose(tower(pixels_BCHW).patches_BPW, raw_BPK - mean_PK)


def test_weights_load_by_name_and_in_order(weights, tmp_path):
    torch.manual_seed(0)
    own = timm.create_model(MODEL).state_dict()
    by_name = TrunkTower(ImageTowerTable(model=MODEL, size=64, **weights))
    assert all(torch.equal(x, own[name]) for name, x in by_name.trunk.state_dict().items())
    renamed = {f"_{k:03}.{name.rpartition('.')[2]}": x.clone() for k, (name, x) in enumerate(own.items())}
    torch.save(renamed, tmp_path / "renamed.pth")
    digest = hashlib.sha256((tmp_path / "renamed.pth").read_bytes()).hexdigest()
    table = ImageTowerTable(model=MODEL, size=64, pretrained=str(tmp_path / "renamed.pth"), sha256=digest)
    in_order = TrunkTower(table).trunk.state_dict()
    assert all(torch.equal(x, own[name]) for name, x in in_order.items() if "num_batches" not in name)


def test_the_input_is_timms_for_pretrained_weights_unless_the_card_says_otherwise(weights):
    known = timm.get_pretrained_cfg(MODEL)
    theirs = trunk_input(ImageTowerTable(model=MODEL, **weights))
    assert (theirs.size, theirs.interpolation) == (known.input_size[-1], known.interpolation)
    assert (theirs.mean, theirs.std) == (known.mean, known.std)
    ours = trunk_input(ImageTowerTable(model=MODEL, size=64, mean=(0.1, 0.2, 0.3), interpolation="bilinear", **weights))
    assert (ours.size, ours.interpolation, ours.mean, ours.std) == (64, "bilinear", (0.1, 0.2, 0.3), known.std)
    random = trunk_input(ImageTowerTable(model=MODEL))
    assert random == (224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_file_of_another_trunk_is_refused(tmp_path):
    other = timm.create_model("test_vit").state_dict()
    table = ImageTowerTable(model=MODEL, size=64, **made(tmp_path / "other.safetensors", other))
    with pytest.raises(UserError, match=rf"holds other weights than timm's {MODEL} .*name that file's own model"):
        TrunkTower(table)


def test_another_sha256_is_refused(weights):
    with pytest.raises(UserError, match=r"have the sha256 [0-9a-f]{64}, but 000000000000\.\.\. was pinned"):
        TrunkTower(ImageTowerTable(model=MODEL, size=64, **{**weights, "sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"model": "pit_ti_224"}, "gives no feature map"),
        ({"model": MODEL, "size": 100}, "take 96"),
        ({"model": MODEL, "out_indices": (9,)}, "change image.size or image.out_indices"),
        ({"model": MODEL, "projection": 4000}, "fewer than image.projection = 4000"),
        ({"model": "no_such_model"}, "name a model of timm.list_models"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused(table, sentence):
    with pytest.raises(UserError, match=sentence):
        TrunkTower(ImageTowerTable(**table))


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(UserError, match="not installed: run pip install no-such-trunk"):
        TrunkTower(ImageTowerTable(model=MODEL, pretrained="package:no-such-trunk"))


@pytest.mark.parametrize(
    ("image", "changes", "sentence"),
    [
        ({"pretrained": "trunk.pth"}, {}, "need their sha256"),
        ({"sha256": "0" * 64}, {}, "belong to pretrained weights"),
        ({"pretrained": "timm", "patch": 8}, {}, "pretrained weights have their own patch"),
        ({"projection": 4}, {}, "fitted to a frozen trunk"),
        ({}, {"freeze": ["image"]}, "set init or image.pretrained"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(image, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        recipe_with(image, **changes)


def test_a_card_names_a_file_relative_to_itself(weights, tmp_path):
    text = recipe_toml({**weights, "pretrained": "trunk.safetensors"})
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    recipe = read_model(tmp_path / "mine.toml")
    assert recipe.image.pretrained == str(tmp_path / "trunk.safetensors")
    assert training_settings(recipe)["image"]["pretrained"] == "a file"


def recipe_toml(image):
    lines = "\n".join(f"{key} = {value!r}".replace("'", '"') for key, value in image.items())
    return (
        'title = "t"\nsource = "s"\nobjective = "clip"\nbatch_size = 4\nsteps = 2\neval_every = 2\n'
        f'[data]\ndataset = "flickr8k"\n[optim]\nwarmup = 1\n[image]\nmodel = "{MODEL}"\n{lines}\n'
        "[text]\nwidth = 16\ndepth = 1\nheads = 2\ncontext = 8\n"
    )


def frozen(weights):
    return recipe_with({**weights, "projection": 3, "pretrained_on": ["imagenet1k:train"]}, freeze=["image"])


def test_the_model_says_what_its_trunk_was_trained_on(weights):
    assert frozen(weights).model_card().trained_on == ("flickr8k:train", "imagenet1k:train")
    assert recipe_with(weights).model_card().trained_on == ("flickr8k:train", "unknown")


def test_a_checkpoint_leaves_a_frozen_trunk_out_and_refuses_another(weights, tmp_path):
    recipe, tokenizer = frozen(weights), Tokenizer(8)
    model = build_model(recipe, tokenizer, seed=0)
    model.towers.image.fit({"projection_WK": torch.randn(model.towers.image.get_buffer("projection_WK").shape)})
    meta = Meta(recipe, 0, 2, tokenizer.state, {}, trunk=model.trunk_record)
    file = tmp_path / "model.safetensors"
    checkpoint.write_checkpoint(checkpoint.model_tensors(model), meta, file)
    read, tensors = checkpoint.read(file)
    assert read.trunk == meta.trunk
    assert not any("image.trunk" in name for name in tensors)
    again = build_model(recipe, tokenizer, seed=1)
    checkpoint.load_model(file, again, read, tensors)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in model.state_dict().items())
    torch.manual_seed(1)
    other = frozen(made(tmp_path / "other.safetensors", timm.create_model(MODEL).state_dict()))
    with pytest.raises(UserError, match=r"was trained on the image trunk trunk\.safetensors .*install or copy"):
        checkpoint.load_model(file, build_model(other, tokenizer, seed=1), read, tensors)


def test_a_trained_trunk_stays_in_the_checkpoint(weights):
    model = build_model(recipe_with(weights), Tokenizer(8), seed=0)
    assert any("towers.image.trunk" in name for name in checkpoint.model_tensors(model))
