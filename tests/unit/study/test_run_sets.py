"""Variants, a second choice, equal CPU time: what is drawn, chosen, trained and shown."""

import io
import json

import pytest
import torch
from rich.console import Console

from sparc_bench.cards.study_card import drawn_settings, read_study
from sparc_bench.cli.check import study_record_problems
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings
from sparc_bench.files.json_text import json_value
from sparc_bench.study import jobs as study_jobs
from sparc_bench.study import study_table
from sparc_bench.study.compared_recipes import recipes_of
from sparc_bench.study.run_sets import RunSet, final, sets_of, steps_within
from sparc_bench.study.run_study import run_study
from sparc_bench.study.study_result import collect
from sparc_bench.study.study_rows import TRIALS, RunRow, TrialRow, folder_of, merge_rows, read_rows
from sparc_bench.study.trial_choice import TRIAL_SEED, training_hash, trial_recipe
from tests.unit.study.test_run_study import RECIPE, TASK

STUDY = """
title = "Two and a variant"
source = "none"
recipes = ["tiny_clip.toml", "tiny_sparc.toml"]
trials = 4
trial_steps = 3
criterion = ["image_to_text_r5", "text_to_image_r5"]
second_criterion = ["text_to_image_r10"]
cpu_seconds = 1.0
baseline = "tiny_clip"
seeds = 1
tasks = ["tiny_retrieval.toml"]
[box]
optim.lr = { low = 3e-4, high = 3e-3, log = true }
[boxes.tiny_sparc]
"objective_options.fine_weight" = { choices = [0.5, 1.0, 5.0] }
[variants.tiny_dense]
of = "tiny_sparc"
set = { "objective_options.weights" = "dense" }
[variants.tiny_heavy]
of = "tiny_sparc"
set = { objective_options.fine_weight = 9.0 }
"""
SCORES = (("first", (0.2, 0.4, 0.3, 0.1), (0.5, 0.5, 0.9, 0.1)), ("same", (0.2, 0.4, 0.3, 0.1), (0.5, 0.9, 0.5, 0.1)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    for objective in ("clip", "sparc"):
        (tmp_path / f"tiny_{objective}.toml").write_text(RECIPE.format(objective=objective, steps=6))
    (tmp_path / "tiny_retrieval.toml").write_text(TASK)
    return tmp_path


def write(folder, *changes):
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "many.toml").write_text(text)
    return read_study(folder / "many.toml")


def tried(study, recipe, firsts, seconds, cpu=(0.3,) * 4):
    """Trial rows with made-up scores of the study's two criteria."""
    return [
        TrialRow(
            hash=training_hash(trial_recipe(study, recipe, values), TRIAL_SEED),
            recipe=recipe.name,
            trial=trial,
            values=values,
            val={
                "image_to_text_r5": firsts[trial],
                "text_to_image_r5": firsts[trial],
                "text_to_image_r10": seconds[trial],
            },
            seconds=1.0,
            cpu_seconds=cpu[trial],
        )
        for trial, values in enumerate(drawn_settings(study, recipe.name))
    ]


def test_a_variant_is_its_recipe_with_the_changes_and_draws_the_rest_alike(folder):
    study = write(folder)
    recipes = recipes_of(study)
    assert list(recipes) == ["tiny_clip", "tiny_sparc", "tiny_dense", "tiny_heavy"]
    sparc, dense, heavy = (recipes[name] for name in ("tiny_sparc", "tiny_dense", "tiny_heavy"))
    assert dense.objective_options == {"dim": 16, "weights": "dense"}
    same = {"name", "title", "objective_options"}
    assert dense.model_dump(exclude=same) == sparc.model_dump(exclude=same)
    assert training_hash(dense, 0) != training_hash(sparc, 0)
    drawn = drawn_settings(study, "tiny_sparc")
    assert drawn_settings(study, "tiny_dense") == drawn
    rates = [{"optim.lr": values["optim.lr"]} for values in drawn]
    assert drawn_settings(study, "tiny_heavy") == rates
    assert trial_recipe(study, heavy, rates[0]).objective_options["fine_weight"] == 9.0


def test_a_variant_may_differ_in_what_its_card_states_and_in_nothing_else(folder):
    wide = ("objective_options.fine_weight = 9.0", "image.patch = 8")
    assert recipes_of(write(folder, wide))["tiny_heavy"].image.patch == 8
    other = folder / "other.toml"
    other.write_text(RECIPE.format(objective="sparc", steps=6).replace("depth = 1", "depth = 2"))
    with pytest.raises(UserError, match=r"image\.depth is 1 in tiny_clip and 2 in tiny_heavy"):
        recipes_of(
            write(
                folder, ('of = "tiny_sparc"\nset = { objective_options', 'of = "other.toml"\nset = { objective_options')
            )
        )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"objective_options.weights"', '"objective_options.wieghts"', "did you mean 'weights'"),
        ('"dense"', '"dens"', "tiny_dense: .*'weights' input should be"),
        ('"objective_options.weights" = "dense"', "steps = 3", "'steps' is the same for all recipes of a study"),
        ('"objective_options.weights" = "dense"', "", "at least 1 item"),
        ("variants.tiny_dense", "variants.tiny_clip", "tiny_clip is one of the recipes already"),
        ("variants.tiny_dense", 'variants."a/b"', "cannot name a folder"),
        ('of = "tiny_sparc"\nset = { "', 'fo = "tiny_sparc"\nset = { "', "did you mean 'of'"),
        ('baseline = "tiny_clip"', 'baseline = "tiny_clap"', "did you mean 'tiny_clip'"),
        ("cpu_seconds = 1.0", "cpu_seconds = 0", "'cpu_seconds' input should be greater than 0"),
        ("image_to_text_r5", "scenes_retrieval/image_to_text_r5", "of a task that tiny_clip is not scored on"),
        ("seeds = 1", 'seeds = 1\nvalidate = ["tiny_retrieval.toml"]', "none of the tasks that are scored on val"),
        ("seeds = 1", 'seeds = 1\nvalidate = ["no_such_task"]', "There is no task 'no_such_task'"),
    ],
)
def test_a_wrong_card_ends_in_the_fix(folder, old, new, sentence):
    with pytest.raises(UserError, match=sentence):
        recipes_of(write(folder, (old, new)))


