"""A run keeps the data and the vocabulary that it began with: another command on its folder is told so."""

import json
import shutil

import pytest
from safetensors import safe_open

from sparc_bench.errors import StoppedError, UserError
from sparc_bench.training import run_inputs
from sparc_bench.training.train import train
from sparc_bench.two_towers import checkpoint
from tests.toys.captioned_photos import mend_caption, photo_recipe, write_photos

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tiny):
    return photo_recipe(tiny)


def cut(recipe, folder, root, at=4):
    """Train until a step, as a killed job does: its checkpoint is that of step 3."""

    def stop(step):
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="Stopped by Ctrl-C"):
        train(recipe, folder, root, 0, "cpu", on_step=stop)


def test_a_run_does_not_go_on_with_a_mended_caption_and_names_both_hashes(recipe, tmp_path):
    root, folder = write_photos(tmp_path / "data"), tmp_path / "run"
    cut(recipe, folder, root)
    mend_caption(root)
    hashes = r"its coco_captions:train has the sha256 \w{12}\.\.\., .* now \w{12}"
    with pytest.raises(UserError, match=f"other data: {hashes}"):
        train(recipe, folder, root, 0, "cpu")
    assert not (folder / "model.safetensors").exists()


def test_a_finished_run_of_other_data_is_not_taken_for_one_of_these(recipe, tmp_path):
    root, folder = write_photos(tmp_path / "A"), tmp_path / "run"
    summary = train(recipe, folder, root, 0, "cpu")
    with pytest.raises(UserError, match=r"holds a run of other data"):
        train(recipe, folder, write_photos(tmp_path / "B", 32), 0, "cpu")
    moved = shutil.move(root, tmp_path / "elsewhere")
    assert train(recipe, folder, moved, 0, "cpu") == summary
    assert summary["data"] == json.loads((folder / "summary.json").read_text())["data"]


def test_a_run_goes_on_with_its_own_vocabulary(recipe, tmp_path, monkeypatch):
    root, folder = write_photos(tmp_path / "data"), tmp_path / "run"
    cut(recipe, folder, root)
    begun = checkpoint.read_meta(folder / "checkpoint.safetensors").tokenizer
    real = run_inputs.make_tokenizer

    def another_library(card, captions):
        return real(card, [f"quite {caption}" for caption in captions])

    monkeypatch.setattr(run_inputs, "make_tokenizer", another_library)
    train(recipe, folder, root, 0, "cpu")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["tokenizer"] == begun


def test_a_run_from_before_hashes_goes_on(recipe, tmp_path):
    root, folder = write_photos(tmp_path / "data"), tmp_path / "run"
    cut(recipe, folder, root)
    file = folder / "checkpoint.safetensors"
    meta, tensors = checkpoint.read(file)
    vars(meta)["data"] = {}
    checkpoint.write_checkpoint(tensors, meta, file)
    assert train(recipe, folder, root, 0, "cpu")["resumed_from"] == 3


def test_embedded_data_are_not_rendered_again_for_a_finished_run(tiny, tmp_path, monkeypatch):
    summary = train(tiny, tmp_path / "run", None, 0, "cpu")
    monkeypatch.setattr(run_inputs, "read_split", None)
    assert train(tiny, tmp_path / "run", None, 0, "cpu") == summary
