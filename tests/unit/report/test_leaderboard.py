import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from sparc_bench.errors import UserError
from sparc_bench.metrics.seeds import over_seeds
from sparc_bench.metrics.statistic import Mean
from sparc_bench.records import outcome_file
from sparc_bench.records.record import Metric, read_record, record_path, write_record
from sparc_bench.report import leaderboard, overview
from sparc_bench.report.ranking import build

pytestmark = pytest.mark.usefixtures("toy_plugins")


def metric(value, half):
    low, high = max(value - half, 0.0), min(value + half, 1.0)
    return Metric(value=value, se=half / 2, low=low, high=high, kind="mean", n_clusters=30, method="bootstrap")


def credits(value):
    """Thirty images, of which the first ones are right."""
    return Mean.of((np.arange(30) < round(30 * value)).astype(float))


@pytest.fixture
def board(evaluated, tmp_path):
    """Write a record with these numbers on the task `toy`; returns the results folder."""
    base = read_record(evaluated("base") / "base" / "toy.json")
    results = tmp_path / "board"

    def add(model, value, half=0.02, seed=0, floor=0.3, **changes):
        changes = {
            "model": model,
            "model_family": "own",
            "seed": seed,
            "paths": {},
            "headline": "top1",
            "metrics": {"top1": metric(value, half)},
            "reference_rows": {"constant": {"top1": floor}, "ceiling": {"top1": 0.99}},
            **changes,
        }
        statistics = {name: credits(value) for name in changes["metrics"]}
        outcome, _ = outcome_file.pack([str(i) for i in range(30)], statistics, {}, {}, {}, list(statistics))
        record = base.model_copy(update={"outcome_hash": outcome_file.sha256(outcome), **changes})
        path = record_path(results, model, seed, record.task, sample=record.sample, limit=record.limit)
        write_record(path, record)
        path.with_suffix(".npz").write_bytes(outcome)
        return results

    return add


def references(section):
    return [(row.label, row.value) for row in section.reference_rows]


def test_rows_are_ranked_by_intervals_not_by_values(board):
    board("a", 0.80), board("b", 0.79)
    (section,) = build(board("c", 0.60))
    assert [(row.model, row.rank) for row in section.rows] == [("a", 1), ("b", 1), ("c", 3)]
    assert "No winner: the intervals of a, b overlap" in section.remarks()[0]


def test_a_winner_is_named_only_where_its_interval_is_above(board):
    board("a", 0.80)
    (section,) = build(board("b", 0.70))
    assert section.remarks()[0] == "a is ahead of the others (its interval lies above theirs)."
    board("a", 0.80, floor=0.79)
    (section,) = build(board("b", 0.70))
    assert "yet not clear of its reference rows" in section.remarks()[1]


def test_rows_that_are_not_clear_of_their_floor_say_so(board):
    (section,) = build(board("a", 0.31))
    assert not section.rows[0].clear
    assert section.remarks()[0] == "Not clear of its reference rows: a (constant: 30.0)."
    (section,) = build(board("a", 0.33))
    assert section.rows[0].clear
    assert section.rows[0].floor == ("constant", 0.3)


def test_chance_of_the_card_is_a_floor_and_a_ceiling_is_none(board):
    (section,) = build(board("a", 0.5, chance={"top1": 0.49}))
    assert section.rows[0].floor == ("chance", 0.49)
    assert references(section) == [("ceiling", 0.99), ("chance", 0.49), ("constant", 0.3)]


def test_rows_of_other_protocols_exposure_or_data_are_never_ranked_together(board):
    board("a", 0.8), board("b", 0.7, protocol_hash="0" * 64)
    board("c", 0.6, exposure="30 images seen"), board("d", 0.6, data_hash="1" * 64)
    sections = build(board("e", 0.5))
    assert [[row.model for row in section.rows] for section in sections].count(["a", "e"]) == 1
    assert sorted(len(section.rows) for section in sections) == [1, 1, 1, 2]
    seen = next(section for section in sections if section.exposure == "seen")
    assert "these images were seen in training" in seen.heading