@pytest.mark.parametrize(("which", "firsts", "seconds"), SCORES)
def test_the_second_choice_is_by_its_own_criterion_and_repeats_no_run(folder, which, firsts, seconds):
    study = write(folder)
    recipe = recipes_of(study)["tiny_dense"]
    trials = tried(study, recipe, firsts, seconds)
    assert sets_of(study) == list(RunSet)
    first, second = (final(study, recipe, trials, of) for of in (RunSet.FIRST, RunSet.SECOND))
    assert (first.trial.trial, first.runs) == (1, RunSet.FIRST)
    expected = (2, RunSet.SECOND) if which == "first" else (1, RunSet.FIRST)
    assert (second.trial.trial, second.runs) == expected
    assert second.recipe.optim.lr == trials[expected[0]].values["optim.lr"]
    assert final(study, recipe, trials[:3], RunSet.SECOND) is None


@pytest.mark.parametrize(("cpu", "steps"), [(0.3, 10), (0.1, 30), (0.07, 40), (9.0, 10)])
def test_equal_cpu_time_is_a_multiple_of_ten_steps_by_the_time_of_the_chosen_trial(folder, cpu, steps):
    study = write(folder)
    recipe = recipes_of(study)["tiny_clip"]
    trials = tried(study, recipe, *SCORES[0][1:], cpu=(5.0, cpu, 5.0, 5.0))
    timed = final(study, recipe, trials, RunSet.EQUAL_CPU)
    assert (timed.recipe.steps, timed.recipe.eval_every) == (steps, steps)
    assert timed.recipe.optim.warmup == round(2 * steps / 6)  # the recipe has 2 of 6 steps
    with pytest.raises(UserError, match=r"trial 0 of tiny_clip has no CPU time.*delete its row in trials\.csv"):
        steps_within(study, trials[0].model_copy(update={"cpu_seconds": None}))


def test_optional_columns_are_written_only_where_a_row_holds_a_value(tmp_path):
    plain = RunRow(recipe="a", seed=0, state="done", step=3, train_seconds=1.0, recipe_hash="x")
    file = tmp_path / "runs.csv"
    assert merge_rows(file, [plain], RunRow, ["a"]) == [plain]
    assert file.read_text().splitlines()[0].endswith("eval_seconds,recipe_hash")
    timed = plain.model_copy(update={"seed": 1, "cpu_seconds": 2.5, "held_out": {"gain_over_grey": (0.1, 0.0, 0.2)}})
    merge_rows(file, [timed], RunRow, ["a"])
    assert file.read_text().splitlines()[0].endswith("recipe_hash,cpu_seconds,held_out")
    assert read_rows(file, RunRow) == [plain, timed]


