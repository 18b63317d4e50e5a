from pathlib import Path

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.evaluation.evaluate import Settings, evaluate

TOY = Path(__file__).parents[1] / "toys" / "plugins"


@pytest.fixture
def toy_plugins(monkeypatch):
    monkeypatch.setattr(discovery, "_plugins", {})
    for name in ("toy_data", "toy_score", "toy_family"):
        discovery.add_plugin(TOY / f"{name}.py")


@pytest.fixture
def toy_task(toy_plugins):
    def make(name="toy", **changes):
        values = {
            "name": name,
            "title": "Toy images",
            "family": "classification",
            "dataset": "toy_data",
            "split": "test",
            "data": {},
            "protocol": "toy_score",
            "options": {"prompts": "openai7", "classes": "own"},
            "headline": "local/top1",
            "source": "none",
        }
        return TaskCard(**{**values, **changes})

    return make


@pytest.fixture
def toy_model(tmp_path, toy_plugins):
    def make(name="toy_good", skill=0.9, **options):
        path = tmp_path / "cards" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        extra = "".join(f"{key} = {value}\n" for key, value in options.items())
        path.write_text(
            f'title = "Toy"\nfamily = "toy_family"\nsource = "none"\n'
            f'trained_on = ["toy_data:train"]\n[options]\nskill = {skill}\n{extra}'
        )
        return str(path)

    return make


@pytest.fixture
def evaluated(tmp_path, toy_task, toy_model):
    """Evaluate a toy model; returns its results folder."""

    def go(name="toy_good", skill=0.9, tasks=None, **settings):
        settings = Settings(results=tmp_path / "results", **settings)
        done = evaluate(toy_model(name, skill), tasks or [toy_task()], settings)
        assert [result.error for result in done] == [None] * len(done)
        return tmp_path / "results"

    return go
