import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from sparc_bench.cards.binding import bind
from sparc_bench.cards.changes import with_values
from sparc_bench.cards.recipe import read_model
from sparc_bench.cards.study_card import drawn_settings, read_study
from sparc_bench.cards.task_card import read_task
from sparc_bench.cli import check
from sparc_bench.metrics.seeds import seeds_difference
from sparc_bench.metrics.sign_flips import holm
from sparc_bench.metrics.statistic import Mean
from sparc_bench.records import outcome_file
from sparc_bench.records.record import Metric, read_record, recipe_hash, record_path, write_record
from sparc_bench.report import leaderboard
from sparc_bench.study import study_table
from sparc_bench.study.study_result import collect
from sparc_bench.study.study_rows import RUNS, TRIALS, RunRow, TrialRow, merge_rows
from sparc_bench.study.trial_choice import TRIAL_SEED, training_hash, trial_recipe

pytestmark = pytest.mark.usefixtures("toy_plugins")

RECIPE = """
title = "Small"
source = "none"
objective = "clip"
batch_size = 8
steps = 40
eval_every = 5
[data]
dataset = "toy_data"
val_split = "train"
[image]
width = 24
heads = 2
depth = 1
[text]
width = 16
heads = 2
depth = 1
[optim]
warmup = 2
"""
TASK = """
title = "Toy {name}"
family = "classification"
dataset = "toy_data"
split = "test"
protocol = "toy_score"
headline = "top1"
source = "none"
[data]
n = {n}
[options]
prompts = "openai7"
classes = "own"
"""
STUDY = """
title = "Toy methods, like for like"
source = "none"
recipes = {recipes}
trials = 4
trial_steps = 10
criterion = ["image_to_text_r1", "text_to_image_r1"]
seeds = 3
tasks = ["toy_first.toml", "toy_second.toml"]
[seeds_of]
toy_clip = 5
[box]
"optim.lr" = {{ low = 1e-4, high = 1e-2, log = true }}
"""
IMAGES = 60


@pytest.fixture
def lab(evaluated, tmp_path):
    return Lab(tmp_path, read_record(evaluated("base") / "base" / "toy.json"))


class Lab:
    """A study whose trials, runs and records are made up."""

    def __init__(self, folder, base):
        self.folder, self.base, self.results = folder, base, folder / "lab"
        for number, name in enumerate(("toy_first", "toy_second")):
            (folder / f"{name}.toml").write_text(TASK.format(name=name, n=30 + number))
        self.recipes = {}

    def recipe(self, name, objective="clip", options=""):
        path = self.folder / f"{name}.toml"
        path.write_text(RECIPE.replace('"clip"', f'"{objective}"') + f"[objective_options]\n{options}\n")
        self.recipes[name] = read_model(path)

    @property
    def study(self):
        path = self.folder / "studies" / "toys.toml"
        path.parent.mkdir(exist_ok=True)
        study = STUDY.format(recipes=[f"../{name}.toml" for name in self.recipes])
        path.write_text(study.replace('"toy_', '"../toy_'))
        return read_study(path)

    def tried(self, name, scores=(0.1, 0.4, 0.3, 0.2), diverged=()):
        study, recipe = self.study, self.recipes[name]
        rows = []
        for trial, (values, score) in enumerate(zip(drawn_settings(study, name), scores, strict=False)):
            key = training_hash(trial_recipe(study, recipe, values), TRIAL_SEED)
            found = (
                {"diverged_at": 3, "message": "no"}
                if trial in diverged
                else {"val": dict.fromkeys(study.criterion, score)}
            )
            rows.append(TrialRow(hash=key, recipe=name, trial=trial, values=values, seconds=1.0, **found))
        merge_rows(self.results / "studies" / "toys" / TRIALS, rows, TrialRow, study.names)

    def chosen(self, name):
        return with_values(self.recipes[name], drawn_settings(self.study, name)[1])

    def stopped(self, name, seed, step=7):
        row = RunRow(
            recipe=name,
            seed=seed,
            state="diverged",
            step=step,
            train_seconds=1.0,
            recipe_hash=training_hash(self.chosen(name), seed),
        )
        merge_rows(self.results / "studies" / "toys" / RUNS, [row], RunRow, self.study.names)

    def ran(self, name, seed, first, second=0.5, **changes):
        """Records of both tasks; the share of right images, the first ones."""
        for task, value in (("toy_first", first), ("toy_second", second)):
            if value is None:
                continue
            statistic = right(value)
            outcome, _ = outcome_file.pack(list(map(str, range(IMAGES))), {"top1": statistic}, {}, {}, {}, ["top1"])
            metric = Metric(
                value=value, se=0.05, low=value - 0.1, high=value + 0.1, kind="mean", n_clusters=9, method="bootstrap"
            )
            update = {
                "model": name,
                "model_family": "own",
                "seed": seed,
                "task": task,
                "title": task,
                "headline": "top1",
                "paths": {},
                "metrics": {"top1": metric},
                "reference": {"constant": {"top1": 0.1}, "ceiling": {"top1": 1.0}},
                "protocol_hash": bind(read_task(self.folder / f"{task}.toml")).protocol_hash(),
                "recipe_hash": recipe_hash(self.chosen(name)),
                "outcome_hash": outcome_file.sha256(outcome),
                **changes,
            }
            path = record_path(self.results, name, seed, task, sample=False, limit=None)
            write_record(path, self.base.model_copy(update=update))
            path.with_suffix(".npz").write_bytes(outcome)

    def all_of(self, name, *values):
        self.tried(name)
        for seed, value in enumerate(values):
            self.ran(name, seed, value)

    def outcome(self):
        return collect(self.study, self.results)