@pytest.mark.slow
def test_a_study_trains_and_shows_all_its_sets_and_goes_on(folder, monkeypatch):
    study = write(folder)
    trained, threads = [], set()
    real = study_jobs.train

    def counted(recipe, run_folder, *arguments, **options):
        trained.append(str(run_folder.relative_to(folder / "runs")))
        threads.add(torch.get_num_threads())
        return real(recipe, run_folder, *arguments, **options)

    monkeypatch.setattr(study_jobs, "train", counted)
    settings = Settings(results=folder / "results", runs=folder / "runs")

    def go():
        trained.clear()
        printed = io.StringIO()
        return run_study(study, settings, 1, (), Console(file=printed, width=250)), printed.getvalue()

    before = torch.get_num_threads()
    assert go()[0] == 0
    assert (threads, torch.get_num_threads()) == ({1}, before)
    home = folder_of("many", folder / "results")
    trials = read_rows(home / TRIALS, TrialRow)
    assert all(row.cpu_seconds > 0 and row.second_criterion == row.val["text_to_image_r10"] for row in trials)
    wanted = {f"studies/many/{name}/trial{trial}" for name in study.names for trial in range(4)}
    wanted |= {"tiny_clip/seed0", "tiny_sparc/seed0"}
    wanted |= {f"studies/many/{name}/first/seed0" for name in study.variants}
    wanted |= {f"studies/many/{name}/equal_cpu/seed0" for name in study.names}
    recipes = recipes_of(study)
    others = [name for name in study.names if final(study, recipes[name], trials, RunSet.SECOND).runs is RunSet.SECOND]
    wanted |= {f"studies/many/{name}/second/seed0" for name in others}
    assert sorted(trained) == sorted(wanted)
    whole = json_value((folder / "runs/studies/many/tiny_dense/first/seed0/recipe.json").read_bytes())
    assert (whole["name"], whole["objective_options"]["weights"], whole["batch_size"]) == ("tiny_dense", "dense", 8)

    pages = {of: (home / of.file("table.md")).read_text() for of in RunSet}
    again = [name for name in study.names if name not in others]
    for name in again:
        assert name in pages[RunSet.SECOND].partition("whose runs these are: ")[2].partition("\n")[0]
    timed = collect(study, folder / "results", RunSet.EQUAL_CPU)
    assert [entry.state for entry in timed.entries] == ["done"] * 4
    for entry in timed.entries:
        (run,) = read_rows(home / "runs_equal_cpu.csv", RunRow)[study.names.index(entry.recipe) :][:1]
        assert (entry.steps, entry.cpu_seconds) == (run.step, run.cpu_seconds)
        assert f" | 1 | {run.step} | {run.cpu_seconds:.1f} | " in pages[RunSet.EQUAL_CPU]
    assert "| minus tiny_clip | retrieval: text_to_image_r1 |" in pages[RunSet.FIRST].replace(
        "tiny retrieval", "retrieval"
    )
    assert "- tiny_dense: tiny_sparc with objective_options.weights = dense" in pages[RunSet.FIRST]
    gain = json.loads((folder / "runs/tiny_sparc/seed0/summary.json").read_text())["held_out"]["gain_over_shuffled"]
    assert f"{gain['value']:.3f} [{gain['low']:.3f}, {gain['high']:.3f}]" in pages[RunSet.FIRST]
    assert study_table.stale(study, folder / "results") == []

    written = {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}
    assert go()[0] == 0
    assert trained == []
    assert {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()} == written
    record = home / "equal_cpu/tiny_dense/tiny_retrieval.json"
    record.unlink()
    assert go()[0] == 0
    assert trained == ["studies/many/tiny_dense/equal_cpu/seed0"]

    assert study_record_problems(folder, folder / "results", folder) == []
    record.with_suffix(".npz").write_bytes(b"another one")
    (problem,) = study_record_problems(folder, folder / "results", folder)
    assert problem.endswith("tiny_retrieval.npz beside it is missing or another one; run sparc-bench study many.")


@pytest.mark.slow
def test_tasks_on_val_decide_at_the_end_alone_and_an_unknown_score_is_refused_first(folder, monkeypatch):
    retrieval = '["tiny_retrieval/image_to_text_r5"]'
    tasks = ("seeds = 1", 'seeds = 1\nvalidate = ["tiny_retrieval.toml"]')
    first = ('["image_to_text_r5", "text_to_image_r5"]', retrieval)
    settings = Settings(results=folder / "results", runs=folder / "runs")
    console = Console(file=io.StringIO())
    wrong = write(folder, tasks, first, ("text_to_image_r10", "tiny_retrieval/image_to_text_r55"))
    with pytest.raises(UserError, match=r"no score 'tiny_retrieval/image_to_text_r55' of tiny_clip.*text_to_image_r1"):
        run_study(wrong, settings, 1, (), console)
    assert not (folder / "runs").exists()
    good = write(
        folder, tasks, first, ("text_to_image_r10", "tiny_retrieval/text_to_image_r5"), ("cpu_seconds = 1.0", "")
    )
    assert run_study(good, settings, 1, (), console) == 0
    log = (folder / "runs/studies/many/tiny_clip/trial0/log.jsonl").read_text().splitlines()
    assert [line["step"] for line in map(json.loads, log) if "val" in line] == [3]
    rows = read_rows(folder_of("many", folder / "results") / TRIALS, TrialRow)
    assert all(row.criterion == row.val["tiny_retrieval/image_to_text_r5"] for row in rows)
    assert all(row.second_criterion == row.val["tiny_retrieval/text_to_image_r5"] for row in rows)
    page = (folder_of("many", folder / "results") / "table.md").read_text()
    heads = "tiny_retrieval/image_to_text_r5 | tiny_retrieval/text_to_image_r5"
    assert f"| recipe | seeds | {heads} |\n" in page
