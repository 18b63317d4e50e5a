"""`import sparc_bench as sb`: the command line's work with values of Python, on the toy data set."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import sparc_bench as sb
from sparc_bench.cli.app import main
from sparc_bench.encoder import Runtime
from sparc_bench.records.record import read_record
from tests.toys.plugins import toy_family
from tests.unit.cli.test_light import HEAVY

SECONDS = 0.3
"""That the import may take."""


class Towers(nn.Module):
    """Sees nothing: one of two vectors for a text, the same one for all images; its dropout would show."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.dropout = nn.Dropout(0.5)

    def encode_patches(self, pixels):
        return self.dropout(torch.ones(len(pixels), 4, 8) * self.scale)

    def encode_image(self, pixels):
        return self.encode_patches(pixels).mean(1)

    def encode_text(self, texts):
        return torch.tensor([[1.0] * 7 + [float("cat" in text)] for text in texts])


def pixels(image):
    return torch.zeros(3, 4, 4)


def wrapped(towers=None, **options):
    towers = towers or Towers()
    return sb.wrap(towers, pixels, patches=towers.encode_patches, **{"name": "towers", **options})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, in which `results` lies."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_a_fresh_process(code):
    call = [sys.executable, "-c", f"import sys, json, time\n{code}"]
    return json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)


def test_the_import_is_quick_and_brings_nothing_heavy():
    seconds, modules = in_a_fresh_process(
        "begin = time.perf_counter(); import sparc_bench as sb; seconds = time.perf_counter() - begin\n"
        "dir(sb); print(json.dumps([seconds, list(sys.modules)]))"
    )
    assert seconds < SECONDS
    assert not {*HEAVY, "numpy", "pydantic", "rich", "PIL"} & {*modules}
    assert [name for name in modules if name.startswith("sparc_bench")] == ["sparc_bench"]


@pytest.mark.slow
def test_lists_and_records_need_no_torch():
    modules = in_a_fresh_process(
        "import sparc_bench as sb; sb.list_tasks(); sb.list_models(); sb.UserError\nprint(json.dumps([*sys.modules]))"
    )
    assert {*HEAVY} & {*modules} == {"pandas"}


def test_every_name_is_there_and_no_other():
    assert all(getattr(sb, name).__name__ == name for name in sb.__all__)
    assert {*sb.__all__} <= {*dir(sb)}
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        _ = sb.evalute


@pytest.mark.slow
def test_the_command_line_writes_the_same_record(here):
    records = sb.evaluate("scenes_clip", tasks=["scenes_classification_colour"], limit=12, results=here / "python")
    words = ["--task", "scenes_classification_colour", "--limit", "12", "--results", "shell"]
    assert main(["eval", "scenes_clip", *words]) == 0
    [file] = here.glob("shell/testing/*/*.json")
    assert read_record(file).model_copy(update={"seconds": 0.0}) == records[0].model_copy(update={"seconds": 0.0})


def test_a_model_by_its_card(here, toy_task, toy_model):
    records = sb.evaluate(toy_model(), toy_task())
    assert (len(records), records.errors) == (1, {})
    assert records[0] == read_record(here / "results" / "toy_good" / "toy.json")
    again = sb.evaluate(toy_model(), [toy_task(), toy_task("other", data={"n": 12})])
    assert [record.n for record in again] == [30, 12]
    assert again[0] == records[0]


@pytest.mark.slow
def test_a_failed_task_does_not_stop_the_others(here, toy_task, toy_model):
    broken = toy_task("broken", data={"fail": True})
    with pytest.warns(UserWarning, match="1 of 2 tasks failed:\nbroken: The toy data are broken"):
        records = sb.evaluate(toy_model(), [broken, toy_task()])
    assert [record.task for record in records] == ["toy"]
    assert records.errors == {"broken": "The toy data are broken: leave 'fail' out."}
    assert "broken failed: The toy data" in repr(records)
    with pytest.raises(sb.UserError, match=r"^The toy data are broken: leave 'fail' out\.$"):
        sb.evaluate(toy_model(), [broken])


