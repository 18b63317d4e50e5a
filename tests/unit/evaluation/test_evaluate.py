import hashlib
import io
import os
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from sparc_bench.blocks.block_store import BlockFolder
from sparc_bench.cards import discovery
from sparc_bench.cards import prompts as prompt_sets
from sparc_bench.cards.binding import bind
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.evaluation.exposure import classes_seen, exposure
from sparc_bench.evaluation.pipeline import Pipeline, limited
from sparc_bench.evaluation.scorer import Scorer
from sparc_bench.protocol import Block
from sparc_bench.records.record import read_record, record_files


@pytest.fixture
def run(tmp_path, toy_task, toy_model):
    def go(tasks=None, model=None, **settings):
        settings = Settings(**{"results": tmp_path / "results", **settings})
        return evaluate(model or toy_model(), tasks or [toy_task()], settings)

    return go


def test_a_record_holds_what_its_numbers_hang_on(run, tmp_path):
    (result,) = run()
    record = read_record(result.path)
    assert record == result.record
    assert result.path == tmp_path / "results" / "toy_good" / "toy.json"
    # an image is right by the local path where the hash of its id lies under the skill, by the global one under half
    shares = [int(hashlib.sha256(f"{i:03d}-{i % 3}".encode()).hexdigest()[:8], 16) / 16**8 for i in range(30)]
    assert record.metrics["local/top1"].value == round(sum(share < 0.9 for share in shares) / 30, 6)
    assert record.metrics["global/top1"].value == round(sum(share < 0.45 for share in shares) / 30, 6)
    assert record.metrics["local/top1"].n_clusters == record.n == 30
    assert record.metrics["local/top1"].low < record.metrics["local/top1"].value < record.metrics["local/top1"].high
    assert record.headline_metrics == ["local/top1", "global/top1"]
    assert record.paths == {"local": True, "global": False}
    assert str(record.exposure) == "domain"
    assert list(record.groups["class"]) == ["cat", "dog", "fire hydrant"]
    assert record.libraries.keys() >= {"torch", "numpy", "timm", "open_clip_torch", "pycocotools"}
    assert (record.seed, record.precision, record.device) == (0, "float32", "cpu")
    assert record.weights_hash == "toy 0.9"


def test_reference_rows(run):
    reference = run()[0].record.reference_rows
    assert reference["constant"]["local/top1"] == pytest.approx(1 / 3, abs=1e-6)
    assert reference["oracle"] == {"top1": 1.0}
    assert reference["untrained"]["local/top1"] < 0.6
    assert reference["random"].keys() == {"local/top1", "global/top1"}


def test_reference_rows_that_the_card_does_not_ask_for(run, toy_task, toy_model):
    assert run([toy_task(reference_rows=("random",))])[0].record.reference_rows.keys() == {"oracle", "random"}
    (result,) = run(model=toy_model("no_towers", towers="false"))
    assert "untrained" not in result.record.reference_rows
    assert "There are no untrained towers of this model to compare with." in result.record.notes


def test_equal_hashes_keep_the_record(run, toy_task):
    first = run()[0]
    before = first.path.read_bytes()
    loaded = sys.modules["toy_family"].LOADED
    loaded.clear()
    again = run()[0]
    assert again.kept
    assert not loaded
    assert again.record == first.record
    assert first.path.read_bytes() == before
    left = first.path.with_suffix(".partial")  # of a process that was killed between its record and its end
    left.mkdir()
    (left / "000000.npz").write_bytes(b"a block")
    assert run()[0].kept
    assert not left.exists()
    assert not run(force=True)[0].kept
    changed = run([toy_task(data={"n": 33})])[0]
    assert (changed.kept, changed.record.n) == (False, 33)
    assert not run()[0].kept


def test_one_process_at_a_time_makes_a_record(run):
    first = run()[0]
    partial = BlockFolder(first.path.with_suffix(".partial"), "{}", pytest.fail)
    with partial.held():
        partial.write(0, Block(np.array([0]), {}))
        assert run()[0].kept
        assert f"is being written by process {os.getpid()} on" in run(force=True)[0].error
        assert "--results" in run(force=True)[0].error
        assert partial.read(0) is not None
    assert run()[0].kept
    assert not partial.folder.exists()


def test_a_kept_record_takes_on_the_words_of_its_card(run, toy_task):
    first = run()[0]
    again = run([toy_task(title="Better words", headline="global/top1", chance={"global/top1": 1 / 3})])[0]
    assert again.kept
    assert read_record(again.path).title == "Better words"
    assert again.record.headline_metrics[0] == "global/top1"
    assert again.record.metrics == first.record.metrics


def test_lost_or_foreign_outcomes_are_made_again(run):
    first = run()[0]
    first.path.with_suffix(".npz").unlink()
    assert not run()[0].kept
    first.path.with_suffix(".npz").write_bytes(b"of another record")
    assert not run()[0].kept
    assert first.path.with_suffix(".npz").is_file()


