"""What is known from names and paths is said before anything is imported that computes."""

import pytest

from sparc_bench import first_checks
from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Validate
from sparc_bench.errors import UserError
from sparc_bench.first_checks import refuse_absent_data, refuse_absent_training_data, refuse_absent_weights
from sparc_bench.weights import open_clip_names
from tests.unit.cli.test_light import imported, ran

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
    with pytest.raises(UserError, match=r"coco_val2017_mini/captions\.json does not exist: the data set needs"):
        refuse_absent_data(cards(ON_DISK), tmp_path)
    (tmp_path / "coco_val2017_mini" / "captions.json").write_text("{")
    with pytest.raises(UserError, match=r"captions\.json"):
        refuse_absent_data(cards(ON_DISK), tmp_path)


def test_photos_and_long_files_are_left_to_the_evaluation(tmp_path, monkeypatch, test_data):
    folder = tmp_path / "coco_val2017_mini"
    folder.mkdir()
    (folder / "captions.json").write_bytes((test_data / "coco_val2017_mini" / "captions.json").read_bytes())
    refuse_absent_data(cards(ON_DISK), tmp_path)  # no photo is there
    (folder / "captions.json").write_text("{" + " " * 100)
    for most in ("MOST_BYTES", "MOST_FILES"):
        with monkeypatch.context() as patch:
            patch.setattr(first_checks, most, 0)
            refuse_absent_data(cards(ON_DISK), tmp_path)
    with pytest.raises(UserError, match=r"captions\.json"):
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


def test_weights_after_a_python_file_are_no_part_of_its_path(tmp_path):
    (tmp_path / "mine.py").touch()
    refuse_absent_weights([f"python:{tmp_path}/mine.py", f"python:{tmp_path}/mine.py:some/name"])
    with pytest.raises(UserError, match=r"There is no file or folder .*none\.py, which"):
        refuse_absent_weights([f"python:{tmp_path}/none.py:some/name"])


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
    (tmp_path / "task.toml").write_text('protocl = "retrieval"')
    (tmp_path / "misspelt.py").write_text("def load(:")
    for name in ("bad.npz", "bad.pt", "bad.png"):
        (tmp_path / name).write_bytes(b"PKdamaged")
    (tmp_path / "bad.json").write_text("{")
    for name in ("bad/image_embeddings.npy", "records/a/t.json", "records/b/t.json", "damaged/flickr8k/captions.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{")
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
        *(f"eval scenes_clip {evaluated} --device {device}" for device in ("cdua", "meta", "hpu:0")),
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
        *(f"eval {model} {evaluated}" for model in ("ViT-B-32", f"hf:{tmp_path}/there", f"precomputed:{tmp_path}/bad")),
        *(f"eval open_clip:{name} {evaluated}" for name in ("ViT-B-32/qqqq", "Unknown/openai", "ViT-B-32")),
        f"eval open_clip:{tmp_path}/bad.pt {evaluated}",
        *(f"verify python:{tmp_path}/misspelt.py{weights}" for weights in ("", ":name")),
        f"eval scenes_clip --plugin {tmp_path}/misspelt.py {evaluated}",
        *(f"score {EMBEDDED} {tmp_path}/{file} --results {tmp_path}/r" for file in ("bad.npz", "bad.json", "there")),
        f"score {EMBEDDED} {tmp_path}/bad.json --name a/b --results {tmp_path}/r",
        *(f"leaderboard {tmp_path}/{folder}" for folder in ("none", "records")),
        f"compare a b --results {tmp_path}/records",
        f"align scenes_clip {tmp_path}/bad.png caption --out {tmp_path}/a.png",
        f"eval scenes_clip --task {tmp_path}/task.toml --results {tmp_path}/r",
        f"eval scenes_clip --task flickr8k_retrieval --data-root {tmp_path}/damaged --results {tmp_path}/r",
        f"train flickr8k_clip --data-root {tmp_path}/damaged --runs {tmp_path}/runs",
    ]
    found, said = ran(*commands)
    assert len(found) == len(commands)
    assert {command: code for command, (code, _) in found.items()} == dict.fromkeys(commands, 2)
    assert not {name for _, heavy in found.values() for name in heavy} & {"torch", "timm", "open_clip", "transformers"}
    assert not (tmp_path / "r").exists()
    assert {command: text for command, text in said.items() if text.count("\n") != 1 or "Traceback" in text} == {}
    if first_checks.has_no_gpu():
        assert imported("eval scenes_clip --task scenes_retrieval --device cuda").popitem()[1] == [2, []]


def test_the_names_of_open_clip_are_those_that_it_lists():
    """Read from its files without the import, as they are before anything has imported it."""
    import open_clip
    from open_clip.pretrained import _PRETRAINED

    assert open_clip_names.tables() == _PRETRAINED
    assert {*open_clip_names.files()} <= {*open_clip.list_models()}
    assert open_clip_names.is_tag("ViT-B-32", "LAION2B-s34b_b79k")
    assert not open_clip_names.is_tag("ViT-B-32", "laion2b")
