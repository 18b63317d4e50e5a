import io

import pytest
from rich.console import Console

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.model_card import ModelCard, Published
from sparc_bench.cli.app import main
from sparc_bench.cli.check import check_model
from sparc_bench.errors import UserError
from sparc_bench.records.record import SCHEMA, Metric, Record, write_record
from sparc_bench.report import published

TASK = "flickr8k_retrieval"
HASH = bind(discovery.task(TASK)).protocol_hash(None)


def number(value, metric="text_to_image_r5", tolerance=0.002, task=TASK, source="a table"):
    return Published(task=task, metric=metric, value=value, tolerance=tolerance, source=source)


def card(*rows, name="clip", weights="ViT-B-32/openai"):
    return ModelCard(
        name=name, title=name, family="open_clip", source="a", options={"weights": weights}, published=rows
    )


def metric(value):
    return Metric(value=value, se=0.01, low=None, high=None, kind="mean", n_clusters=9, method="bootstrap")


@pytest.fixture
def record(tmp_path):
    """Write a record with these metrics; returns the results folder."""

    def write(name="clip", metrics=None, folder=None, **changes):
        values = {
            "schema_version": SCHEMA,
            **dict.fromkeys(("model_title", "model_hash", "weights_hash", "title", "data_hash", "outcome_hash"), ""),
            **dict.fromkeys(("split", "package_version", "commit", "device", "dataset"), ""),
            **{key: {} for key in ("paths", "libraries", "counts", "chance", "reference_rows", "groups")},
            "model": name,
            "model_family": "open_clip",
            "task": TASK,
            "task_family": "retrieval",
            "headline": "text_to_image_r5",
            "exposure": "unknown",
            "protocol": "retrieval",
            "protocol_version": 1,
            "protocol_hash": HASH,
            "dirty": None,
            "seed": 0,
            "precision": "float32",
            "sample": False,
            "limit": None,
            "n": 9,
            "ties": 0,
            "notes": (),
            "seconds": 0.0,
            "metrics": {key: metric(value) for key, value in (metrics or {"text_to_image_r5": 0.8}).items()},
            **changes,
        }
        path = tmp_path / "results" / (folder or name) / f"{TASK}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, Record(**values))
        return tmp_path / "results"

    return write


def shown(agreement):
    console = Console(file=io.StringIO(), width=200)
    console.print(published.render(agreement))
    return console.file.getvalue()


@pytest.mark.parametrize(("theirs", "agrees"), [(0.8, True), (0.802, True), (0.798, True), (0.8021, False)])
def test_a_number_agrees_within_its_tolerance(record, theirs, agrees):
    found = published.compare([card(number(theirs))], record())
    assert [each.agrees for each in found.compared] == [agrees]
    assert len(found.disagreeing) == (not agrees)
    assert found.waiting == {}


def test_a_line_says_it_all(record):
    text = shown(published.compare([card(number(0.8123, source="a paper, table 3"))], record(precision="bf16")))
    line = next(line for line in text.splitlines() if TASK in line)
    for cell in ("clip", "text_to_image_r5", "81.23", "80.00 (bf16)", "-1.23", "0.20", "NO", "a paper, table 3"):
        assert cell in line
    assert "1 of 1 numbers disagree" in text
    assert "All numbers agree" in shown(published.compare([card(number(0.8))], record()))


def test_what_has_no_record_is_one_line_with_the_command(tmp_path):
    cards = [card(number(0.8), number(0.9, "text_to_image_r1")), card(number(0.7), name="other")]
    agreement = published.compare(cards, tmp_path)
    assert agreement.compared == ()
    lines = shown(agreement).strip().splitlines()
    assert lines[0].startswith("3 published numbers of 2 models have no record to compare: run")
    assert f"sparc-bench eval clip --task {TASK} --data-root PATH" in " ".join(lines)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol_hash": "0" * 64}, "is of another protocol than flickr8k_retrieval has now"),
        ({"limit": 5}, "is of a part of the benchmark"),
        ({"sample": True}, "is of a part of the benchmark"),
    ],
)
def test_other_protocols_and_parts_are_never_compared(record, changes, sentence):
    agreement = published.compare([card(number(0.1))], record(**changes))
    assert agreement.compared == ()
    assert agreement.disagreeing == ()
    assert list(agreement.waiting) == ["clip"]
    assert sentence in " ".join(shown(agreement).split())


@pytest.mark.parametrize("folder", ["testing/clip", "samples/clip", "clip.seed1"])
def test_folders_of_tests_samples_and_other_seeds_are_not_looked_at(record, folder):
    agreement = published.compare([card(number(0.1))], record(folder=folder))
    assert (agreement.compared, agreement.other) == ((), ())


def test_a_model_typed_by_its_weights_counts_too(record):
    results = record("open_clip_ViT-B-32_openai")
    assert len(published.compare([card(number(0.8))], results).compared) == 1
    assert published.compare([card(number(0.8), weights="ViT-B-16/openai")], results).compared == ()


def test_a_metric_that_the_record_lacks_is_a_mistake_of_the_card(record):
    with pytest.raises(UserError, match="no metric 'text_to_image_5': did you mean 'text_to_image_r5'"):
        published.compare([card(number(0.8, "text_to_image_5"))], record())


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (number(0.8, task="flickr8k_retrievl"), "did you mean 'flickr8k_retrieval'"),
        (number(0.8, task="coco_val2017_mini_retrieval"), "is a sample"),
        (number(80.0), "write 0.633 for 63.3 %"),
        (number(0.8, tolerance=0.2), "write a fraction, such as 0.002"),
        (number(0.8, source=" "), "has no source"),
    ],
)
def test_odd_numbers_are_refused(row, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        check_model(card(row), tmp_path)
    with pytest.raises(UserError, match="twice"):
        check_model(card(number(0.8), number(0.81)), tmp_path)


def test_the_command_fails_only_where_a_number_disagrees(record, monkeypatch, capsys):
    results = record(metrics={"text_to_image_r5": 0.8, "image_to_text_r5": 0.9})
    command = ["check", "--published", "--results", str(results)]
    monkeypatch.setattr(published, "cards", lambda: [card(number(0.8), number(0.9, "image_to_text_r5"))])
    assert main(command) == 0
    assert "All numbers agree" in capsys.readouterr().out
    monkeypatch.setattr(published, "cards", lambda: [card(number(0.8), number(0.91, "image_to_text_r5"))])
    assert main(command) == 1
    assert "1 of 2 numbers disagree" in capsys.readouterr().out
    monkeypatch.setattr(published, "cards", lambda: [card(number(0.8), name="never_run")])
    assert main(command) == 0


def test_show_prints_the_numbers_of_a_model(capsys):
    assert main(["show", "openai_clip_vit_b_32"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("imagenet1k "))
    assert [cell for cell in line.split() if cell][:4] == ["imagenet1k", "top1", "63.32", "0.05"]