def test_data_are_read_once_and_before_the_model(run, toy_task, toy_plugins, monkeypatch):
    done = []
    data, family = discovery.load("datasets", "toy_data"), discovery.load("encoders", "toy_family")
    read, load = data.read, family.load
    monkeypatch.setattr(data, "read", lambda *of: done.append("read") or read(*of))
    monkeypatch.setattr(family, "load", lambda *of: done.append("load") or load(*of))
    assert [result.error for result in run([toy_task(), toy_task("again")])] == [None, None]
    assert done == ["read", "load"]
    done.clear()
    broken = [toy_task(data={"fail": True}), toy_task("other", data={"fail": True})]
    assert [result.error for result in run(broken)] == 2 * ["The toy data are broken: leave 'fail' out."]
    assert "load" not in done


def test_a_damaged_record_is_an_error_until_forced(run):
    first = run()[0]
    first.path.write_text("{")
    assert "--force" in run()[0].error
    assert run(force=True)[0].error is None


def test_one_failed_task_does_not_stop_the_others(run, toy_task):
    tasks = [toy_task("broken", data={"fail": True}), toy_task(), toy_task("misspelt", data={"nn": 3})]
    broken, good, misspelt = run(tasks)
    assert broken.error == "The toy data are broken: leave 'fail' out."
    assert good.error is None
    assert "did you mean 'n'" in misspelt.error
    assert (broken.record, broken.path) == (None, None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"expect": {"images": 31}}, "expects 31 images, but toy_data:test has 30"),
        ({"expect": {"imags": 30}}, "did you mean 'images'"),
        ({"split": "val"}, "has no split 'val'"),
        ({"protocol": "toy_scor"}, "did you mean 'toy_score'"),
        ({"options": {"prompts": "openai7"}}, "'classes' is missing"),
        ({"headline": "local/top5"}, "did you mean 'local/top1'"),
        ({"protocol": "minimal_pairs", "options": {}}, "needs pairs, which toy_data does not provide"),
    ],
)
def test_what_does_not_fit_is_refused(run, toy_task, changes, sentence):
    result = run([toy_task(**changes)])[0]
    assert sentence in result.error
    assert result.record is None


def test_wrong_counts_are_refused_before_anything_is_scored(run, toy_task):
    loaded = sys.modules["toy_family"].LOADED
    loaded.clear()
    run([toy_task(expect={"images": 31})])
    assert not loaded


def test_a_model_that_lacks_what_the_protocol_needs(run, toy_model):
    (result,) = run(model=toy_model("blind", gives='["image", "text", "global"]'))
    assert result.error == "toy needs patches of a model, which blind does not give: leave this task out."


def test_unknown_model(run):
    with pytest.raises(UserError, match="There is no model"):
        run(model="nothing_like_it")


def test_samples_and_limits_lie_apart(run, toy_task, tmp_path):
    sample = run([toy_task(sample=True)])[0]
    assert sample.path == tmp_path / "results" / "samples" / "toy_good" / "toy.json"
    assert sample.record.sample
    testing = run(limit=7)[0]
    assert testing.path == tmp_path / "results" / "testing" / "toy_good" / "toy.json"
    assert (testing.record.n, testing.record.limit) == (7, 7)
    assert "Testing only: --limit 7." in testing.record.notes
    assert testing.record.protocol_hash != sample.record.protocol_hash
    assert record_files(tmp_path / "results") == [sample.path]


def test_limit_never_splits_a_group(toy_plugins):
    toy = discovery.load("datasets", "toy_data")
    data = toy.read(None, "test", toy.Options(n=10, grouped=True))
    assert len(limited(data, 5)) == 4
    assert limited(data, None) is limited(data, 99) is data
    with pytest.raises(UserError, match="no whole group"):
        limited(data, 1)
    alone = toy.read(None, "test", toy.Options(n=10))
    assert [alone.examples.index(e) for e in limited(alone, 4, spread=True)] == [0, 2, 5, 7]
    assert [alone.examples.index(e) for e in limited(alone, 4)] == [0, 1, 2, 3]


def test_images_are_counted_for_the_progress_bar(run, tmp_path, toy_task, toy_model):
    seen = []

    class Bar(Progress):
        def advance(self, task_id, advance=1):
            seen.append(advance)
            super().advance(task_id, advance)

        def add_task(self, description, **fields):
            seen.append((description, fields["total"]))
            return super().add_task(description, **fields)

        def reset(self, task_id, **fields):
            seen.append(fields["total"])
            super().reset(task_id, **fields)

    with Bar(console=Console(file=io.StringIO())) as progress:
        evaluate(toy_model(), [toy_task()], Settings(tmp_path / "results"), None, progress)
        assert progress.tasks == []
    assert seen == [("toy_good on toy", None), 60, 30, 30]  # a line while the data are read, then images


