"""A study of two tiny recipes: draws, what it refuses, what it trains, what it leaves when it is called again."""

import csv
import io
import shutil
import sys
from types import ModuleType

import pytest
from rich.console import Console

from sparc_bench.cards import discovery
from sparc_bench.cards.study_card import SettingRange, drawn_settings, read_study
from sparc_bench.cli.app import main
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings
from sparc_bench.study import jobs as study_jobs
from sparc_bench.study.compared_recipes import recipes_of
from sparc_bench.study.run_study import run_study
from sparc_bench.study.study_rows import RUNS, TRIALS, RunRow, TrialRow, read_rows
from sparc_bench.study.trial_choice import best_trial, differences, trial_recipe

RECIPE = """
title = "Tiny"
source = "none"
objective = "{objective}"
batch_size = 8
steps = {steps}
eval_every = 3
precision = "float32"
objective_options = {{ dim = 16 }}
[data]
dataset = "scenes1"
options = {{ n = 48 }}
val_options = {{ n = 16 }}
[image]
model = "vit_tiny_patch16_224"
size = 64
patch = 16
width = 24
depth = 1
heads = 2
[text]
width = 16
depth = 1
heads = 2
context = 48
tokenizer = "own"
vocabulary = 320
[optim]
warmup = 2
"""
STUDY = """
title = "Two of them"
source = "none"
recipes = {recipes}
trials = 4
trial_steps = 3
criterion = ["image_to_text_r5", "text_to_image_r5"]
seeds = 1
tasks = ["tiny_retrieval.toml"]
[seeds_of]
tiny_sparc = 2
[box]
optim.lr = {{ low = 3e-4, high = 3e-3, log = true }}
[boxes.tiny_sparc]
"objective_options.fine_weight" = {{ choices = [0.5, 1.0, 5.0] }}
"""
TASK = """
title = "Tiny retrieval"
family = "retrieval"
dataset = "scenes1"
split = "test"
protocol = "retrieval"
headline = "text_to_image_r1"
source = "none"
reference_rows = ["constant"]
[data]
n = 12
[options]
ks = [1, 5]
truth = "full"
ties = "expected"
"""
DIVERGING = """
from sparc_bench.objectives.clip import Objective as Clip

class Objective(Clip):
    steps = 0

    def forward(self, image, text, ctx):
        figures = super().forward(image, text, ctx)
        return figures | {"loss": figures["loss"] * (float("nan") if self.steps == 1 else 1.0)}

    def after_step(self, step):
        super().after_step(step)
        self.steps = step + 1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Cards of a study and its recipes; the table at the end is another module's."""
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    table = ModuleType("sparc_bench.study.study_table")
    table.publish = lambda study, results, console: console.print(f"table of {study.name} in {results.name}")
    monkeypatch.setitem(sys.modules, table.__name__, table)
    write(tmp_path)
    return tmp_path


def write(folder, recipes=("tiny_sparc", "tiny_clip"), steps=6, change=("", ""), task=TASK):
    for name in recipes:
        text = RECIPE.format(objective=name.removeprefix("tiny_"), steps=steps)
        (folder / f"{name}.toml").write_text(text)
    study = STUDY.format(recipes=[f"{name}.toml" for name in recipes])
    if "tiny_sparc" not in recipes:
        study = study.replace("tiny_sparc = 2", "")[: study.index("[boxes") - len("tiny_sparc = 2")]
    assert change[0] in study
    (folder / "pair.toml").write_text(study.replace(*change))
    (folder / "tiny_retrieval.toml").write_text(task)
    return read_study(folder / "pair.toml")


@pytest.fixture
def go(folder, monkeypatch):
    """Run the study; returns exit code, what was printed and what was trained."""

    def call(jobs=1, plugins=(), stop_after=None):
        trained = []
        real = study_jobs.train

        def counted(recipe, run_folder, *arguments, **options):
            if len(trained) == stop_after:
                raise KeyboardInterrupt
            trained.append(f"{recipe.name}/{run_folder.name}")
            return real(recipe, run_folder, *arguments, **options)

        printed = io.StringIO()
        settings = Settings(results=folder / "results", runs=folder / "runs")
        with monkeypatch.context() as patch:
            patch.setattr(study_jobs, "train", counted)
            try:
                code = run_study(
                    read_study(folder / "pair.toml"), settings, jobs, plugins, Console(file=printed, width=200)
                )
            except KeyboardInterrupt:
                code = None
        return code, printed.getvalue(), trained

    return call


def rows(folder, table):
    kind = {TRIALS: TrialRow, RUNS: RunRow}[table]
    return read_rows(folder / "results" / "studies" / "pair" / table, kind)