@pytest.mark.slow
def test_mistakes_are_said_before_anything_is_loaded(here, toy_task, toy_model, monkeypatch):
    for words, sentence in [
        ({"model": "scenes_clp", "suite": "scenes"}, "did you mean 'scenes_clip'"),
        ({"model": "scenes_clip"}, r"No task was named: give tasks=\[...\]"),
        ({"model": "scenes_clip", "tasks": ["scenes_retrievl"]}, "did you mean 'scenes_retrieval'"),
        (
            {"model": "scenes_clip", "suite": "scenes", "data_root": here / "none"},
            r"data root .*none does not exist",
        ),
        ({"model": wrapped(), "suite": "scenes", "device": "none"}, "The device 'none' cannot be used"),
        ({"model": Towers(), "suite": "scenes"}, r"A Towers is no model, .*what sparc_bench\.wrap\(model"),
    ]:
        with pytest.raises(sb.UserError, match=sentence):
            sb.evaluate(**words)
    monkeypatch.setenv("SPARC_BENCH_DATA", str(here / "absent"))
    with pytest.raises(sb.UserError, match=r"data root .*absent does not exist"):
        sb.evaluate("scenes_clip", suite="scenes")
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"precision": "fp16"}, "precision is .fp16.: did you mean .bf16"),
        ({"cache": "yes"}, "cache is 'yes': choose one of full, half"),
        ({"batch_size": -4}, "batch_size is -4: give a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"limit": 2.5}, "limit is 2.5"),
        ({"workers": -1}, "workers is -1: give a whole number of at least 0"),
        ({"seed": -1}, "seed is -1"),
        ({"device": torch.device("meta")}, "The device 'meta' cannot be used here"),
        ({"tasks": None}, "tasks is of type NoneType: give names"),
        ({"tasks": [3]}, "A task is of type int: give a name"),
    ],
)
def test_values_that_no_setting_has_are_refused(here, toy_task, toy_model, setting, sentence):
    with pytest.raises(sb.UserError, match=sentence):
        sb.evaluate(toy_model(), **{"tasks": toy_task(), **setting})
    assert not (here / "results").exists()


def test_a_device_may_be_one_of_torch(here, toy_task, toy_model):
    assert len(sb.evaluate(toy_model(), toy_task(), device=torch.device("cpu")).files) == 1


def test_a_model_in_memory(here, toy_task):
    towers = Towers()
    (record,) = sb.evaluate(wrapped(towers, title="Sees nothing"), toy_task(), batch_size=7)
    assert towers.training
    assert towers.dropout.training
    assert (record.model, record.model_title, str(record.exposure)) == ("towers", "Sees nothing", "unknown")
    assert record.metrics["local/top1"].value == pytest.approx(1 / 3)  # the same answer to every image
    assert (here / "results" / "towers" / "toy.json").is_file()


@pytest.mark.slow
def test_records_of_other_weights_are_not_replaced_in_silence(here, toy_task):
    towers = Towers()
    model = wrapped(towers)
    (first,) = sb.evaluate(model, toy_task())
    (same,) = sb.evaluate(model, toy_task())
    assert same.weights_hash == first.weights_hash
    with torch.no_grad():
        towers.scale += 1
    with pytest.raises(sb.UserError, match=r"toy\.json is there, .* has other weights \(\w{12}\.\.\.\): name this one"):
        sb.evaluate(model, toy_task())
    (other,) = sb.evaluate(model, toy_task(), force=True)
    assert other.weights_hash != first.weights_hash
    assert read_record(here / "results" / "towers" / "toy.json") == other


def test_a_changed_preprocess_is_seen_although_no_hash_tells_it(here, toy_task):
    towers = Towers()
    assert sb.evaluate(wrapped(towers), toy_task())[0].metrics["local/top1"].value > 0
    odd = sb.wrap(towers, pixels, patches=lambda pixels: torch.full((len(pixels), 4, 8), torch.nan), name="towers")
    with pytest.raises(sb.UserError, match="finite"):
        sb.evaluate(odd, toy_task())


