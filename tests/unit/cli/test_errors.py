"""Every mistake ends in one sentence on stderr that says what to do, with exit code 2 and no half-written file."""

import errno
import json
import os
import stat
import subprocess
import sys

import pytest
import torch

from sparc_bench.cards.card import parse
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cli.app import main
from sparc_bench.errors import UserError

TINY = {
    "name": "tiny",
    "title": "a tiny model",
    "source": "a test",
    "objective": "clip",
    "objective_options": {"dim": 8},
    "data": {"dataset": "scenes1"},
    "image": {"model": "vit_tiny_patch16_224", "size": 32, "patch": 8, "width": 12, "depth": 1, "heads": 1},
    "text": {"width": 8, "depth": 1, "heads": 1, "context": 8, "tokenizer": "own", "vocabulary": 300},
    "optim": {"warmup": 1},
    "batch_size": 4,
    "steps": 2,
    "eval_every": 2,
}

TASK = """
title = "a task"
family = "retrieval"
dataset = "scenes1"
split = "test"
protocol = "retrieval"
headline = "text_to_image_r1"
source = "a test"
[data]
kind = "scenes"
n = 12
[options]
ks = [1]
truth = "own"
ties = "expected"
"""


@pytest.fixture
def refuse(capsys, monkeypatch):
    """Run a command that must be refused; returns its one sentence."""
    monkeypatch.delenv("SPARC_BENCH_DATA", raising=False)

    def run(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        assert lines[0][-1] in ".?", lines[0]
        return lines[0]

    return run


@pytest.fixture
def other_architecture(tmp_path):
    """A run folder whose weights are of a wider model than its recipe says."""
    from sparc_bench.two_towers import checkpoint
    from sparc_bench.two_towers.tokenizer import build_vocabulary

    recipe = parse(Recipe, TINY, "test")
    state = build_vocabulary(["a red square", "a blue circle"], 300)
    meta = checkpoint.Meta(recipe, 0, 2, state, {"red": 1})
    folder = tmp_path / "run"
    checkpoint.write_checkpoint({"model.stranger": torch.zeros(2)}, meta, folder / "model.safetensors")
    return folder


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "some_task.toml"
    path.write_text(TASK)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["list", "task"], "did you mean 'tasks'?"),
        (["show", "retrievel"], "did you mean 'retrieval'?"),
        (["eval", "own:x", "--task", "scenes_retreival"], "There is no task 'scenes_retreival'"),
        (["eval", "own:x", "--suite", "sceens"], "There is no suite 'sceens'"),
        (["train", "no_such_recipe"], "There is no model 'no_such_recipe'"),
        (["evla"], "Did you mean 'eval'?"),
        (["eval", "own:x", "--siute", "scenes"], "did you mean '--suite'?"),
        (["train"], "see sparc-bench train --help."),
        (["train", "x", "--seed", "one"], "see sparc-bench train --help."),
        (["eval", "own:x", "--precision", "int8"], "see sparc-bench eval --help."),
        (["eval", "own:x"], "add --suite NAME or --task NAME, which sparc-bench list tasks names."),
        (["list", "models", "--plugin", "no_plugin.py"], "The plug-in no_plugin.py does not exist"),
        (["train", "x", "--device", "gpu"], "leave --device out for the CPU."),
        (["list", "tasks", "--family", "segmentaton"], "No task is of the family 'segmentaton': did you mean"),
        (["list", "tasks", "--suite", "scene"], "No task is in the suite 'scene': did you mean 'scenes'?"),
        (["list", "tasks", "--suite", "qqqq"], "No task is in the suite 'qqqq': list the "),
        (
            ["list", "tasks", "--data", "imagenet1"],
            "No task is on the data set 'imagenet1': did you mean 'imagenet1k'?",
        ),
        (["list", "tasks", "--data", "qqqq"], "with sparc-bench data list."),
        (
            ["list", "tasks", "--suite", "scenes", "--data", "pets"],
            "No task is in the suite 'scenes' and on the data set 'pets': leave one of them out.",
        ),
        (
            ["list", "models", "--family", "segmentation"],
            "--family chooses among tasks: write sparc-bench list tasks, or leave --family out.",
        ),
    ],
)
def test_misspelt(refuse, arguments, nearest):
    assert nearest in refuse(*arguments)


def test_misspelt_model(refuse, task):
    assert "There is no model, run folder or encoder family" in refuse("eval", "scenes_spark", "--task", task)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ViT-B-32", "ViT-B/32", "vit-b-32", "vit_b_32", "ViT-B-32/no_such_tag"])
def test_an_architecture_points_at_open_clip_and_its_tags(refuse, task, model):
    import open_clip

    sentence = refuse("eval", model, "--task", task)
    assert refuse("eval", model) == sentence
    tags = open_clip.list_pretrained_tags_by_model("ViT-B-32")
    assert "write open_clip:ViT-B-32/TAG, such as openai, " in sentence
    assert f"list all {len(tags)} tags with python -c " in sentence
    command = sentence.partition("python -c ")[2].removeprefix('"').removesuffix('".')
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == tags


