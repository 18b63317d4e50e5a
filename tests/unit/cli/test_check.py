import json
import re
import shutil

import pytest

from sparc_bench.cards import discovery, prompts
from sparc_bench.cli import check as module
from sparc_bench.cli.check import check
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.records.record import read_record
from sparc_bench.report import leaderboard
from sparc_bench.report.ranking import build

pytestmark = pytest.mark.usefixtures("toy_plugins")

TASK = """
title = "Toy"
family = "classification"
dataset = "toy_data"
split = "test"
protocol = "toy_score"
headline = "local/top1"
source = "none"
[options]
prompts = "openai7"
classes = "own"
"""
MODEL = (
    'title = "Toy"\nfamily = "toy_family"\nsource = "none"\ntrained_on = ["toy_data:train"]\n[options]\nskill = 0.8\n'
)
RECIPE = """
title = "Small"
source = "none"
objective = "clip"
batch_size = 4
steps = 200
eval_every = 5
[data]
dataset = "toy_data"
val_split = "train"
[image]
[text]
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one task, one model and its record, all current."""
    monkeypatch.setattr(discovery, "cards_folder", lambda kind: tmp_path / kind)
    monkeypatch.setattr(prompts, "cards_folder", lambda kind: tmp_path / kind)
    for folder in ("tasks/prompts", "tasks/classes", "reference_models", "results"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tasks" / "toy.toml").write_text(TASK)
    (tmp_path / "reference_models" / "toy_model.toml").write_text(MODEL)
    (result,) = evaluate("toy_model", [discovery.task("toy")], Settings(tmp_path / "results"))
    assert result.error is None
    publish(tmp_path)
    return tmp_path


def publish(checkout):
    sections = build(checkout / "results")
    leaderboard.write_csv(sections, checkout / "results" / "leaderboard.csv")
    leaderboard.write_markdown(sections, checkout / "results" / "README.md")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_all_is_well(checkout):
    assert check(checkout) == []


def test_a_checkout_without_records_or_results(checkout):
    shutil.rmtree(checkout / "results" / "toy_model")
    assert check(checkout) == []
    shutil.rmtree(checkout / "results")
    assert check(checkout) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"toy_data"', '"toy_dat"', "did you mean 'toy_data'"),
        ('"toy_score"', '"toy_scor"', "did you mean 'toy_score'"),
        ('split = "test"', 'split = "tst"', "has no split 'tst'"),
        ('"openai7"', '"openai8"', "did you mean 'openai80'"),
        ('classes = "own"', 'classes = "mine"', "There is no class list 'mine'"),
        ('prompts = "openai7"', 'prompt = "openai7"', "did you mean 'prompts'"),
        ('headline = "local/top1"', 'headline = ""', "is no metric's name"),
        ("[options]", "sample = true\n[options]", "a sample without [expect]"),
        ("[options]", "[chance]\ntop1 = 20.0\n[options]", "is no fraction"),
        ("title =", "titel =", "did you mean 'title'"),
    ],
)
def test_broken_task_cards(checkout, old, new, sentence):
    edit(checkout / "tasks" / "toy.toml", old, new)
    problems = check(checkout)
    assert sentence in problems[0]


def test_broken_word_lists(checkout):
    (checkout / "tasks" / "prompts" / "p.toml").write_text('source = "x"\ntemplates = ["a photo"]')
    (checkout / "tasks" / "classes" / "c.toml").write_text('source = "x"')
    first, second = check(checkout)
    assert "does not hold one {}" in first
    assert "'words' is missing" in second


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"toy_family"', '"toy_famly"', "did you mean 'toy_family'"),
        ('"toy_data:train"', '"toy_data"', "names no split"),
        (
            "[options]",
            '[[published]]\ntask = "tyo"\nmetric = "m"\nvalue = 1\ntolerance = 0\nsource = ""\n[options]',
            "no task 'tyo'",
        ),
        ("[options]", f'[weights]\nfile = "weights/x"\nsha256 = "{"0" * 64}"\n[options]', "are missing"),
        ("[options]", '[weights]\nfile = "weights/x"\n[options]', "nothing pins weights/x: add its sha256"),
    ],
)
def test_broken_model_cards(checkout, old, new, sentence):
    edit(checkout / "reference_models" / "toy_model.toml", old, new)
    assert any(sentence in problem for problem in check(checkout))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("steps = 200", "steps = 200", None),
        ('objective = "clip"', 'objective = "clipp"', "did you mean 'clip'"),
        ('dataset = "toy_data"', 'dataset = "toy_dat"', "did you mean 'toy_data'"),
        ('val_split = "train"', 'val_split = "test"', "kept for evaluation"),
        ('val_split = "train"', 'val_split = "vall"', "has no split 'vall'"),
        ("[image]", "[data.options]\nm = 3\n[image]", "unknown key 'm'"),
        ("[image]", "[data.val_options]\nm = 3\n[image]", "unknown key 'm'"),
        ("[image]", "[objective_options]\nm = 3\n[image]", "unknown key 'm'"),
        ("steps = 200", "steps = 50", "must be under steps"),
        ("[image]", '[validate]\ntasks = ["tyo"]\n[image]', "There is no task 'tyo'"),
        ("[image]", '[validate]\ntasks = ["toy"]\n[image]', "toy_data marks none for watching a training"),
    ],
)
def test_recipes(checkout, old, new, sentence):
    (checkout / "reference_models" / "small.toml").write_text(RECIPE)
    edit(checkout / "reference_models" / "small.toml", old, new)
    problems = check(checkout)
    assert problems == [] if sentence is None else sentence in problems[0]