def test_samples_have_their_own_section_and_testing_none(board):
    board("a", 0.8), board("b", 0.9, sample=True)
    sections = build(board("c", 0.7, limit=5))
    assert [[row.model for row in section.rows] for section in sections] == [["a"], ["b"]]
    assert "@sample n=30" in sections[1].heading
    text = leaderboard.markdown_text(sections)
    assert text.index("## Overview") < text.index("## Whole benchmarks") < text.index("## Samples of benchmarks")
    assert text.index("## Samples of benchmarks") < text.index("| 1 | b |")


def test_seeds_of_a_recipe_are_one_row_over_seeds_and_images(board):
    board("a", 0.80, seed=0), board("a", 0.90, seed=1), board("a", 0.80, seed=4)
    (section,) = build(board("b", 0.5))
    row = section.rows[0]
    expected = over_seeds([credits(0.8), credits(0.9), credits(0.8)])
    assert (row.value, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-6)
    assert row.value == pytest.approx(0.8333333)
    assert (row.seeds, row.seed_values) == ((0, 1, 4), (0.8, 0.9, 0.8))
    assert row.seed_intervals[1] == pytest.approx((0.88, 0.92))
    assert [row.one_seed for row in section.rows] == [False, True]
    text = leaderboard.markdown_text([section])
    assert "3 seeds, 80.0 to 90.0" in text
    assert "One seed only, so that the spread between trainings is not in the interval: b." in text


def test_one_seed_keeps_the_interval_of_its_record(board):
    (section,) = build(board("a", 0.80, half=0.013, seed=2))
    assert (section.rows[0].low, section.rows[0].high) == pytest.approx((0.787, 0.813))


def test_versions_of_a_recipe_are_never_pooled(board):
    board("a", 0.80, recipe_hash="1" * 64), board("a", 0.90, seed=1, recipe_hash="2" * 64)
    (section,) = build(board("a", 0.90, seed=2, recipe_hash="2" * 64))
    assert [(row.model, row.seeds) for row in section.rows] == [
        ("a (recipe 22222222)", (1, 2)),
        ("a (recipe 11111111)", (0,)),
    ]
    assert "| a (recipe 22222222) | 2 |" in overview.text([section])


def test_seeds_without_their_outcomes_are_not_pooled_from_anything_else(board):
    board("a", 0.80), board("a", 0.90, seed=1)
    results = board("b", 0.5)
    (results / "b" / "toy.npz").unlink()
    assert len(build(results)) == 1
    (results / "a.seed1" / "toy.npz").write_bytes((results / "a" / "toy.npz").read_bytes())
    with pytest.raises(
        UserError, match=r"a\.seed1.toy\.npz.* missing or another record's.*eval on seed 1 of a and toy"
    ):
        build(results)


def test_outcomes_are_opened_once_and_only_where_seeds_are_pooled(board, monkeypatch):
    two = {
        "paths": {"local": True, "global": True},
        "headline": "local/top1",
        "metrics": {"local/top1": metric(0.8, 0.02), "global/top1": metric(0.8, 0.02)},
        "reference_rows": {},
    }
    board("a", 0.80, **two), board("a", 0.90, seed=1, **two)
    results = board("alone", 0.5)
    opened = []
    read_bytes = Path.read_bytes

    def counted(path):
        opened.append(path.relative_to(results).as_posix())
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert [row.seeds for section in build(results) for row in section.rows].count((0, 1)) == 2
    assert sorted(name for name in opened if name.endswith(".npz")) == ["a.seed1/toy.npz", "a/toy.npz"]