@pytest.mark.parametrize(
    ("model", "end"),
    [
        ("ViT-B/32/openai", "write open_clip:ViT-B-32/openai."),
        ("vit-l-14-336", "write open_clip:ViT-L-14-336/TAG, which is openai."),
        ("coca_base", "write open_clip:coca_base/FILE, a file of weights: open_clip has no tag for it."),
        ("openai/clip-vit-base-patch32", "write hf:openai/clip-vit-base-patch32 where that is a repository"),
        ("tests/no_such_folder", "with sparc-bench list models."),
        ("open_clip:ViT-B-32", "add /FILE or /TAG, such as openai, "),
        ("open_clip:zzzzz", 'print(*open_clip.list_models())".'),
        ("open_clip:ViT-B-32/zzzzz", "print(*open_clip.list_pretrained_tags_by_model('ViT-B-32'))\"."),
    ],
)
def test_a_word_that_is_nearly_a_model_is_told_how_to_write_it(refuse, task, model, end, tmp_path):
    assert end in refuse("eval", model, "--task", task, "--results", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["show", "qqqq"], "sparc-bench list KIND (tasks, models, "),
        (["eval", "own:x", "--task", "qqqq"], "sparc-bench list tasks."),
        (["eval", "own:x", "--suite", "qqqq"], "sparc-bench list tasks."),
        (["eval", "qqqq", "--task", "scenes_retrieval"], "sparc-bench list models."),
        (["train", "qqqq"], "sparc-bench list models."),
        (["data", "check", "qqqq"], "sparc-bench data list."),
        (["eval", "own:x", "--qqqqqqqqqqqq", "1"], "sparc-bench eval --help."),
        (["compare", "qqqq", "scenes_clip"], "ls results."),
    ],
)
def test_a_name_far_from_all_others_names_the_command_that_lists_them(refuse, arguments, command):
    sentence = refuse(*arguments)
    assert f"with {command}" in sentence
    assert len(sentence) < 200


def test_missing_data_root(refuse, tmp_path):
    sentence = refuse("train", "x", "--data-root", tmp_path / "nowhere")
    assert sentence == f"The data root {tmp_path / 'nowhere'} does not exist: mend --data-root or SPARC_BENCH_DATA."


def test_data_root_from_the_environment(refuse, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_BENCH_DATA", str(tmp_path / "gone"))
    assert str(tmp_path / "gone") in refuse("train", "x")


def test_no_data_root_for_data_on_disk(refuse, tmp_path):
    card = tmp_path / "tiny_flickr.toml"
    card.write_text(_toml(TINY | {"data": {"dataset": "flickr8k"}}))
    assert "--data-root" in refuse("train", card, "--runs", tmp_path / "runs")


def test_weights_of_another_architecture(refuse, other_architecture, task, tmp_path):
    sentence = refuse("eval", other_architecture, "--task", task, "--results", tmp_path / "results")
    assert "another architecture" in sentence
    assert not list((tmp_path / "results").rglob("*.json"))


def test_truncated_weights(refuse, other_architecture, task, tmp_path):
    file = other_architecture / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    assert "is damaged" in refuse("eval", other_architecture, "--task", task, "--results", tmp_path / "results")


def test_run_for_two_models(refuse, other_architecture, task):
    assert "--run belongs to one model" in refuse("eval", "a", "b", "--run", other_architecture, "--task", task)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 99}', json.dumps({"schema_version": 1})])
def test_damaged_record(refuse, tmp_path, content):
    record = tmp_path / "some_model" / "some_task.json"
    record.parent.mkdir()
    record.write_text(content)
    assert str(record) in refuse("leaderboard", tmp_path)
    assert not (tmp_path / "leaderboard.csv").exists()


def test_leaderboard_of_no_folder(refuse, tmp_path):
    assert "does not exist" in refuse("leaderboard", tmp_path / "resluts")
    assert not (tmp_path / "resluts").exists()


def test_results_folder_is_a_file(refuse, other_architecture, task, tmp_path):
    (tmp_path / "results").write_text("")
    sentence = refuse("eval", other_architecture, "--task", task, "--results", tmp_path / "results")
    assert sentence.endswith("choose a folder, not a file.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_results_folder_that_may_not_be_written(refuse, other_architecture, task, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "cannot be written" in refuse("eval", other_architecture, "--task", task, "--results", folder)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "that you may use"), (errno.EROFS, "written to")],
)
def test_file_system_that_refuses(refuse, monkeypatch, number, remedy):
    _break(monkeypatch, OSError(number, os.strerror(number), "results/x.json"))
    sentence = refuse("list", "models")
    assert sentence.startswith(f"results/x.json cannot be used ({os.strerror(number)}): ")
    assert remedy in sentence


def test_other_errors_keep_their_traceback(monkeypatch):
    _break(monkeypatch, OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        main(["list", "models"])


def test_user_error_is_printed_as_it_is(refuse, monkeypatch):
    _break(monkeypatch, UserError("This is wrong: mend it."))
    assert refuse("list", "models") == "This is wrong: mend it."


def test_interrupted(monkeypatch, capsys):
    _break(monkeypatch, KeyboardInterrupt())
    assert main(["list", "models"]) == 130
    assert (
        capsys.readouterr().err.strip()
        == "Interrupted: what is finished is kept, and the same command goes on from it."
    )


@pytest.mark.slow
def test_reader_of_the_pipe_is_gone():
    """`sparc-bench list models | head -0` ends quietly."""
    command = [sys.executable, "-c", "from sparc_bench.cli.app import main; raise SystemExit(main(['list', 'models']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("name", "out", "sentence"),
    [
        ("clip", "sheet.png", "There is no picture of 'clip'"),
        ("scenes1", "sheet.jpg", "end --out in .png."),
        ("scenes1", "nowhere/sheet.png", "does not exist"),
    ],
)
def test_show_out(refuse, tmp_path, name, out, sentence):
    assert sentence in refuse("show", name, "--out", tmp_path / out)


def _break(monkeypatch, error):
    from sparc_bench.cli import listing

    def broken(kind, only):
        raise error

    monkeypatch.setattr(listing, "listing", broken)


def _toml(values, prefix=""):
    plain = [
        f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict) and key != "name"
    ]
    tables = [f"[{prefix}{key}]\n{_toml(value)}" for key, value in values.items() if isinstance(value, dict)]
    return "\n".join([*plain, *tables])
