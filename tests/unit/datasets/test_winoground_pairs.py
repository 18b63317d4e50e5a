import json

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.datasets.winoground_pairs import Options, read
from sparc_bench.errors import UserError
from sparc_bench.protocols import minimal_pairs
from tests.toys.encoders import LookupEncoder
from tests.unit.datasets.conftest import save_photo


def row(number, **change):
    about = {"tag": "Noun", "secondary_tag": "", "num_main_preds": 1 + number % 2, "collapsed_tag": "Object"}
    texts = {f"caption_{side}": f"caption {number} {side}" for side in (0, 1)}
    images = {f"image_{side}": f"ex_{number}_img_{side}" for side in (0, 1)}
    return {"id": number, **about, **texts, **images, **change}


@pytest.fixture
def root(tmp_path):
    data = tmp_path / "winoground/data"
    for number in range(3):
        for side in (0, 1):
            save_photo(data / f"images/ex_{number}_img_{side}.png")
    (data / "examples.jsonl").write_text("".join(json.dumps(row(number)) + "\n" for number in range(3)))
    return tmp_path


def test_two_examples_of_a_line(root):
    data = read(root, "test", Options())
    assert [(example.id, example.group, example.image.id) for example in data][2:4] == [
        ("1/0", "1", "ex_1_img_0.png"),
        ("1/1", "1", "ex_1_img_1.png"),
    ]
    assert (data[3].captions, data[3].negatives) == (("caption 1 1",), ("caption 1 0",))
    assert data[3].tags == {"swap": "Object", "predicates": "2"}
    assert (data.counts()["images"], data.counts()["groups"], data[0].photo) == (6, 3, "")
    assert data[0].image.open().mode == "RGB"


def test_its_three_scores_in_a_plain_loop(root):
    data = read(root, "test", Options())
    # image i with caption j of group 0 all right, of group 1 text alone, of group 2 a tie
    tables = [[[4, 1], [2, 3]], [[2, 1], [3, 4]], [[1, 1], [0, 2]]]
    texts = [f"caption {number} {side}" for number in range(3) for side in (0, 1)]
    scores = {}
    for number, table in enumerate(tables):
        for side in (0, 1):
            vector = np.zeros(6)
            vector[2 * number : 2 * number + 2] = table[side]
            scores[f"ex_{number}_img_{side}.png"] = vector
    encoder = LookupEncoder(scores.__getitem__, dict(zip(texts, np.eye(6), strict=True)).__getitem__)
    options = minimal_pairs.Options(ties="lose", group_by=("swap", "predicates"))
    outcome = outcome_of(minimal_pairs, encoder, data, options)
    text = image = group = 0
    for (c0_i0, c1_i0), (c0_i1, c1_i1) in tables:
        text += c0_i0 > c1_i0 and c1_i1 > c0_i1
        image += c0_i0 > c0_i1 and c1_i1 > c1_i0
        group += c0_i0 > c1_i0 and c1_i1 > c0_i1 and c0_i0 > c0_i1 and c1_i1 > c1_i0
    found = {name: statistic.value for name, statistic in outcome.metrics.items()}
    assert found == pytest.approx({"text_score": text / 3, "image_score": image / 3, "group_score": group / 3})
    assert (text, image, group, outcome.ties) == (2, 2, 1, 1)
    assert {name: s.value for name, s in outcome.groups["predicates"].items()} == {"1": 0.5, "2": 0}


def test_a_pair_goes_with_its_photo(root):
    (root / "winoground/data/images/ex_1_img_1.png").unlink()
    with pytest.raises(UserError, match=r"^1 of the 6 photos of winoground_pairs, of 1 of its 6 items"):
        read(root, "test", Options())
    data = read(root, "test", Options(absent="skip"))
    assert [example.id for example in data] == ["0/0", "0/1", "2/0", "2/1"]
    assert (data.sizes["photos"], len(data.notes)) == (4, 1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no lines"),
        ('{"id": 0}\n', r"examples\.jsonl is not the expected JSON at caption_0 \(Field required\)"),
        (json.dumps(row(0)) + "\n" + json.dumps(row(0)) + "\n", "holds the item 0/0, 0/1 more than once"),
    ],
)
def test_malformed_files(root, content, sentence):
    (root / "winoground/data/examples.jsonl").write_text(content)
    with pytest.raises(UserError, match=sentence):
        read(root, "test", Options())


def test_marked_encodings(root):
    path = root / "winoground/data/examples.jsonl"
    text = path.read_text(encoding="utf-8")
    whole = len(read(root, "test", Options()))
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text(text, encoding=encoding)
        assert len(read(root, "test", Options())) == whole