def right(value):
    return Mean.of((np.arange(IMAGES) < round(IMAGES * value)).astype(float))


@pytest.fixture
def three(lab):
    """A study that is done: two methods of one caption, one of several, one with written negatives."""
    lab.recipe("toy_clip")
    lab.recipe("toy_better")
    lab.recipe("toy_many", "flair", "captions = 3")
    lab.recipe("toy_negatives", "negclip")
    lab.all_of("toy_clip", 0.50, 0.50, 0.50, 0.55, 0.45)
    lab.all_of("toy_better", 0.60, 0.65, 0.55)
    lab.all_of("toy_many", 0.90, 0.90, 0.90)
    lab.all_of("toy_negatives", 0.10, 0.10, 0.10)
    return lab


def test_methods_are_ranked_apart_by_what_they_see(three):
    found = study_table.ranked_groups(three.outcome())
    assert [(block.kind, block.recipes) for block in found] == [
        ("one caption an image", ["toy_better", "toy_clip"]),
        ("several captions an image", ["toy_many"]),
        ("captions and written negatives", ["toy_negatives"]),
    ]
    assert [row.rank for block in found for row in block.rows.values()] == [1, 1, 1, 1]
    assert found[0].verdict() == ("One caption an image: no winner, the intervals of toy_better, toy_clip overlap.")
    assert found[1].verdict() == ""


def test_a_winner_is_named_only_above_the_intervals_of_its_own_group(lab):
    lab.recipe("toy_clip"), lab.recipe("toy_better")
    lab.all_of("toy_clip", 0.2, 0.2, 0.2, 0.2, 0.2), lab.all_of("toy_better", 0.9, 0.9, 0.9)
    (block,) = study_table.ranked_groups(lab.outcome())
    assert [row.rank for row in block.rows.values()] == [1, 2]
    assert block.verdict().endswith("toy_better is ahead, its interval lies above those of the others.")


