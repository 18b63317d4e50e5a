import errno
import json
import math
import os
from pathlib import Path

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.metrics import average_precision, presence  # noqa: F401 - their kinds are to be known
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.records import outcome_file
from sparc_bench.records.record import (
    SHARES,
    Metric,
    Record,
    headline_metrics,
    model_hash,
    pretty_json,
    read_record,
    recipe_hash,
    record_files,
    record_path,
    write_record,
)

pytestmark = pytest.mark.usefixtures("toy_plugins")


def test_where_records_lie():
    def path(seed=0, sample=False, limit=None):
        return record_path(Path("r"), "m", seed, "t", sample=sample, limit=limit).as_posix()

    assert path() == "r/m/t.json"
    assert path(seed=2) == "r/m.seed2/t.json"
    assert path(sample=True) == "r/samples/m/t.json"
    assert path(limit=5) == "r/testing/m/t.json"
    assert path(sample=True, limit=5) == "r/testing/m/t.json"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, step):
    path = tmp_path / "m" / "t.json"
    write_atomic(path, b"old")

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "replace", full)))
    with pytest.raises(UserError, match=r"t\.json cannot be written \(No space left on device\): free some space"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["t.json"]


def test_an_interrupt_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "t.json"
    write_atomic(path, b"old")

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("t.json", b"old")]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "t.json", b"x")


def test_record_round_trip(evaluated):
    path = evaluated() / "toy_good" / "toy.json"
    record = read_record(path)
    write_record(path.with_name("again.json"), record)
    assert path.read_bytes() == path.with_name("again.json").read_bytes()
    assert json.loads(path.read_text())["metrics"]["local/top1"]["value"] == record.metrics["local/top1"].value


def changed(*keys, **values):
    """A function that puts values into a table of a record."""

    def put(text):
        record = table = json.loads(text)
        for key in keys:
            table = table[key]
        table.update(values)
        return json.dumps(record)

    return put


def seen(**values):
    usual = {"training_captions": {"cat": 3}, "metric": "local/top1", "seen_classes": 1, "unseen_classes": 1}
    return usual | {"seen": 0.5, "unseen": 0.5} | values


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 0'), "not of schema 1"),
        (lambda text: text.replace('"n": 30', '"n": "many"'), r"damaged \('n'"),
        (lambda text: text.replace('"n": 30', '"n": 30, "extra": 1'), r"damaged \('extra'"),
        (lambda _: "[]", "not of schema 1"),
        (changed("metrics", "local/top1", value=5.0), r"'metrics\.local/top1': value 5 is outside 0 to 1"),
        (changed("metrics", "global/top1", value=-3.0), r"'metrics\.global/top1': value -3 is outside 0 to 1"),
        (changed("metrics", "local/top1", value=math.nan), r"'metrics\.local/top1\.value': Input should be a finite"),
        (changed("metrics", "local/top1", high=math.inf), r"'metrics\.local/top1\.high': Input should be a finite"),
        (changed("metrics", "local/top1", low=-0.5), "low -0.5 is outside 0 to 1"),
        (changed("metrics", "local/top1", low=0.9, high=0.1), "low 0.9 is above high 0.1"),
        (changed("metrics", "local/top1", se=-1), r"'metrics\.local/top1\.se': Input should be greater"),
        (changed("groups", "class", "cat", value=2.0), r"'groups\.class\.cat': value 2 is outside"),
        (changed("reference_rows", "random", **{"local/top1": 7.0}), "random.local/top1 7 is outside 0 to 1"),
        (changed("reference_rows", "random", **{"local/top1": math.nan}), "Input should be a finite"),
        (changed("chance", **{"local/top1": -1.0}), "chance.local/top1 -1 is outside 0 to 1"),
        (changed("metrics", "local/top1", value=-3.0, least=-5.0), "kind 'mean' is a share of 1"),
        (changed("metrics", "local/top1", value=5.0, high=5.0, most=9.0), "kind 'mean' is a share of 1"),
        (changed("metrics", "local/top1", value=5.0, high=5.0, less_is_better=True), "kind 'mean' is a share of 1"),
        (changed("metrics", "local/top1", value=5.0, high=5.0, unit="number"), "kind 'mean' is a share of 1"),
        (changed("metrics", "local/top1", value=-3.0, low=-4.0, least=-5.0, kind="x"), "range of -5 to 1 is none of a"),
        (changed("metrics", "local/top1", value=5.0, high=6.0, most=9.0, kind="x"), "range of 0 to 9 is none of a"),
        (changed("metrics", "local/top1", value=0.999999), "value 0.999999 less its bias is outside its interval"),
        (
            changed("metrics", "local/top1", value="0.8"),
            r"'metrics\.local/top1\.value': Input should be a valid number",
        ),
        (changed("chance", **{"local/top1": "0.1"}), r"'chance\.local/top1': Input should be a valid number"),
        (changed(n="30"), "'n': Input should be a valid integer"),
        (changed(n=0), "'n': Input should be greater"),
        (changed(seed=-1), "'seed': Input should be greater"),
        (changed(classes_seen=seen(seen=1.5)), "classes_seen.seen.local/top1 1.5 is outside 0 to 1"),
        (changed(classes_seen=seen(unseen_classes=-1)), r"'classes_seen\.unseen_classes': Input should be greater"),
        (
            changed(classes_seen=seen(training_captions={"cat": -1})),
            r"captions\.cat': Input should be greater",
        ),
        (changed(n=-1), "'n': Input should be greater"),
        (changed("counts", images=-5), r"'counts\.images': Input should be greater"),
        (changed(seconds=math.nan), "'seconds': Input should be a finite"),
    ],
)
def test_damaged_records_end_in_what_to_type(evaluated, damage, sentence):
    path = evaluated() / "toy_good" / "toy.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=rf"{sentence}.*--force\."):
        read_record(path)


