"""From a file of outputs to a record like any other, in a class of its own."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cli.app import main
from sparc_bench.cli.check import stale
from sparc_bench.errors import UserError
from sparc_bench.evaluation import new_record
from sparc_bench.evaluation.score import score
from sparc_bench.records.record import read_record, record_path
from sparc_bench.report import leaderboard
from sparc_bench.report.compare import compare
from sparc_bench.report.ranking import build
from tests.toys.encoders import random_encoder
from tests.unit.outputs.test_masks import folder_of, truths
from tests.unit.outputs.test_similarity import scores_of


@pytest.fixture
def retrieval(task, data_of, matrix):
    """A card, and the scores of an encoder as a file."""
    card = task("retrieval")
    data = data_of(card)
    texts = list(dict.fromkeys(data.captions))
    scores = scores_of(random_encoder(), data, texts)[0]
    return card, matrix([item.id for item in data.views], texts, scores, name="reranker.npz")


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def encoder_record(card, data, results, name="some_model", paths=None):
    """What `eval` writes of a random encoder, as a model of this project."""
    bound, encoder = bind(card), random_encoder()
    encoder.paths = paths or {}
    encoder.size = data[0].image.open().size[0]
    model = ModelCard(name=name, title="A model", family="own", source="none")
    outcome = outcome_of(bound.protocol, encoder, data, bound.options)
    bare = new_record.bare_record(
        bound, data, model, 0, new_record.Provenance("weights", "float32", paths=encoder.paths), None
    )
    record, outcomes = new_record.finished(bare, bound, data, outcome, outcome.reference_rows, (), 0.0)
    path = record_path(results, name, 0, card.name, sample=card.sample, limit=None)
    new_record.write(path, record, outcomes)
    return record


def test_the_record_of_a_file(retrieval, results, data_of):
    card, file = retrieval
    done = score(card, file, title="A reranker", trained_on=("scenes1:train",), results=results)
    assert (done.model, done.kept, done.path) == ("reranker", False, results / "reranker" / "small.json")
    record = read_record(done.path)
    assert record == done.record
    assert (record.model_family, record.model_title, record.precision) == ("outputs", "A reranker", "as given")
    assert str(record.exposure) == "domain"
    assert record.weights_hash == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record.paths == {}
    theirs = encoder_record(card, data_of(card), results)
    assert record.metrics == theirs.metrics
    assert (record.protocol_hash, record.data_hash) == (theirs.protocol_hash, theirs.data_hash)
    # reference rows: the protocol's, and a random encoder; no towers stand behind a file
    assert record.reference_rows.keys() == {"ceiling", "chance", "constant", "random"}
    assert record.reference_rows["chance"] == pytest.approx(theirs.reference_rows["chance"], abs=1e-6)
    assert abs(record.reference_rows["random"]["text_to_image_r1"] - 1 / 12) < 0.15


def test_equal_files_are_kept_and_others_replace_the_record(retrieval, results, matrix):
    card, file = retrieval
    first = score(card, file, "system", results=results)
    assert score(card, file, "system", results=results).kept
    assert str(first.record.exposure) == "unknown"
    named = score(card, file, "system", "Better words", results=results)
    assert (named.kept, named.record.model_title) == (True, "Better words")
    assert not score(card, file, "system", results=results, force=True).kept
    with np.load(file) as arrays:
        other = matrix(arrays["image_ids"], arrays["texts"], -arrays["scores"], name="other.npz")
    replaced = score(card, other, "system", results=results)
    assert not replaced.kept
    assert replaced.record.weights_hash != first.record.weights_hash
    trained = score(card, other, "system", trained_on=("scenes1:test",), results=results)
    assert (trained.kept, str(trained.record.exposure)) == (False, "12 images seen")


def test_a_failed_file_writes_nothing(task, results, json_file):
    card = task("retrieval")
    with pytest.raises(UserError, match="holds a caption for each image, which this task does not take"):
        score(card, json_file({"a": "b"}), results=results)
    assert not list(results.rglob("*.json"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("scenes_clip", "'scenes_clip' is the name of a model card: choose another --name"),
        ("two words", "cannot name a folder"),
        ("../elsewhere", "cannot name a folder"),
        ("mine.seed1", "cannot name a folder"),
        ("samples", "'samples' is a folder of results that is of no model"),
        ("some_model", "is not about outputs of 'some_model': choose another --name"),
    ],
)
def test_names_that_are_taken_or_none(retrieval, results, data_of, name, sentence):
    card, file = retrieval
    encoder_record(card, data_of(card), results)
    (results / "samples" / "other").mkdir(parents=True)
    (results / "samples" / "other" / "small.json").write_text('{"model_family": "own"}')
    with pytest.raises(UserError, match=sentence):
        score(card, file, name, results=results)


def test_a_damaged_record_of_outputs_is_replaced_by_force(retrieval, results):
    card, file = retrieval
    path = score(card, file, "system", results=results).path
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        score(card, file, "system", results=results)
    assert score(card, file, "system", results=results, force=True).record is not None


def test_training_data_without_a_split(retrieval, results):
    card, file = retrieval
    with pytest.raises(UserError, match="--trained-on 'coco' names no split: write DATASET:SPLIT"):
        score(card, file, trained_on=("coco",), results=results)


def test_tasks_that_take_no_outputs(task, retrieval, results):
    card = task("retrieval").model_copy(update={"protocol": "regions", "options": REGION_OPTIONS})
    with pytest.raises(
        UserError, match="small takes no outputs, for regions asks a model itself: run sparc-bench eval"
    ):
        score(card, retrieval[1], results=results)


REGION_OPTIONS = {
    "prompts": "scenes",
    "classes": "scenes_shape",
    "region": "box",
    "min_side": 0,
    "area_of": "object",
    "area_unit": "image",
    "area_edges": [0.1, 0.2],
}


def test_outputs_are_never_ranked_among_models(retrieval, results, data_of):
    card, file = retrieval
    encoder_record(card, data_of(card), results)
    alone = build(results)
    before = [leaderboard.csv_text(alone), leaderboard.markdown_text(alone)]
    score(card, file, "reranker", results=results)
    sections = build(results)
    assert [(s.outputs, [row.model for row in s.rows]) for s in sections] == [
        (False, ["some_model"]),
        (True, ["reranker"]),
    ]
    assert [row.rank for section in sections for row in section.rows] == [1, 1]
    assert sections[1].heading.endswith(
        "not known whether these images were seen in training; outputs of other systems)"
    )
    leaderboard.write_csv(sections, results / "leaderboard.csv")
    table = pd.read_csv(results / "leaderboard.csv")
    assert table[table["name"] == "reranker"]["row"].tolist() == ["outputs"]
    assert table[table["name"] == "some_model"]["row"].tolist() == ["model"]
    assert set(table[table["row"] == "outputs reference"]["name"]) == {"ceiling", "chance", "constant", "random"}
    text = leaderboard.markdown_text(sections)
    assert "**`scenes1`, outputs of other systems**" in text
    assert "| reranker | file |" in text
    # what stood there before stands there still
    assert before[0].splitlines() == [
        line for line in leaderboard.csv_text(sections).splitlines() if "outputs" not in line
    ]
    shutil.rmtree(results / "reranker")
    assert [leaderboard.csv_text(build(results)), leaderboard.markdown_text(build(results))] == before


def test_masks_and_an_encoder_by_its_paths(task, data_of, results, tmp_path):
    """A card names a patch path for its headline, which outputs do not have."""
    card = task("segmentation", data={"n": 6})
    data = data_of(card)
    right = folder_of(tmp_path / "right", truths(data))
    done = score(card, right, results=results)
    assert done.record.headline_metrics == ["miou"]
    encoder_record(card, data, results, paths={"local": True, "global": False})
    assert [(s.metric, s.main, s.outputs) for s in build(results)] == [
        ("local/miou", True, False),
        ("global/miou", False, False),
        ("miou", True, True),
    ]
    (compared,) = compare("right", "some_model", results).tasks
    assert [each.name for each in compared.metrics] == ["miou and local/miou", "miou and global/miou"]
    assert all(each.estimate.value > 0.3 for each in compared.metrics)
    assert compared.groups.keys() == {"class"}


def test_outputs_compared_with_a_model_on_the_same_images(retrieval, results, data_of):
    card, file = retrieval
    score(card, file, results=results)
    encoder_record(card, data_of(card), results)
    (compared,) = compare("reranker", "some_model", results).tasks
    assert {each.estimate.value for each in compared.metrics} == {0.0}
    assert (compared.only_a, compared.only_b) == ((), ())


def test_records_of_outputs_need_no_card_to_be_current(retrieval, results, tmp_path):
    card, file = retrieval
    done = score(card, file, results=results)
    tasks, models = tmp_path / "tasks", tmp_path / "models"
    tasks.mkdir(), models.mkdir()
    options = "".join(f"{key} = {json.dumps(value)}\n" for key, value in card.options.items())
    (tasks / "small.toml").write_text(
        f'title = "{card.title}"\nfamily = "retrieval"\ndataset = "scenes1"\nsplit = "test"\nprotocol = "retrieval"\n'
        f'headline = "{card.headline}"\nsource = "none"\n[data]\nkind = "scenes"\nn = 12\n[options]\n{options}'
    )
    assert stale(done.path, done.record, tasks, models) is None
    (models / "reranker.toml").write_text('title = "x"\nfamily = "own"\nsource = "x"\n')
    assert "a model card has the name reranker" in stale(done.path, done.record, tasks, models)
    (models / "reranker.toml").unlink()
    done.path.with_suffix(".npz").write_bytes(b"another")
    assert "missing or another one" in stale(done.path, done.record, tasks, models)


def test_the_command(tmp_path, results, matrix, capsys):
    card = tmp_path / "pairs.toml"
    card.write_text(
        'title = "Pairs"\nfamily = "compositionality"\nheadline = "group_score"\nsource = "none"\n'
        'dataset = "scenes1"\nsplit = "test"\nprotocol = "minimal_pairs"\nreference_rows = ["constant"]\n'
        '[data]\nkind = "pairs"\nn = 4\n[options]\nties = "expected"\ngroup_by = []\n'
    )
    data = discovery.load("datasets", "scenes1").read(None, "test", bind(discovery.task(str(card))).data_options)
    texts = list(dict.fromkeys(data.captions))
    truth = [[text in example.captions for text in texts] for example in data]
    file = matrix([example.id for example in data], texts, np.array(truth, dtype=float))
    assert main(["score", str(card), str(file), "--name", "knows", "--results", str(results)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "group_score knows 100.0" in printed
    assert main(["score", str(card), str(file), "--name", "knows", "--results", str(results)]) == 0
    assert "kept" in capsys.readouterr().out
    assert main(["score", str(card), str(tmp_path / "nothing"), "--results", str(results)]) == 2
    assert "does not exist: check the path of the outputs" in capsys.readouterr().err
    assert main(["show", str(card)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "sparc-bench score pairs FILE" in shown
    assert "a similarity matrix: an .npz or .safetensors file" in shown
    assert main(["show", "coco_val2017_mini_regions"]) == 0
    assert "taken of models alone" in capsys.readouterr().out