@pytest.mark.slow
def test_the_difference_is_paired_and_marked_where_it_is_not_clear_of_zero(three):
    entries = {entry.recipe: entry for entry in three.outcome().entries}
    assert entries["toy_clip"].difference is None
    expected = seeds_difference([right(v) for v in (0.60, 0.65, 0.55)], [right(v) for v in (0.5, 0.5, 0.5, 0.55, 0.45)])
    assert entries["toy_better"].difference == expected
    text = study_table.markdown_text(three.outcome())
    corrected = holm([entry.difference.p for entry in entries.values() if entry.difference])
    assert f"| +10.0{'‡' * (corrected[0] >= 0.05)} [" in text
    assert "| +40.0 [" in text
    assert ("‡ the difference is not clear of zero." in text) == ("‡ [" in text)
    again = three.outcome()
    assert study_table.texts(again) == study_table.texts(three.outcome())


def test_what_a_step_sees_is_asked_of_the_objective(three):
    entries = {entry.recipe: entry.sees for entry in three.outcome().entries}
    assert tuple(entries["toy_clip"].model_dump().values()) == (8, 8, 0)
    assert tuple(entries["toy_many"].model_dump().values()) == (8, 24, 0)


@pytest.mark.slow
def test_markdown(three):
    text = study_table.markdown_text(three.outcome())
    lr = drawn_settings(three.study, "toy_better")[1]["optim.lr"]
    assert "| seeds | toy first: top1, % | minus toy_clip |" in text
    assert f"| 1 | toy_better | 8 | 8 | 0 | 4 | lr {lr} | 3 | 60.0 [" in text
    assert "| toy_clip | 8 | 8 | 0 | 4 | lr " in text
    assert "| | **several captions an image** | | | | | | | | |" in text
    assert "| model | seeds | first: top1 | second: top1 |" in text
    assert "the mean of image_to_text_r1 and text_to_image_r1 on val" in text
    assert "## Missing" not in text
    assert "## Diverged" not in text


def test_csv(three):
    table = pd.read_csv(io.StringIO(study_table.csv_text(three.outcome())))
    assert table["recipe"].tolist() == ["toy_better", "toy_clip", "toy_many", "toy_negatives"]
    assert table["state"].tolist() == ["done"] * 4
    assert table["captions"].tolist() == [8, 8, 24, 8]
    assert table["toy_first top1"].tolist() == [0.6, 0.5, 0.9, 0.1]
    assert table["toy_second top1"].tolist() == [0.5] * 4
    assert table["minus toy_clip"].round(3).fillna(9).tolist() == [0.1, 9, 0.4, -0.4]
    assert table["seeds"].tolist() == [3, 5, 3, 3]
    assert set(json.loads(table["chosen"][0])) == {"optim.lr"}


@pytest.mark.slow
def test_a_method_that_diverges_is_listed_with_step_and_settings(three):
    three.recipe("toy_wild")
    three.tried("toy_wild", diverged=(0, 1, 2, 3))
    three.tried("toy_many", diverged=(3,))
    outcome = three.outcome()
    entry = outcome.entries[-1]
    assert (entry.state, entry.missing, entry.chosen) == ("diverged", (), None)
    text = study_table.markdown_text(outcome)
    values = drawn_settings(three.study, "toy_wild")
    for trial in range(4):
        assert f"- toy_wild, trial {trial}: at step 3 with optim.lr = {values[trial]['optim.lr']}" in text
    assert "- toy_many, trial 3: at step 3 with" in text
    assert "| 4, 1 diverged |" in text
    assert "|  | toy_wild | 8 | 8 | 0 | 4, 4 diverged |  | 0 of 3 | diverged |  |" in text
    assert "| toy_wild |  | diverged | diverged |" in text
    assert study_table.ranked_groups(outcome)[0].recipes == ["toy_better", "toy_clip", "toy_wild"]


def test_a_mean_over_the_seeds_that_survived_says_so(lab):
    lab.recipe("toy_clip"), lab.recipe("toy_better")
    lab.all_of("toy_clip", 0.5, 0.5, 0.5, 0.5, 0.5), lab.all_of("toy_better", 0.6, 0.6)
    lab.stopped("toy_better", 2, step=11)
    outcome = lab.outcome()
    text = study_table.markdown_text(outcome)
    assert outcome.entries[1].missing == ()
    assert "2 of 3, 1 diverged" in text
    lr = lab.chosen("toy_better").optim.lr
    assert f"- toy_better, seed 2: at step 11 with optim.lr = {lr}" in text
    assert "Means over the seeds that did not diverge, and so better than the method is: toy_better." in text


