import hashlib
import os

import pytest
import torch

from sparc_bench import discover, models
from sparc_bench.cards import Recipe
from sparc_bench.errors import UserError
from sparc_bench.features import Runtime
from sparc_bench.training import checkpoint

CARD = """
title = "Small"
source = "none"
objective = "clip"
batch_size = 4
steps = {steps}
eval_every = 5
notes = "{notes}"
[data]
dataset = "scenes1"
[image]
[text]
[optim]
warmup = 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of reference models with the recipe `small`, and runs beside it."""
    cards = tmp_path / "reference_models"
    cards.mkdir()
    (cards / "small.toml").write_text(CARD.format(steps=9, notes=""))
    monkeypatch.setattr(discover, "cards_folder", lambda kind: tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(folder, name="small", seed=0, steps=9, notes="old notes"):
    card = {"name": name, **discover.model("small").model_dump(exclude={"name"})}
    recipe = Recipe.model_validate({**card, "steps": steps, "notes": notes})
    file = folder / "runs" / name / f"seed{seed}" / "model.safetensors"
    meta = checkpoint.Meta(recipe, seed, steps, "", {"cat": 3})
    checkpoint.write_atomically({"model.x": torch.zeros(2)}, meta, file)
    return file


def test_a_recipe_without_a_run_says_how_to_train_it(folder):
    with pytest.raises(UserError, match=r"run sparc-bench train small\.$"):
        models.resolve("small")
    with pytest.raises(UserError, match=r"run sparc-bench train small --seed 3\.$"):
        models.resolve("small", seed=3)


def test_a_recipe_finds_its_run_by_seed(folder):
    save(folder), save(folder, seed=1)
    assert models.resolve("small").seed == 0
    resolved = models.resolve("small", seed=1)
    assert (resolved.seed, resolved.card.name, resolved.card.family) == (1, "small", "own")
    assert resolved.weights.parent.name == "seed1"
    assert resolved.card.trained_on == ("scenes1:train",)


def test_a_run_of_other_settings_is_refused_but_other_prose_is_not(folder):
    save(folder, notes="other prose")
    models.resolve("small")
    save(folder, steps=7)
    with pytest.raises(UserError, match="another version of small: delete"):
        models.resolve("small")
    assert models.resolve(os.fspath(folder / "runs/small/seed0")).card.name == "small"


def test_reference_weights_come_first_and_are_checked(folder):
    file = save(folder)
    kept = folder / "reference_models" / "weights" / "small.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(file.read_bytes())
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    card = folder / "reference_models" / "small.toml"
    card.write_text(card.read_text() + f'[weights]\nfile = "weights/small.safetensors"\nsha256 = "{sha256}"\n')
    assert models.resolve("small").weights == kept
    assert models.resolve(os.fspath(card)).weights == kept
    assert models.resolve("small", run=file.parent).weights == file
    save(folder, seed=1)
    assert models.resolve("small", seed=1).weights.parent.name == "seed1"
    kept.write_bytes(b"another file")
    with pytest.raises(UserError, match="sha256"):
        models.resolve("small")
    kept.unlink()
    with pytest.raises(UserError, match="missing: restore the file, or name a run with --run"):
        models.resolve("small")


def test_a_run_of_another_recipe_is_refused(folder):
    file = save(folder, name="other")
    with pytest.raises(UserError, match="is of other, not of small"):
        models.resolve("small", run=file.parent)


def test_unfinished_or_foreign_runs(folder):
    (folder / "runs" / "x").mkdir(parents=True)
    with pytest.raises(UserError, match="training has finished"):
        models.resolve(os.fspath(folder / "runs" / "x"))
    (folder / "runs" / "x" / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="damaged"):
        models.resolve(os.fspath(folder / "runs" / "x"))


def test_names_that_are_nothing(folder):
    with pytest.raises(UserError, match="did you mean 'small'"):
        models.resolve("smal")
    with pytest.raises(UserError, match="names no weights"):
        models.resolve("own:")


def test_family_and_weights(folder, tmp_path):
    resolved = models.resolve("toy_family:ViT-B-32/openai")
    assert resolved.card.name == "toy_family_ViT-B-32_openai"
    assert resolved.card.options == {"weights": "ViT-B-32/openai"}
    assert resolved.weights is None
    (tmp_path / "features").mkdir()
    assert models.resolve(f"toy_family:{tmp_path / 'features'}").weights == tmp_path / "features"
    assert models.resolve(f"own:{save(folder, seed=2)}").seed == 2


def test_run_belongs_to_recipes(folder, toy_model):
    with pytest.raises(UserError, match="leave --run out"):
        models.resolve(toy_model(), run=folder)
    file = save(folder)
    with pytest.raises(UserError, match="leave --run out"):
        models.resolve(os.fspath(file.parent), run=file.parent)


def test_load_encoder_hands_the_settings_on(toy_model):
    encoder = models.load_encoder(models.resolve(toy_model("toy_best", 1.0)), Runtime(batch_size=3))
    assert (encoder.card.name, encoder.weights_hash) == ("toy_best", "toy 1.0")