def drop(folder, table, **cells):
    """Take the row with these cells out of a table."""
    path = folder / "results" / "studies" / "pair" / table
    kept = list(csv.DictReader(path.read_text().splitlines()))
    left = [row for row in kept if any(row[key] != value for key, value in cells.items())]
    assert len(left) == len(kept) - 1
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, kept[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(left)


@pytest.mark.slow
def test_a_study_tries_chooses_trains_and_evaluates_and_a_second_call_trains_nothing(folder, go):
    code, printed, trained = go()
    assert code == 0
    trials = [f"{name}/trial{k}" for name in ("tiny_sparc", "tiny_clip") for k in range(4)]
    assert sorted(trained) == sorted([*trials, "tiny_sparc/seed0", "tiny_sparc/seed1", "tiny_clip/seed0"])
    assert printed.rstrip().endswith("table of pair in results")
    assert "Study pair: 8 of 8 trials and 3 of 3 runs are done.\n" in printed

    tried = rows(folder, TRIALS)
    assert [row.key for row in tried] == [(name, k) for name in ("tiny_sparc", "tiny_clip") for k in range(4)]
    assert all(
        row.criterion == pytest.approx((row.val["image_to_text_r5"] + row.val["text_to_image_r5"]) / 2, abs=1e-6)
        for row in tried
    )
    study = read_study(folder / "pair.toml")
    for name, recipe in recipes_of(study).items():
        best = best_trial(study, recipe, tried)
        of_recipe = [row for row in tried if row.recipe == name]
        assert best.criterion == max(row.criterion for row in of_recipe)
        assert [row.values for row in of_recipe] == drawn_settings(study, name)
        meta = (folder / "runs" / name / "seed0" / "recipe.json").read_text()
        assert f'"lr": {best.values["optim.lr"]}' in meta
        told = differences(recipe, study, tried)
        assert told[0] == f"{name}: optim.lr = {best.values['optim.lr']} (the card says 0.001)"
        assert told[0] in printed
    done = rows(folder, RUNS)
    assert [(row.key, row.state, row.step) for row in done] == [
        (("tiny_sparc", 0), "done", 6),
        (("tiny_sparc", 1), "done", 6),
        (("tiny_clip", 0), "done", 6),
    ]
    for name in ("tiny_sparc", "tiny_sparc.seed1", "tiny_clip"):
        assert (folder / "results" / name / "tiny_retrieval.json").is_file()

    before = {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}
    shutil.rmtree(folder / "runs")
    code, again, trained = go()
    assert (code, trained) == (0, [])
    assert again == printed
    assert {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()} == before

    drop(folder, TRIALS, recipe="tiny_clip", trial="2")
    code, _, trained = go()
    assert (code, trained) == (0, ["tiny_clip/trial2"])
    seconds = {"seconds": 0.0, "cpu_seconds": 0.0}
    assert [row.model_copy(update=seconds) for row in rows(folder, TRIALS)] == [
        row.model_copy(update=seconds) for row in tried
    ]
    (folder / "results" / "tiny_sparc.seed1" / "tiny_retrieval.json").unlink()
    assert go()[2] == ["tiny_sparc/seed1"]

    # a card that holds what was chosen differs in nothing, and no trial hangs on what it holds
    study, recipe = read_study(folder / "pair.toml"), discovery.recipe(str(folder / "tiny_clip.toml"))
    best = best_trial(study, recipe, tried)
    chosen = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"lr": best.values["optim.lr"]})})
    assert differences(chosen, study, tried) == []
    assert differences(chosen, study, tried[:-1]) == ["tiny_clip: 1 of its 4 trials are missing"]


@pytest.mark.slow
def test_an_interrupted_study_names_what_is_missing_and_goes_on(folder, go):
    code, printed, trained = go(stop_after=3)
    assert code is None
    assert "Study pair: 3 of 8 trials and 0 of 3 runs are done; these are missing:\n" in printed
    assert [line.strip() for line in printed.splitlines()][-8:] == [
        "tiny_sparc trial 3",
        "tiny_sparc seed 0",
        "tiny_sparc seed 1",
        *(f"tiny_clip trial {k}" for k in range(4)),
        "tiny_clip seed 0",
    ]
    code, _, rest = go()
    assert code == 0
    assert len(trained) == 3
    assert sorted([*trained, *rest]) == sorted(set(trained) | set(rest))
    assert len(rest) == 8