def test_two_things_of_one_name(checkout):
    (checkout / "reference_models" / "toy.toml").write_text(MODEL)
    assert check(checkout) == ["'toy' names something of tasks and of models: rename one."]


@pytest.mark.parametrize(
    ("card", "old", "new", "sentence"),
    [
        ("tasks/toy.toml", 'split = "test"', 'split = "train"', "its protocol has changed"),
        ("tasks/toy.toml", "title =", 'needs = ""\ntitle =', None),
        ("tasks/toy.toml", 'title = "Toy"', 'title = "Other"', "another title or headline"),
        ("tasks/toy.toml", "local/top1", "global/top1", "another title or headline"),
    ],
)
def test_records_of_changed_cards_are_stale(checkout, card, old, new, sentence):
    edit(checkout / card, old, new)
    problems = check(checkout)
    if sentence is None:
        assert problems == []
    else:
        assert sentence in problems[0]
        assert "sparc-bench eval toy_model --task toy" in problems[0]


def test_records_without_their_cards_outcomes_or_place(checkout):
    record_file = checkout / "results" / "toy_model" / "toy.json"
    record_file.with_suffix(".npz").write_bytes(b"other")
    assert "toy.npz beside it is missing or another one" in check(checkout)[0]
    record_file.rename(record_file.with_name("moved.json"))
    assert "it says that it is of toy_model on toy" in check(checkout)[0]
    record_file.with_name("moved.json").rename(record_file)
    (checkout / "tasks" / "toy.toml").unlink()
    assert "there is no task toy" in check(checkout)[0]
    (checkout / "tasks" / "toy.toml").write_text(TASK)
    (checkout / "reference_models" / "toy_model.toml").unlink()
    assert "there is no model toy_model" in check(checkout)[0]


def test_records_come_from_the_kept_weights(checkout):
    path = checkout / "results" / "toy_model" / "toy.json"
    kept = checkout / "reference_models" / "w.bin"
    kept.write_bytes(b"weights")
    sha256 = "9a3d7ba0bcb5c7e2a5f8dbb3a4c8a4fb9e7bd5e0d2a53b2c4c0e3a6b3e1d3b5a"
    card = checkout / "reference_models" / "toy_model.toml"
    card.write_text(MODEL + f'[weights]\nfile = "w.bin"\nsha256 = "{sha256}"\n')
    problems = check(checkout)
    assert any("has the sha256" in problem for problem in problems)
    assert any("it does not come from the kept weights" in problem for problem in problems)
    assert read_record(path).seed == 0


def test_damaged_records_and_edited_tables(checkout):
    (checkout / "results" / "leaderboard.csv").write_text("edited")
    edit(checkout / "results" / "README.md", "| model |", "| Model |")
    assert [("leaderboard.csv" in p, "README.md" in p) for p in check(checkout)] == [(True, False), (False, True)]
    publish(checkout)
    assert check(checkout) == []
    record = checkout / "results" / "toy_model" / "toy.json"
    values = json.loads(record.read_text())
    values["groups"]["class"]["cat"]["value"] = 5.0
    record.write_text(json.dumps(values))
    assert any("'groups.class.cat': value 5 is outside 0 to 1" in problem for problem in check(checkout))
    record.write_text("{")
    assert all("toy.json cannot be read" in problem for problem in check(checkout))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"value": 0.85}, r"local/top1 is 0\.85, and its outcomes give 0\.\d+"),
        ({"kind": "x", "unit": "number"}, "local/top1 has the kind x, its outcomes mean"),
    ],
)
def test_a_metric_that_its_outcomes_do_not_give_is_named(checkout, change, sentence):
    record = checkout / "results" / "toy_model" / "toy.json"
    values = json.loads(record.read_text())
    values["metrics"]["local/top1"].update(change)
    record.write_text(json.dumps(values))
    assert any(re.search(rf"toy\.json is stale: {sentence}; run sparc-bench eval", one) for one in check(checkout))


def test_without_arguments_it_looks_at_the_installed_cards(checkout):
    assert check() == []
    assert module.check() == check(checkout)


def test_a_family_that_one_card_spells_otherwise_is_named(checkout):
    cards = {"second": "classification", "third": "retrieval"}
    for name, family in cards.items():
        (checkout / "tasks" / f"{name}.toml").write_text(TASK.replace('"classification"', f'"{family}"'))
    assert module.family_problems(checkout / "tasks") == []
    (checkout / "tasks" / "third.toml").write_text(TASK.replace('"classification"', '"classificaton"'))
    sentence = "Task third alone is of the family 'classificaton': did you mean 'classification'?"
    assert module.family_problems(checkout / "tasks") == [sentence]
    assert sentence in check(checkout)


def test_the_tasks_here_spell_their_families_alike():
    assert module.family_problems(discovery.cards_folder("tasks")) == []