def test_protocol_hash(tmp_path, toy_task, monkeypatch):
    (tmp_path / "tasks" / "prompts").mkdir(parents=True)
    (tmp_path / "tasks" / "classes").mkdir()
    prompts, classes = tmp_path / "tasks/prompts/p.toml", tmp_path / "tasks/classes/c.toml"
    prompts.write_text('source = "x"\ntemplates = ["a {}."]')
    classes.write_text('source = "x"\n[words]\ncat = "cat"')
    for module in (discovery, prompt_sets):
        monkeypatch.setattr(module, "cards_folder", lambda kind: tmp_path / kind)
    card = toy_task(options={"prompts": "p", "classes": "c"})

    def of(card, limit=None):
        return bind(card).protocol_hash(limit)

    first = of(card)
    assert of(card.model_copy(update={"title": "x", "source": "y", "headline": "z", "name": "n"})) == first
    assert of(card.model_copy(update={"data": {"n": 30}})) == first  # what the reader does by default
    different = {
        of(card, limit=3),
        of(card.model_copy(update={"split": "train"})),
        of(card.model_copy(update={"data": {"n": 31}})),
        of(card.model_copy(update={"options": {"prompts": "p", "classes": "own"}})),
    }
    with monkeypatch.context() as later_version:
        later_version.setattr(sys.modules["toy_score"], "VERSION", 2)
        different.add(of(card))
    prompts.write_text('source = "another source"\ntemplates = ["a {}."]')
    assert of(card) == first
    prompts.write_text('source = "x"\ntemplates = ["the {}."]')
    different.add(of(card))
    prompts.write_text('source = "x"\ntemplates = ["a {}."]')
    classes.write_text('source = "x"\n[words]\ncat = "kitten"')
    different.add(of(card))
    assert len(different) == 7
    assert first not in different


@pytest.mark.parametrize(
    ("trained_on", "expected"),
    [
        ([], "unknown"),
        (["a:test"], "12 images seen"),
        (["b:train", "a:test"], "12 images seen"),
        (["a:train"], "domain"),
        (["ab:test"], "unknown"),
        (["scenes1:train"], "none"),
    ],
)
def test_exposure(trained_on, expected):
    assert str(exposure(trained_on, "a", "test", 12)) == expected


@pytest.mark.parametrize(
    ("trained_on", "split", "expected"),
    [
        (["a:train"], "all", "7 images seen"),
        (["a:train", "a:val"], "all", "9 images seen"),
        (["a:test"], "all", "domain"),
        (["a:all"], "all", "12 images seen"),
        (["a:all"], "test", "12 images seen"),
    ],
)
def test_exposure_of_a_split_that_holds_the_others(trained_on, split, expected):
    assert str(exposure(trained_on, "a", split, 12, {"train": 7, "val": 2})) == expected


def test_class_names_never_seen_in_training_are_reported_apart(run):
    seen = run()[0].record.classes_seen
    assert seen.training_captions == {"cat": 5, "dog": 0, "fire hydrant": 0}
    assert (seen.seen_classes, seen.unseen_classes, seen.metric) == (1, 2, "local/top1")
    groups = run()[0].record.groups["class"]
    assert seen.seen == groups["cat"].value
    assert seen.unseen == pytest.approx((groups["dog"].value + groups["fire hydrant"].value) / 2, abs=2e-6)


def test_classes_without_items_have_no_part_in_the_means():
    seen = classes_seen("m", {"a": "a", "b": "b", "c": "c"}, {"a": 1}, {"a": 0.5, "b": float("nan")})
    assert (seen.seen, seen.unseen, seen.seen_classes, seen.unseen_classes) == (0.5, None, 1, 0)
    assert classes_seen("m", {"a": "a"}, {"a": 1}, {"small": 0.5}) is None


def test_a_class_is_named_by_its_own_name_or_by_its_prompt_words():
    words = {"red": "a red object", "aeroplane": "airplane", "heart": "a heart"}
    seen = classes_seen("m", words, {"red": 3, "a": 9, "airplane": 2}, {"red": 1.0, "aeroplane": 0.5, "heart": 0.0})
    assert seen.training_captions == {"red": 3, "aeroplane": 2, "heart": 0}
    assert (seen.seen, seen.unseen) == (0.75, 0.0)


@pytest.mark.parametrize(("goes_on", "left"), [(True, True), (False, False)])
def test_blocks_of_code_without_a_hash_are_not_gone_on_with(tmp_path, run, goes_on, left):
    two = SimpleNamespace(rank=0, world=2, together=lambda work: work())
    pipeline = Pipeline(None, tmp_path, ranks=two, say=pytest.fail)
    scorer = Scorer(None, None, has_towers=False, goes_on=goes_on)
    (result,) = run()
    for found in (False, left):
        with ExitStack() as stack:
            store = pipeline._store(tmp_path / "toy.json", result.record, scorer, stack)
            assert (store.read(0) is not None) == found
            store.write(0, Block(np.arange(2), {}))
