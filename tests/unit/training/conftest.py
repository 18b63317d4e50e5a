"""A recipe that trains in a second, and a cache folder of the test's own."""

import pytest

from sparc_bench.cards import Recipe


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    return Recipe.model_validate(
        {
            "name": "tiny",
            "title": "for tests",
            "source": "none",
            "objective": "sparc",
            "objective_options": {"dim": 16},
            "data": {
                "dataset": "scenes1",
                "options": {"n": 48},
                "val_options": {"n": 16},
                "false_negatives": "mask",
            },
            "image": {"model": "vit_tiny_patch16_224", "size": 64, "patch": 16, "width": 24, "depth": 1, "heads": 2},
            "text": {"width": 16, "depth": 1, "heads": 2, "context": 48, "tokenizer": "own", "vocabulary": 320},
            "optim": {"warmup": 2},
            "batch_size": 8,
            "steps": 6,
            "eval_every": 3,
            "precision": "float32",
        }
    )
