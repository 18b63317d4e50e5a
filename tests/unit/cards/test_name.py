"""Names that a stranger wrote: in cards, run folders, checkpoints and records; none becomes a path of its own."""

import json

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.name import fault, fault_of_model
from sparc_bench.catalogue.data_card import read_card
from sparc_bench.cli.app import main
from sparc_bench.errors import UserError
from sparc_bench.files.tensor_file import write_tensors
from sparc_bench.records.record import read_record, record_files
from sparc_bench.two_towers import checkpoint

ODD = [
    "../../evil",
    "/tmp/evil",
    "..",
    ".",
    "",
    ".hidden",
    "-flag",
    "a/b",
    "a\\b",
    "C:evil",
    "a\0b",
    "a\nb",
    "a\x1b[31m",
    "x.seed1",
    "x" * 300,
    "漢" * 120,
    "samples",
    "Studies",
]
ROOT = discovery.cards_folder("tasks").parent


def card_with(name, source, folder):
    """A copy of a card that names itself."""
    folder.mkdir(exist_ok=True)
    path = folder / "card.toml"
    path.write_text(f"name = {json.dumps(name)}\n" + source.read_text())
    return path


@pytest.mark.parametrize("name", ODD)
def test_no_card_has_an_odd_name(name, tmp_path):
    recipe, task, model, study, data = (
        card_with(name, ROOT / file, tmp_path / file.replace("/", "_"))
        for file in (
            "reference_models/scenes_clip.toml",
            "tasks/scenes_retrieval.toml",
            "reference_models/openai_clip_vit_b_32.toml",
            "reference_models/studies/scenes.toml",
            "tasks/data/scenes1.toml",
        )
    )
    of_models = [lambda: discovery.model(str(recipe)), lambda: discovery.model(str(model))]
    of_others = [
        lambda: discovery.task(str(task)),
        lambda: discovery.study(str(study)),
        lambda: read_card(data),
    ]
    for read in of_models if name in ("samples", "Studies") else of_models + of_others:
        with pytest.raises(UserError, match="'name'"):
            read()


def test_a_card_with_an_odd_name_writes_nothing(tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    recipe = card_with(str(tmp_path / "evil"), ROOT / "reference_models/scenes_clip.toml", here)
    before = sorted(tmp_path.rglob("*"))
    for command, *options in (["train"], ["eval", "--suite", "scenes"], ["export", "--to", "safetensors"]):
        assert main([command, str(recipe), *options]) == 2
        assert "letters, digits" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../../evil", "/evil"])
def test_a_checkpoint_with_an_odd_name_is_refused(name, tmp_path):
    """The recipe in a run folder and in the metadata of a file, and the model that it began from."""
    meta, tensors = checkpoint.read(ROOT / "reference_models/weights/scenes_clip.safetensors")
    strings = meta.to_strings()
    recipe = json.loads(strings["recipe"]) | {"name": name}
    file = tmp_path / "model.safetensors"
    write_tensors(tensors, {**strings, "recipe": json.dumps(recipe)}, file)
    for read in (checkpoint.read_meta, checkpoint.read):
        with pytest.raises(UserError, match="'name' cannot name a folder"):
            read(file)
    start = {"model": name, "weights_hash": "", "trained_on": [], "heads": {}}
    start["towers"] = json.loads(meta.architecture.model_dump_json())
    write_tensors(tensors, {**strings, "start": json.dumps(start)}, file)
    with pytest.raises(UserError, match="'model' cannot name a folder"):
        checkpoint.read_meta(file)


@pytest.mark.parametrize("key", ["model", "task"])
def test_a_record_with_an_odd_name_is_refused(key, tmp_path):
    values = json.loads(record_files(ROOT / "results")[0].read_text())
    file = tmp_path / "record.json"
    file.write_text(json.dumps({**values, key: "../../evil"}))
    with pytest.raises(UserError, match=f"'{key}'"):
        read_record(file)


@pytest.mark.parametrize("entry", ["..", "../..toml", "a/.toml"])
def test_a_study_of_an_odd_recipe_is_refused(entry, tmp_path):
    text = (ROOT / "reference_models/studies/scenes.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('"scenes_sparc"', json.dumps(entry), 1))
    with pytest.raises(UserError, match="cannot name a folder"):
        discovery.study(str(path))


def test_every_name_in_the_project_is_good():
    models, others = discovery.names("models"), [*discovery.names("tasks"), *discovery.names("studies")]
    assert [name for name in models if fault_of_model(name)] == []
    assert [name for name in others if fault(name)] == []