def test_weights_that_cannot_be_seen_are_never_the_same(here, toy_task):
    class Plain:
        encode_image = staticmethod(lambda pixels: torch.ones(len(pixels), 8))
        encode_text = staticmethod(lambda texts: torch.ones(len(texts), 8))

    model = sb.wrap(Plain(), pixels, patches=lambda pixels: torch.ones(len(pixels), 4, 8))
    assert sb.evaluate(model, toy_task())[0].model == "Plain"
    with pytest.raises(sb.UserError, match="of a model of this name that may have other weights"):
        sb.evaluate(model, toy_task())


def test_an_encoder_has_its_own_settings(here, toy_task, toy_model):
    card = wrapped(name="own").card.model_copy(update={"options": {"skill": 0.5}})
    encoder = toy_family.load(card, None, Runtime())
    assert sb.evaluate(encoder, toy_task())[0].model == "own"
    with pytest.raises(sb.UserError, match="has its own batch_size: leave batch_size out"):
        sb.evaluate(encoder, toy_task(), batch_size=4, force=True)


def test_records_are_loaded_chosen_and_compared(here, toy_task, toy_model):
    tasks = [toy_task(), toy_task("sampled", data={"n": 12}, sample=True)]
    mine, good = sb.evaluate(wrapped(), tasks), sb.evaluate(toy_model(), tasks)
    records = sb.load_records("results")
    assert {*records.models} == {"toy_good", "towers"}
    assert {record.task: record for record in records.of("towers")} == {record.task: record for record in mine}
    assert [*sb.load_records("results/towers")] == [mine[0]]
    table = sb.compare(mine, good).to_pandas()
    assert table.equals(sb.compare("towers", records.of("toy_good")).to_pandas())
    row = table.set_index(["task", "metric"]).loc["toy", "local/top1"]
    assert row["difference"] == pytest.approx(row["a"] - row["b"])
    assert (row["ahead"], row["images"]) == ("toy_good", 30)
    with pytest.raises(sb.UserError, match=r"Records of 2 models .* choose one with \.of\(NAME\)"):
        sb.compare(records, mine)
    with pytest.raises(sb.UserError, match=r"no records of 'tower': did you mean 'towers'"):
        records.of("tower")
    with pytest.raises(sb.UserError, match="There are no records in none"):
        sb.load_records("none")


@pytest.mark.slow
def test_training_with_changes_gives_a_run_that_evaluates(here):
    data = {"options": {"n": 200}, "val_options": {"n": 40}}
    changes = {"steps": 2, "eval_every": 2, "batch_size": 8, "optim": {"warmup": 1}, "data": data}
    torch.use_deterministic_algorithms(False)
    folder = sb.train("scenes_clip", name="short", **changes)
    assert (folder / "model.safetensors").is_file()
    assert str(folder) == "runs/short/seed0"
    assert not torch.are_deterministic_algorithms_enabled()
    assert sb.train("scenes_clip", name="short", **changes) == folder  # finished: it is kept
    (record,) = sb.evaluate(folder, "scenes_classification_colour", limit=12)
    assert record.model == "short"


def test_what_is_no_recipe_record_or_seed_is_refused():
    for call in (lambda: sb.train(None), lambda: sb.compare(3, "a"), lambda: sb.train("scenes_clip", seed=-1)):
        with pytest.raises(sb.UserError, match=r"of type|seed is -1"):
            call()


def test_a_misspelt_change_is_refused():
    with pytest.raises(sb.UserError, match="unknown key 'stpes': did you mean 'steps'"):
        sb.train("scenes_clip", stpes=2)


def test_tasks_and_models_as_tables():
    tasks = sb.list_tasks(suite="scenes", family="retrieval")
    assert {*tasks["family"]} == {"retrieval"}
    assert "scenes_retrieval" in {*tasks["task"]}
    assert "scenes_clip" in {*sb.list_models()["model"]}
    with pytest.raises(sb.UserError, match="did you mean 'scenes'"):
        sb.list_tasks(suite="scens")