@pytest.mark.slow
def test_a_method_that_diverges_is_reported_with_step_and_settings(folder, go):
    plugin = folder / "diverging.py"
    plugin.write_text(DIVERGING)
    discovery.add_plugin(plugin)
    write(folder, ("tiny_diverging", "tiny_clip"))
    code, printed, trained = go()
    assert code == 0
    assert not any("diverging/seed" in name for name in trained)
    diverged = rows(folder, TRIALS)[:4]
    assert [(row.diverged_at, row.criterion, row.val) for row in diverged] == [(2, None, {})] * 4
    assert diverged[0].message.startswith("The loss is not finite at step 2 (loss nan")
    assert str(folder) not in diverged[0].message
    assert f"trial 1 at step 2 with optim.lr = {diverged[1].values['optim.lr']}" in printed
    assert "tiny_clip: trial" in printed
    assert go()[2] == []


@pytest.mark.slow
def test_a_run_that_diverges_is_a_row_and_the_study_goes_on(folder, go):
    plugin = folder / "late.py"
    plugin.write_text(DIVERGING.replace("self.steps == 1", "self.steps == 4"))  # trials have three steps
    discovery.add_plugin(plugin)
    write(folder, ("tiny_late", "tiny_clip"))
    code, printed, _ = go()
    assert code == 0
    late, clip = rows(folder, RUNS)
    assert (late.state, late.step, late.val, late.eval_seconds) == ("diverged", 5, {}, None)
    assert clip.state == "done"
    assert "seed 0 diverged at step 5" in printed
    assert go()[2] == []


@pytest.mark.slow
def test_a_task_that_fails_is_missing_by_name_and_the_run_is_not_trained_again(folder, go):
    write(folder, task=TASK + "[expect]\nimages = 13\n")
    code, printed, _ = go()
    assert code == 1
    assert "tiny_clip seed 0: tiny_retrieval: Task tiny_retrieval expects 13 images" in printed
    write(folder)
    seconds = [row.train_seconds for row in rows(folder, RUNS)]
    assert go()[0] == 0
    assert [row.train_seconds for row in rows(folder, RUNS)] == seconds


@pytest.mark.slow
def test_a_changed_box_tries_anew_and_clears_the_trials_of_the_old_one(folder, go):
    go()
    write(folder, change=("high = 3e-3", "high = 2e-3"))
    code, printed, trained = go()
    assert {f"tiny_clip/trial{k}" for k in range(4)} <= set(trained)
    study = read_study(folder / "pair.toml")
    assert [row.values for row in rows(folder, TRIALS)[4:]] == drawn_settings(study, "tiny_clip")
    # a run of other values is a person's to delete
    assert code == 1
    assert "tiny_clip seed 0: " in printed
    assert "holds a run of another recipe or seed: delete that folder" in printed


def test_draws_are_common_where_the_box_is_shared_and_never_equal(folder):
    study = write(folder, change=("trials = 4", "trials = 60"))
    sparc, clip = drawn_settings(study, "tiny_sparc"), drawn_settings(study, "tiny_clip")
    rates = [values["optim.lr"] for values in clip]
    assert rates == [values["optim.lr"] for values in sparc]
    assert all(3e-4 <= rate <= 3e-3 and float(f"{rate:.3g}") == rate for rate in rates)
    assert min(rates) < 5e-4
    assert max(rates) > 2e-3
    assert len(set(rates)) == 60
    assert {values["objective_options.fine_weight"] for values in sparc} == {0.5, 1.0, 5.0}
    assert drawn_settings(study, "tiny_sparc") == sparc
    assert drawn_settings(study.model_copy(update={"name": "other"}), "tiny_clip") != clip
    # an own entry stands before the shared one and leaves the others as they are
    own = study.model_copy(update={"box": {**study.box, "optim.clip": SettingRange(choices=(1.0, 2.0))}})
    own = own.model_copy(update={"boxes": {"tiny_sparc": {"optim.clip": SettingRange(choices=(5.0,))}}})
    assert {values["optim.clip"] for values in drawn_settings(own, "tiny_sparc")} == {5.0}
    assert [values["optim.lr"] for values in drawn_settings(own, "tiny_sparc")] == rates
    few = study.model_copy(update={"box": {"optim.clip": SettingRange(choices=(1.0, 2.0))}, "trials": 4})
    with pytest.raises(UserError, match="gives no 4 different settings"):
        drawn_settings(few, "tiny_clip")
    assert [values["optim.clip"] for values in drawn_settings(few.model_copy(update={"trials": 2}), "tiny_clip")] in (
        [1.0, 2.0],
        [2.0, 1.0],
    )


