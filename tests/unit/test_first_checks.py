"""What is known from names and paths is said before anything is imported that computes."""

import pytest

from sparc_bench import first_checks
from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Validate
from sparc_bench.errors import UserError
from sparc_bench.first_checks import refuse_absent_data, refuse_absent_training_data
from tests.unit.cli.test_light import imported

ON_DISK, EMBEDDED = "coco_val2017_mini_retrieval", "scenes_retrieval"


def cards(*names):
    return [discovery.task(name) for name in names]


def test_a_task_without_its_data_is_refused_where_no_other_has_any(tmp_path):
    refuse_absent_data(cards(EMBEDDED), None)
    refuse_absent_data(cards(ON_DISK, EMBEDDED), None)  # the second is evaluated, the first fails by itself
    with pytest.raises(UserError, match=r"is read from disk and no data root was given: pass --data-root"):
        refuse_absent_data(cards(ON_DISK), None)
    with pytest.raises(UserError, match="holds no folder 'coco_val2017_mini'"):
        refuse_absent_data(cards(ON_DISK), tmp_path)
    with pytest.raises(UserError, match=r"^None of the 2 tasks has its data\. The data root .* holds no folder 'coco_"):
        refuse_absent_data(cards(ON_DISK, "cifar10"), tmp_path)
    (tmp_path / "coco_val2017_mini").mkdir()
    refuse_absent_data(cards(ON_DISK), tmp_path)


def test_a_reader_that_finds_its_data_elsewhere_is_believed(tmp_path, monkeypatch):
    """CIFAR has two versions in two folders, either of which will do."""
    module = discovery.load("datasets", "cifar")
    monkeypatch.setattr(module, "read", lambda *_: None)
    refuse_absent_data(cards("cifar10"), tmp_path)


def test_training_data_that_are_absent(tmp_path):
    refuse_absent_training_data([discovery.recipe("scenes_clip")], None)
    with pytest.raises(UserError, match="holds no folder 'flickr8k"):
        refuse_absent_training_data([discovery.recipe("flickr8k_clip")], tmp_path)
    watched = {"validate": Validate(tasks=("scenes_retrieval", "flickr8k_retrieval"))}
    with pytest.raises(UserError, match="holds no folder 'flickr8k"):
        refuse_absent_training_data([discovery.recipe("scenes_clip").model_copy(update=watched)], tmp_path)


def test_no_gpu_is_only_said_where_that_is_plain(monkeypatch):
    monkeypatch.setattr(first_checks.sys, "platform", "darwin")
    assert not first_checks.has_no_gpu()


@pytest.mark.slow
def test_nothing_is_imported_that_computes(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"damaged" * 100)
    (tmp_path / "card.toml").write_text("title = ")
    evaluated = f"--task {EMBEDDED} --results {tmp_path}/r"
    commands = [
        f"score {EMBEDDED} {tmp_path}/none.npz --results {tmp_path}/r",
        f"score {ON_DISK} {tmp_path}/there --data-root {tmp_path} --results {tmp_path}/r",
        f"eval scenes_clip --task {ON_DISK} --data-root {tmp_path} --results {tmp_path}/r",
        f"eval scenes_clip --task {EMBEDDED} --results {tmp_path}/file",
        f"train flickr8k_clip --data-root {tmp_path} --runs {tmp_path}/runs",
        f"cost --objectives clip,clop --results {tmp_path}/r",
        f"export scenes_clip --to open_clip --out {tmp_path}/there",
        f"cost --batch 8,x --results {tmp_path}/r",
        f"verify hf:{tmp_path}/none",
        f"eval {tmp_path}/none --task {EMBEDDED} --results {tmp_path}/r",
        f"eval python:{tmp_path}/none.py --task {EMBEDDED} --results {tmp_path}/r",
        *(f"eval {model} {evaluated}" for model in ("scenes_spark", "qqqq", "opn_clip:x", f"{tmp_path}/card.toml")),
        *(f"eval {tmp_path}/{model} {evaluated}" for model in ("run", "there")),
        *(f"eval scenes_clip {evaluated} --device {device}" for device in ("gpu", "mps:x", "cuda:one")),
        f"eval own:{tmp_path}/run/model.safetensors {evaluated}",
        f"eval scenes_clip --run {tmp_path}/run {evaluated}",
        f"eval scenes_clip --seed 77 {evaluated}",
        f"eval scenes_clip --data-root {tmp_path}/none {evaluated}",
        f"eval scenes_clip scenes_spark {evaluated}",
        f"eval scenes_clip --task {tmp_path}/card.toml --results {tmp_path}/r",
        f"eval scenes_clip --suite sceens --results {tmp_path}/r",
        *(f"{command} {tmp_path}/run" for command in ("verify", "export --to safetensors")),
        "verify scenes_spark",
        *(f"align {model} scenes1:test:0 --out {tmp_path}/a.png" for model in ("scenes_spark", f"{tmp_path}/run")),
        f"train {tmp_path}/card.toml --runs {tmp_path}/runs",
        "compare scenes_clip scenes_spark",
        "data check scenes11",
        f"show {ON_DISK} --out {tmp_path}/x.json --data-root {tmp_path}/there",
    ]
    found = imported(*commands)
    assert len(found) == len(commands)
    assert {command: code for command, (code, _) in found.items()} == dict.fromkeys(commands, 2)
    assert not {name for _, heavy in found.values() for name in heavy} & {"torch", "timm", "open_clip", "transformers"}
    assert not (tmp_path / "r").exists()
    if first_checks.has_no_gpu():
        assert imported("eval scenes_clip --task scenes_retrieval --device cuda").popitem()[1] == [2, []]