@pytest.mark.slow
def test_means_of_seeds_need_no_torch(board):
    board("a", 0.80, protocol="classification")
    results = board("a", 0.90, seed=1, protocol="classification")
    code = (
        "import sys; from sparc_bench.cli.app import main; "
        f"main(['leaderboard', {str(results)!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False).returncode == 0
    assert (results / "leaderboard.png").is_file()


def test_reference_rows_of_seeds_are_their_mean(board):
    board("a", 0.80, reference_rows={"untrained": {"top1": 0.2}, "constant": {"top1": 0.3}})
    (section,) = build(board("a", 0.90, seed=1, reference_rows={"untrained": {"top1": 0.6}, "constant": {"top1": 0.3}}))
    assert references(section) == [("untrained", 0.4), ("constant", 0.3)]
    assert section.rows[0].floor == ("untrained", 0.4)


def test_many_reference_rows_of_a_kind_are_printed_as_a_range(board):
    for name, value in (("a", 0.2), ("b", 0.3), ("c", 0.25)):
        results = board(name, 0.8, reference_rows={"untrained": {"top1": value}, "constant": {"top1": 0.1}})
    (section,) = build(results)
    assert [name for name, _ in references(section)][:3] == ["untrained (b)", "untrained (c)", "untrained (a)"]
    text = leaderboard.markdown_text([section])
    assert "|  | *untrained (3 models)* | *20.0 to 30.0* | | |" in text
    assert "|  | *constant* | *10.0* | | |" in text


def test_checkpoints_of_others_have_no_seeds(board):
    (section,) = build(board("a", 0.8, model_family="open_clip"))
    assert section.remarks() == []
    assert "one checkpoint" in leaderboard.markdown_text([section])


def test_both_paths_are_reported_and_an_untrained_one_is_marked(evaluated):
    local, path_global = build(evaluated())
    assert (local.metric, path_global.metric) == ("local/top1", "global/top1")
    assert (local.main, path_global.main) == (True, False)
    assert (local.rows[0].trained_path, path_global.rows[0].trained_path) == (True, False)
    assert any("Untrained path" in sentence for sentence in path_global.remarks())
    assert ("oracle", 1.0) in references(local)
    assert ("oracle", 1.0) in references(path_global)


def test_reference_rows_that_differ_name_their_model(board):
    board("a", 0.8, reference_rows={"untrained": {"top1": 0.2}, "random": {"top1": 0.1}})
    (section,) = build(board("b", 0.7, reference_rows={"untrained": {"top1": 0.2}, "random": {"top1": 0.15}}))
    assert references(section) == [
        ("untrained (a)", 0.2),
        ("untrained (b)", 0.2),
        ("random (b)", 0.15),
        ("random (a)", 0.1),
    ]


def test_kinds_of_several_words_that_begin_alike_are_printed_apart(board):
    rows = {"bag of words": {"top1": 0.1}, "bag of patches": {"top1": 0.2}, "bag": {"top1": 0.05}}
    (section,) = build(board("a", 0.8, reference_rows=rows))
    assert [reference.label for reference in overview.condensed(section)] == ["bag of patches", "bag of words", "bag"]
    assert "*bag of patches 20.0*" in overview.text([section])


def test_classes_that_training_never_named_are_reported_apart(board, evaluated):
    (local, path_global) = build(evaluated())
    (sentence,) = [sentence for sentence in local.remarks() if sentence.startswith("toy_good: ")]
    assert re.fullmatch(
        r"toy_good: [\d.]+ on the 2 classes that its training captions never name, [\d.]+ on the other 1\.", sentence
    )
    assert not any("never name" in sentence for sentence in path_global.remarks())
    seen = local.rows[0].classes_seen.model_copy(update={"metric": "top1", "unseen": None, "unseen_classes": 0})
    (section,) = build(board("a", 0.8, classes_seen=seen))
    assert not any("never name" in sentence for sentence in section.remarks())


def test_nothing_to_average_is_no_row(board):
    empty = Metric(value=None, se=None, low=None, high=None, kind="mean", n_clusters=0, method="bootstrap")
    (section,) = build(board("a", 0.8, metrics={"top1": empty}))
    assert section.rows == ()
    leaderboard.markdown_text([section])
    leaderboard.csv_text([section])


def test_csv(board):
    board("a", 0.8), board("a", 0.9, seed=1)
    table = pd.read_csv(io.StringIO(leaderboard.csv_text(build(board("b", 0.5)))))
    assert list(table["name"]) == ["a", "a", "a", "b", "ceiling", "constant"]
    assert list(table["row"]) == ["model", "seed", "seed", "model", "reference", "reference"]
    assert list(table["seed"].fillna("")) == ["all", "0", "1", "0", "", ""]
    assert table["seed_high"][0] == 0.9
    assert (table["value"][2], table["low"][2]) == (0.9, 0.88)
    models = table[table["row"] == "model"]
    assert models["rank"].tolist() == [1, 2]
    assert models["seeds"].tolist() == [2, 1]


def test_text_does_not_depend_on_the_order_of_writing(board, tmp_path):
    board("a", 0.8), board("b", 0.8)
    first = leaderboard.markdown_text(build(tmp_path / "board")), leaderboard.csv_text(build(tmp_path / "board"))
    board("b", 0.8), board("a", 0.8)
    assert first == (
        leaderboard.markdown_text(build(tmp_path / "board")),
        leaderboard.csv_text(build(tmp_path / "board")),
    )


def test_overview_tables(board):
    board("a", 0.80), board("b", 0.31, seed=0), board("b", 0.29, seed=1)
    text = leaderboard.markdown_text(build(board("c", 0.9, sample=True)))
    assert "## Overview\n\n**`toy_data`**\n\n| model | seeds | toy: top1 |\n|---|--:|---|\n" in text
    assert "| a | 1 | 80.0 [78.0, 82.0] |\n| b | 2 | 30.0° [" in text
    assert "| *highest reference row* | | *constant 30.0* |" in text
    assert "**Samples (`@sample`): classification**\n\n| model | seeds | toy: top1, n=30 |" in text
    assert "| c | 1 | 90.0 [88.0, 92.0] |" in text
    assert "Where there is one seed, the interval is over images alone" in text
    assert text.index("over images alone") < text.index("](leaderboard.png)") < text.index("## Whole benchmarks")


def test_a_column_for_each_task_and_a_table_for_each_path(board):
    both = {"local/miou": metric(0.3, 0.02), "global/miou": metric(0.4, 0.02)}
    paths = {"local": False, "global": True}
    seg = {"task": "toy_segmentation", "headline": "local/miou", "metrics": both, "paths": paths, "reference_rows": {}}
    board("a", 0.8, task="toy_top"), board("b", 0.7, task="toy_top"), board("a", 0, **seg)
    text = overview.text(build(board("a", 0.9, task="toy_top", seed=1)))
    assert "| model | seeds | top: top1 |" in text
    assert "| a | 2 | 85.0 [" in text
    assert "**`toy_data`, patches by the path `local`**\n\n| model | seeds | segmentation: miou |" in text
    assert "| a | 1 | 30.0† [28.0, 32.0] |" in text
    assert "**`toy_data`, patches by the path `global`**" in text
    assert "| a | 1 | 40.0 [38.0, 42.0] |" in text
    assert "| b | 1 | 70.0 [68.0, 72.0] |" in text


def test_cells_of_fewer_seeds_and_empty_ones(board):
    board("a", 0.8, task="toy_one"), board("a", 0.8, task="toy_one", seed=1), board("a", 0.7, task="toy_two")
    text = overview.text(build(board("b", 0.6, task="toy_two", model_family="open_clip")))
    assert "| model | seeds | one: top1 | two: top1 |" in text
    assert re.search(r"\| a \| 2 \| 80\.0 \[[^\]]*\] \| 70\.0 \[68\.0, 72\.0\], 1 seed \|", text)
    assert "| b | checkpoint |  | 60.0 [58.0, 62.0] |" in text


def test_columns_of_other_protocols_or_exposure_are_told_apart(board):
    board("a", 0.8), board("b", 0.7, protocol_hash="0" * 64)
    text = overview.text(build(board("c", 0.6, exposure="30 images seen")))
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    assert "toy: top1, protocol 000000, data " in header
    assert "these images were seen in training" in header
    assert header.count("|") == 6


def test_one_seed_each_is_said_only_where_it_is_so(board):
    results = board("a", 0.8)
    assert "One seed each: the spread between trainings is not in the intervals." in overview.text(build(results))
    text = overview.text(build(board("a", 0.9, seed=1)))
    assert "means over training seeds, with 95 % intervals over seeds and images" in text
    assert "one seed" not in text.lower()


def test_publish_writes_everything_beside_the_records(board):
    results = board("a", 0.8)
    console = Console(file=io.StringIO(), width=120)
    for _ in range(2):  # its own page is replaced
        leaderboard.publish(results, console)
    assert "80.0" in console.file.getvalue()
    assert (results / "leaderboard.csv").read_text().startswith("task,metric,")
    assert "| 1 | a | 80.0 | [78.0, 82.0] | one seed |" in (results / "README.md").read_text()
    with Image.open(results / "leaderboard.png") as image:
        assert min(image.size) > 100


def test_a_page_that_somebody_else_wrote_is_kept(board):
    results = board("a", 0.8)
    (results / "README.md").write_text("my notes")
    with pytest.raises(UserError, match=r"README\.md was not written by sparc-bench leaderboard: move it"):
        leaderboard.publish(results, Console(file=io.StringIO()))
    assert (results / "README.md").read_text() == "my notes"


@pytest.mark.slow
def test_the_picture_grows_with_panels_and_models(board, tmp_path):
    sizes = []
    for count in (2, 12):
        for number in range(count):
            results = board(f"model{number:02}", 0.5 + number / 40, task="toy_a")
            board(f"model{number:02}", 0.5, task=f"toy_{'bcdefgh'[number % 7]}")
        leaderboard.plot(build(results), tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as image:
            sizes.append(image.size)
    (narrow, low), (wide, high) = sizes
    assert wide > 1.8 * narrow
    assert high > 2 * low


def test_an_empty_or_missing_folder(tmp_path):
    console = Console(file=io.StringIO(), width=120)
    assert leaderboard.publish(tmp_path, console) == []
    assert "There are no records yet" in console.file.getvalue()
    assert not (tmp_path / "leaderboard.png").exists()
    with pytest.raises(UserError, match="does not exist"):
        leaderboard.publish(tmp_path / "none", console)
    with pytest.raises(UserError, match="no records to draw"):
        leaderboard.plot([], tmp_path / "x.png")


def test_a_damaged_record_is_named(board):
    path = board("a", 0.8) / "a" / "toy.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"a/toy\.json"):
        build(path.parent.parent)


@pytest.mark.parametrize("value", [math.nan, 5.0, -3.0])
def test_a_record_of_an_impossible_number_is_never_ranked(board, value):
    path = board("a", 0.8) / "a" / "toy.json"
    values = json.loads(path.read_text())
    values["metrics"]["top1"]["value"] = value
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"a/toy\.json is damaged \('metrics\.top1.*--force\."):
        build(path.parent.parent)


def test_rows_that_have_seen_the_images_stand_apart_and_say_how_many(board):
    board("clean", 0.6, exposure="none"), board("most", 0.9, exposure="3799 images seen")
    sections = build(board("few", 0.8, exposure="7 images seen"))
    assert [[row.model for row in section.rows] for section in sections] == [["clean"], ["most", "few"]]
    clean, seen = sections
    assert seen.remarks()[0] == (
        "Not zero-shot, so that these rows are ranked apart: most (3799 images seen); few (7 images seen)."
    )
    assert not any("zero-shot" in sentence for sentence in clean.remarks())
    table = leaderboard.frame(sections).set_index("name")["exposure"]
    assert (table["clean"], table["most"], table["few"]) == ("none", "3799 images seen", "7 images seen")
    text = overview.text(sections)
    assert "90.0‡ [" in text
    assert "60.0 [" in text
    assert "‡ not zero-shot: images of the task were seen in training (most, few)." in text