def test_missing_rows_are_named(lab):
    for name in ("toy_clip", "toy_better", "toy_new"):
        lab.recipe(name)
    lab.all_of("toy_clip", 0.5, 0.5, 0.5, 0.5)
    lab.tried("toy_better"), lab.ran("toy_better", 0, 0.6, second=None), lab.ran("toy_better", 2, 0.6)
    lab.tried("toy_new", scores=(0.1, 0.2))
    outcome = lab.outcome()
    assert [sentence for entry in outcome.entries for sentence in entry.missing] == [
        "toy_clip, seed 4: all tasks",
        "toy_better, seed 0: toy_second",
        "toy_better, seed 1: all tasks",
        "toy_new: 2 of 4 trials, and all runs",
    ]
    assert [entry.state for entry in outcome.entries] == ["part", "part", "missing"]
    text = study_table.markdown_text(outcome)
    assert "2 of 4 |" in text
    assert "| toy_better | 2 | 60.0 [" in text
    assert "50.0 [40.0, 60.0], 1 seed |" in text
    assert "- toy_new: 2 of 4 trials, and all runs" in text


@pytest.mark.slow
def test_records_of_another_setting_protocol_or_seed_are_left_out_and_named(three):
    three.ran("toy_better", 0, 0.9, recipe_hash="0" * 64)
    three.ran("toy_many", 1, 0.9, protocol_hash="0" * 64)
    three.ran("toy_many", 3, 0.9)
    outcome = three.outcome()
    assert outcome.left_out == (
        "2 records of toy_better are of another setting, protocol or seed than the study's.",
        "2 records of toy_many.seed1 are of another setting, protocol or seed than the study's.",
        "2 records of toy_many.seed3 are of another setting, protocol or seed than the study's.",
    )
    assert outcome.entries[1].evaluated == (1, 2)
    assert outcome.entries[1].missing == ("toy_better, seed 0: all tasks",)


def test_one_seed_is_said(lab):
    lab.recipe("toy_clip"), lab.recipe("toy_better")
    lab.all_of("toy_clip", 0.5, 0.5, 0.5, 0.5, 0.5), lab.all_of("toy_better", 0.6)
    text = study_table.markdown_text(lab.outcome())
    assert "Differences with one seed on a side lack the spread between its trainings: toy_better." in text
    assert "Where there is one seed, the interval is over images alone" in text


@pytest.mark.slow
def test_publish_and_stale(three):
    console = Console(file=io.StringIO(), width=200)
    study_table.publish(three.study, three.results, console)
    folder = three.results / "studies" / "toys"
    printed = console.file.getvalue()
    assert "several captions an image" in printed
    assert "60.0 [" in printed
    with Image.open(folder / "table.png") as image:
        assert min(image.size) > 200
    assert study_table.stale(three.study, three.results) == []
    (folder / "table.md").write_text("edited")
    three.ran("toy_better", 0, 0.7)
    assert [problem.split("/")[-1] for problem in study_table.stale(three.study, three.results)] == [
        "table.csv is not what the records give: run sparc-bench study toys.",
        "table.md is not what the records give: run sparc-bench study toys.",
    ]
    assert len(check.study_table_problems(three.folder / "studies", three.results)) == 2
    assert leaderboard.build(three.results)


def test_a_study_with_nothing_done(lab):
    lab.recipe("toy_clip"), lab.recipe("toy_better")
    assert study_table.stale(lab.study, lab.results) == []
    console = Console(file=io.StringIO(), width=200)
    study_table.publish(lab.study, lab.results, console)
    folder = lab.results / "studies" / "toys"
    assert not (folder / "table.png").exists()
    assert "toy_clip: 4 of 4 trials, and all runs" in console.file.getvalue()
    assert pd.read_csv(folder / "table.csv")["state"].tolist() == ["missing", "missing"]
