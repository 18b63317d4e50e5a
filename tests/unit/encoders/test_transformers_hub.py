"""Repositories of the hub as the transformers family takes them: what is here first, and only what is needed."""

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from sparc_bench.cards.model_card import ModelCard, Weights  # noqa: E402
from sparc_bench.encoder import Runtime  # noqa: E402
from sparc_bench.encoders import transformers as family  # noqa: E402
from sparc_bench.errors import UserError  # noqa: E402
from sparc_bench.weights import hub  # noqa: E402
from sparc_bench.weights.weights_file import file_sha256  # noqa: E402
from tests.toys import tiny_transformers as tiny  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "owner/name"
NEEDED = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"}


class Hub:
    """The hub with one repository, of which what is obtained appears in this machine's cache."""

    def __init__(self, published, cache):
        self.published, self.obtained, self.failure = published, [], None
        self.snapshot = cache / "models--owner--name" / "snapshots" / COMMIT
        self.snapshot.mkdir(parents=True)
        (self.snapshot.parent.parent / "refs").mkdir()
        (self.snapshot.parent.parent / "refs" / "main").write_text(COMMIT)

    def put(self, *names):
        for name in names:
            shutil.copy(self.published / name, self.snapshot / name)

    def obtain(self, repo, file, revision, sha256):
        assert repo == REPO
        assert sha256 is None or len(sha256) == 64
        if hub.find(repo, file, revision) is None:
            self.obtained.append(file)
            self.put(file)
        return self.snapshot / file

    def obtain_all(self, repo, pins, revision):
        return [self.obtain(repo, file, revision, sha256) for file, sha256 in pins.items()]

    def model_info(self, repo, revision, timeout):
        assert (repo, revision, timeout) == (REPO, revision, hub.TIMEOUT)
        if self.failure is not None:
            raise self.failure
        names = [file.name for file in self.published.iterdir()]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])


@pytest.fixture
def remote(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tiny.siglip2_fixed(tmp_path / "published")
    for name in ("README.md", "pytorch_model.bin", "flax_model.msgpack", "training_args.bin"):
        (folder / name).write_text("not needed")
    remote = Hub(folder, tmp_path / "hub")
    monkeypatch.setattr(hub, "obtain", remote.obtain)
    monkeypatch.setattr(hub, "obtain_all", remote.obtain_all)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: remote)
    return remote


def load(pin=None, file=None, **options):
    card = ModelCard(name="tiny", title="tiny", family="transformers", source="test", options=options, weights=pin)
    return family.load(card, file, Runtime())


def texts(encoder):
    return encoder.texts(tiny.TEXTS, frozenset({"global"})).global_MD


@pytest.mark.slow
def test_only_what_is_needed_is_obtained_and_then_nothing_is_asked(remote):
    found = load(weights=REPO)
    assert set(remote.obtained) == NEEDED
    assert remote.obtained[0] == "config.json"
    remote.failure, remote.obtained = AssertionError("asked"), []
    assert torch.equal(texts(load(weights=REPO)), texts(found))
    assert torch.equal(texts(load(weights=REPO, revision=COMMIT)), texts(found))
    assert not remote.obtained


def test_a_card_pins_revision_and_weights(remote):
    pinned = file_sha256(remote.published / "model.safetensors")
    pin = Weights(hub=REPO, file="model.safetensors", revision=COMMIT, sha256=pinned)
    assert load(pin, remote.snapshot / "model.safetensors").weights_hash == pinned
    assert set(remote.obtained) == NEEDED
    with pytest.raises(UserError, match=r"but its card says 000000000000\.\.\."):
        load(weights=REPO, sha256="0" * 64)


def test_shards_are_obtained_by_their_index(remote):
    model = transformers.AutoModel.from_pretrained(remote.published)
    (remote.published / "model.safetensors").unlink()
    model.save_pretrained(remote.published, max_shard_size="40KB")
    shards = {file.name for file in remote.published.glob("model-*.safetensors")}
    assert len(shards) > 1
    found = load(weights=REPO)
    assert set(remote.obtained) == NEEDED - {"model.safetensors"} | shards | {"model.safetensors.index.json"}
    assert found.weights_hash == file_sha256(remote.published / "model.safetensors.index.json")


def test_an_incomplete_copy_without_network_is_a_sentence(remote):
    remote.put(*NEEDED - {"tokenizer.json"})
    remote.failure = ConnectionError("no route")
    sentence = "owner/name is not whole on this machine (tokenizer.json is missing) and the hub cannot be reached"
    with pytest.raises(UserError) as caught:
        load(weights=REPO)
    assert str(caught.value).startswith(sentence)
    assert "run hf download owner/name on a machine with network" in str(caught.value)
    assert not remote.obtained


def test_what_the_hub_answers_is_said_by_the_file_that_is_missing(remote, monkeypatch):
    refused = huggingface_hub.errors.RepositoryNotFoundError
    remote.failure = refused.__new__(refused)

    def obtain(repo, file, revision, sha256):
        raise UserError(f"no {file} of {repo} at {revision}.")

    monkeypatch.setattr(hub, "obtain", obtain)
    with pytest.raises(UserError, match=r"no config\.json of owner/name at v2\."):
        load(weights=REPO, revision="v2")


def test_a_repository_of_another_library_is_a_sentence(remote):
    (remote.published / "config.json").unlink()
    with pytest.raises(UserError, match=r"a model of open_clip is open_clip:hf-hub:owner/name\.$"):
        load(weights=REPO)
