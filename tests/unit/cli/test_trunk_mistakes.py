"""Mistakes with a pretrained image trunk: one sentence that says what to do, exit code 2, nothing half-written."""

import hashlib
import importlib.metadata
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file

from sparc_bench.cli.app import main
from tests.unit.cli.test_errors import TASK

MODEL = "test_efficientnet"

PACKAGE = "a-trunk-in-a-package"

RUN = "runs/mine/seed0"

RECIPE = """
title = "a tiny model on a trunk"
source = "a test"
objective = "clip"
objective_options = {{ dim = 8 }}
batch_size = 4
steps = 2
eval_every = 2
freeze = ["image"]
[data]
dataset = "scenes1"
options = {{ n = 12 }}
val_options = {{ n = 12 }}
[optim]
warmup = 1
[text]
width = 8
depth = 1
heads = 1
context = 8
vocabulary = 300
[image]
model = "{model}"
size = 64
{image}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with a file of weights of MODEL."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARC_BENCH_DATA", raising=False)
    made(tmp_path / "trunk.safetensors", MODEL)
    return tmp_path


def made(file, model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file({name: each.contiguous() for name, each in timm.create_model(model).state_dict().items()}, file)
    return file


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def card(folder, image, model=MODEL):
    file = folder / "mine.toml"
    file.write_text(RECIPE.format(model=model, image=image), encoding="utf-8")
    return str(file)


@pytest.fixture
def refuse(capsys):
    """Run a command that must be refused; returns its one sentence."""

    def run(*arguments):
        capsys.readouterr()
        assert main([*arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert "Traceback" not in lines[0]
        return lines[0]

    return run


def test_a_file_of_another_trunk(folder, refuse):
    other = made(folder / "other.safetensors", "test_vit")
    recipe = card(folder, f'pretrained = "other.safetensors"\nsha256 = "{sha256(other)}"')
    sentence = refuse("train", recipe)
    assert "other.safetensors holds other weights than timm's test_efficientnet" in sentence
    assert sentence.endswith("name that file's own model as image.model, or another file.")
    assert not list((folder / "runs").rglob("*.safetensors"))


def test_another_sha256(folder, refuse):
    sentence = refuse("train", card(folder, f'pretrained = "trunk.safetensors"\nsha256 = "{"0" * 64}"'))
    assert sha256(folder / "trunk.safetensors") in sentence
    assert sentence.endswith("take the file or package of that version, or mend the card.")


def test_a_file_that_is_not_there(folder, refuse):
    sentence = refuse("train", card(folder, f'pretrained = "no.safetensors"\nsha256 = "{"0" * 64}"'))
    assert "no.safetensors: copy them there, or mend the card." in sentence


@pytest.mark.slow
def test_a_trunk_without_a_feature_map(folder, refuse):
    file = made(folder / "pit.safetensors", "pit_ti_224")
    image = f'pretrained = "pit.safetensors"\nsha256 = "{sha256(file)}"'
    recipe = card(folder, image, "pit_ti_224")
    (folder / "mine.toml").write_text((folder / "mine.toml").read_text().replace("size = 64", "size = 224"))
    assert "pit_ti_224 gives no feature map: name a model" in refuse("train", recipe)


def test_a_tag_that_timm_does_not_know(folder, refuse):
    assert "test_vit.no_such_tag" in refuse("train", card(folder, 'pretrained = "timm"', "test_vit.no_such_tag"))


@pytest.fixture
def installed(folder, monkeypatch):
    """Whether a made-up package with the weights is installed: a list, empty for no."""
    there = [folder]
    real = importlib.metadata.distribution

    def distribution(name):
        if name != PACKAGE:
            return real(name)
        if not there:
            raise importlib.metadata.PackageNotFoundError(name)
        files = [importlib.metadata.PackagePath("trunk.safetensors")]
        return SimpleNamespace(files=files, version="1.0", locate_file=lambda file: folder / file)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    return there


@pytest.mark.slow
def test_a_package_that_is_not_installed(folder, refuse, installed):
    recipe = card(folder, f'pretrained = "package:{PACKAGE}"\nsha256 = "{sha256(folder / "trunk.safetensors")}"')
    (folder / "task.toml").write_text(TASK, encoding="utf-8")
    what = f"in the package {PACKAGE}, which is not installed: run pip install {PACKAGE}."
    installed.clear()
    assert refuse("train", recipe).endswith(what)
    installed.append(folder)
    assert main(["train", recipe]) == 0
    assert main(["eval", RUN, "--task", "task.toml"]) == 0
    installed.clear()
    assert refuse("eval", RUN, "--task", "task.toml", "--force").endswith(what)
    assert refuse("train", recipe, "--seed", "1").endswith(what)
