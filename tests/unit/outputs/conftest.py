"""Small tasks on rendered scenes, and files of outputs for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparc_bench.cards.binding import bind
from sparc_bench.cards.task_card import TaskCard

PROTOCOLS = {
    "retrieval": ("text_to_image_r1", {"ks": [1, 5], "truth": "own", "ties": "expected"}),
    "classification": ("top1", {"prompts": "scenes", "classes": "scenes_shape", "top_k": [1], "ties": "expected"}),
    "minimal_pairs": ("group_score", {"ties": "expected", "group_by": []}),
    "faithfulness": (
        "k_precision_misses",
        {
            "pool": "all",
            "references": "union",
            "tokens": "instruct_qa",
            "articles": "drop",
            "tagger": "dataset",
            "exact_hits": "apart",
            "ties": "expected",
        },
    ),
    "segmentation": (
        "local/miou",
        {
            "prompts": "scenes",
            "classes": "scenes_shape",
            "background": "ignore",
            "background_words": [],
            "background_score": "none",
            "upsample": "nearest",
        },
    ),
}


@pytest.fixture
def task():
    """A task card of a protocol on a few scenes."""

    def make(protocol, name="small", data=None, **options) -> TaskCard:
        headline, values = PROTOCOLS[protocol]
        return TaskCard(
            name=name,
            title="A small task",
            family="retrieval",
            dataset="scenes1",
            split="test",
            data={"kind": "scenes", "n": 12, **(data or {})},
            protocol=protocol,
            options={**values, **options},
            headline=headline,
            reference_rows=("constant", "random"),
            source="none",
        )

    return make


@pytest.fixture
def data_of():
    """The data split of a task."""

    def read(card):
        task = bind(card)
        return task.dataset.read(None, card.split, task.data_options)

    return read


@pytest.fixture
def matrix(tmp_path):
    """Write a similarity matrix."""

    def write(ids, texts, scores, name="matrix.npz", **others) -> Path:
        path = tmp_path / name
        arrays = {"scores": scores} if scores is not None else {}
        np.savez(path, image_ids=np.array(ids, dtype=str), texts=np.array(texts, dtype=str), **arrays, **others)
        return path

    return write


@pytest.fixture
def json_file(tmp_path):
    def write(content, name="outputs.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def save_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