def test_errors_and_plain_numbers_may_be_above_one():
    about = {"kind": "x", "n_clusters": 3, "method": "bootstrap", "se": 0.1, "low": 1.0, "high": 3.0, "value": 2.0}
    assert Metric.model_validate({**about, "less_is_better": True}).range == (0, math.inf)
    assert Metric.model_validate({**about, "unit": "number"}).range == (0, math.inf)
    assert Metric.model_validate({**about, "kind": "corruption_error"}).less_is_better
    for limits in ({"most": 1.5, "less_is_better": True}, {"least": 2.5, "unit": "number"}):
        with pytest.raises(ValueError, match="value 2 is outside"):
            Metric.model_validate({**about, **limits})


def test_the_kinds_that_are_shares_are_those_whose_classes_fix_it():
    of_metrics = [cls for cls in outcome_file.known_kinds().values() if cls.__module__.startswith("sparc_bench.")]
    fixed = [cls for cls in of_metrics if vars(cls).get("most", Statistic.most) is Statistic.most and cls.least >= 0]
    assert {cls.kind for cls in fixed} == SHARES
    assert {(cls.unit, cls.less_is_better, cls.least) for cls in fixed} == {("percent", False, 0.0)}


def test_an_interval_is_about_the_value_without_its_bias():
    about = {"kind": "iou", "n_clusters": 3, "se": 0.01, "low": 0.5, "high": 0.6, "value": 0.65, "method": "jackknife"}
    assert Metric.model_validate({**about, "bias": 0.08}).value == 0.65
    assert Metric.model_validate({**about, "method": "bootstrap"}).value == 0.65
    with pytest.raises(ValueError, match="less its bias is outside its interval"):
        Metric.model_validate(about)


def test_missing_record():
    with pytest.raises(UserError, match="cannot be read"):
        read_record(Path("nowhere.json"))


def test_headline_metrics_of_tasks_without_paths():
    assert headline_metrics("top1", {"top1": 0, "top5": 0}, {"local": True}) == ["top1"]
    assert headline_metrics("miou", {"local/miou": 0, "global/miou": 0}, {"local": True, "global": True}) == [
        "local/miou",
        "global/miou",
    ]
    assert headline_metrics("text/r1", {"text/r1": 0, "image/r1": 0}, {"local": True}) == ["text/r1"]
    assert headline_metrics("nothing", {"top1": 0}, {}) == []


def test_model_hash_is_of_what_decides_a_number():
    card = ModelCard(name="a", title="t", family="own", source="s", options={"size": 1})
    assert model_hash(card) == model_hash(card.model_copy(update={"title": "u", "source": "v"}))
    assert model_hash(card) != model_hash(card.model_copy(update={"options": {"size": 2}}))


def test_pretty_json_is_json_with_one_metric_a_line():
    value = {"a": {"x": 1, "y": None}, "b": [], "c": {"d": {"e": [1, "é"]}}, "f": "x" * 300, "g": ["long" * 60, "b"]}
    text = pretty_json(value)
    assert json.loads(text) == value
    assert '  "a": {"x": 1, "y": null},\n' in text


def test_another_preprocessing_is_another_record_but_records_of_before_do_not_know_theirs():
    root = Path(__file__).parents[3] / "results"
    old = read_record(record_files(root)[0]).model_copy(update={"encoder_hash": ""})
    first, second = (old.model_copy(update={"encoder_hash": each}) for each in "ab")
    assert old.same_inputs(first)
    assert first.same_inputs(first)
    assert not first.same_inputs(second)
    assert not first.same_inputs(old)


def test_metrics_know_their_patch_path(evaluated):
    record = read_record(evaluated() / "toy_good" / "toy.json")
    assert [(name.path, name.metric) for name in record.metrics] == [("local", "top1"), ("global", "top1")]
    assert [name.path for name in record.headline_metrics] == ["local", "global"]
    assert [record.trained_for(name) for name in ("local/top1", "global/top1", "top1")] == [
        *(record.paths[path] for path in ("local", "global")),
        True,
    ]


def test_records_from_before_reference_rows_had_their_name_are_read():
    file = record_files(Path(__file__).parents[3] / "results")[0]
    values = json.loads(file.read_text(encoding="utf-8"))
    rows = values.pop("reference", None) or values.pop("reference_rows")
    assert Record.model_validate({**values, "reference": rows}) == Record.model_validate(
        {**values, "reference_rows": rows}
    )


def test_the_spacing_of_checkpoints_enters_no_hash():
    recipe = discovery.recipe("scenes_clip")
    assert recipe_hash(recipe.model_copy(update={"checkpoint_every": 7})) == recipe_hash(recipe)
    assert recipe_hash(recipe.model_copy(update={"eval_every": 7})) != recipe_hash(recipe)