def test_the_schedule_of_a_trial_is_scaled(folder):
    study = write(folder, steps=60, change=("trial_steps = 3", "trial_steps = 30"))
    recipe = trial_recipe(study, recipes_of(study)["tiny_clip"], {"optim.lr": 0.002})
    assert (recipe.steps, recipe.eval_every, recipe.optim.warmup, recipe.optim.lr) == (30, 30, 1, 0.002)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("batch_size = 8", "batch_size = 4", r"batch_size is 8 in tiny_sparc and 4 in tiny_clip"),
        ("width = 24", "width = 48", r"image\.width is 24 in tiny_sparc and 48"),
        ("depth = 1\nheads = 2\ncontext", "depth = 2\nheads = 2\ncontext", r"text\.depth is 1"),
        ("steps = 6", "steps = 7", r"steps is 6"),
        ("warmup = 2", "warmup = 1", r"optim\.warmup is 2"),
        ("options = { n = 48 }", "options = { n = 47 }", r"data\.options\.n is 48"),
        ('dataset = "scenes1"', 'dataset = "scenes1"\nfalse_negatives = "mask"', r"data\.false_negatives is 'keep'"),
        ("dim = 16", "dmi = 16", "did you mean 'dim'"),
    ],
)
def test_recipes_that_are_unlike_are_refused(folder, old, new, sentence):
    study = read_study(folder / "pair.toml")
    card = folder / "tiny_clip.toml"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))
    with pytest.raises(UserError, match=sentence):
        recipes_of(study)


def test_what_a_box_draws_may_differ_between_the_cards(folder):
    study = read_study(folder / "pair.toml")
    card = folder / "tiny_clip.toml"
    card.write_text(card.read_text() + "lr = 0.5\n")
    assert recipes_of(study)["tiny_clip"].optim.lr == 0.5
    # written out or not, an option of the reader is the same
    card.write_text(card.read_text().replace("{ n = 48 }", '{ n = 48, kind = "scenes" }'))
    recipes_of(study)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("trials = 4", "trials = 3", "'trials' input should be greater than or equal to 4"),
        ("title =", "titel =", "did you mean 'title'"),
        ("high = 3e-3", "hihg = 3e-3", r"\[box\] optim\.lr: unknown key 'hihg': did you mean 'high'"),
        ("low = 3e-4", "low = 3e-2", "must be under its high"),
        (", high = 3e-3", "", "neither choices nor both ends"),
        ("choices = [0.5", "low = 1, choices = [0.5", "holds choices and a range"),
        ("optim.lr = {", "decay = 1\noptim.lr = {", r"\[box\] decay is no range"),
        ("optim.lr", "optim.lrr", "did you mean 'lr'"),
        ("optim.lr", "batch_size", "'batch_size' cannot be drawn"),
        ("fine_weight", "fine_wieght", "did you mean 'fine_weight'"),
        ("[0.5, 1.0, 5.0]", '["much"]', "fine_weight.*much"),
        ("[boxes.tiny_sparc]", "[boxes.tiny_spark]", "did you mean 'tiny_sparc'"),
        ("tiny_sparc = 2", "tiny_clop = 2", "did you mean 'tiny_clip'"),
        ("trial_steps = 3", "trial_steps = 30", r"trial_steps \(30\) is over"),
    ],
)
def test_a_wrong_card_ends_in_the_fix(folder, old, new, sentence):
    with pytest.raises(UserError, match=sentence):
        recipes_of(write(folder, change=(old, new)))


@pytest.mark.slow
def test_a_score_that_val_does_not_give_is_refused_with_the_nearest(folder, go):
    write(folder, change=('"image_to_text_r5"', '"image_to_txt_r5"'))
    with pytest.raises(UserError, match="did you mean 'image_to_text_r5'"):
        go()


def test_a_table_that_the_program_did_not_write_is_refused(folder, go):
    path = folder / "results" / "studies" / "pair" / TRIALS
    path.parent.mkdir(parents=True)
    path.write_text("recipe,trial\ntiny_clip,0\n")
    with pytest.raises(UserError, match="has other columns than hash, recipe"):
        go()


def test_a_study_is_shown_and_an_unknown_one_ends_in_the_nearest(folder, capsys):
    assert main(["show", str(folder / "pair.toml")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("pair (study): Two of them")
    assert "0.0003 to 0.003, log-uniform" in printed
    assert main(["study", "no_such_study"]) == 2
    assert "There is no study 'no_such_study'" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_do_what_one_does(folder, go):
    code, printed, _ = go(jobs=2)
    assert code == 0, printed
    apart = rows(folder, TRIALS)
    shutil.rmtree(folder / "results")
    shutil.rmtree(folder / "runs")
    go()
    together = rows(folder, TRIALS)
    assert [(row.key, row.values) for row in apart] == [(row.key, row.values) for row in together]
    for first, second in zip(apart, together, strict=True):
        assert first.val == pytest.approx(second.val, abs=0.13)  # threads may add up in another order
