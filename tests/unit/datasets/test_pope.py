import json

import pytest

from sparc_bench.datasets.pope import Options, read
from sparc_bench.errors import UserError
from sparc_bench.facets import Objects

NAMES = ("COCO_val2014_000000000042.jpg", "COCO_val2014_000000000007.jpg")
ROWS = [
    {"question_id": 1, "image": NAMES[0], "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": NAMES[0], "text": "Is there an apple in the image?", "label": "no"},
    {"question_id": 3, "image": NAMES[1], "text": "Is there a hot dog in the image?", "label": "no"},
]


@pytest.fixture
def pope_root(tmp_path, photo):
    write(tmp_path, ROWS)
    for name in NAMES:
        photo(tmp_path / "coco/val2014" / name)
    return tmp_path


def write(root, rows):
    (root / "pope").mkdir(exist_ok=True)
    for split in ("random", "popular", "adversarial"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"pope/coco_pope_{split}.json").write_text(text)


def test_questions_by_photo(pope_root):
    split = read(pope_root, "random", Options())
    assert [example.id for example in split] == ["42", "7"]
    assert [example.photo for example in split] == ["coco:42", "coco:7"]
    assert [example.facet(Objects).present for example in split] == [{"dog": True, "apple": False}, {"hot dog": False}]
    assert split.classes == ("apple", "dog", "hot dog")
    counts = split.counts()
    assert (counts["images"], counts["questions"], counts["yes"]) == (2, 3, 1)
    assert split[0].image.open().size == (8, 6)


def test_photos_under_their_later_names(pope_root, photo):
    photo(pope_root / "coco/val2017/000000000007.jpg")
    options = Options(photos="coco/val2017", names=2017)
    with pytest.raises(UserError, match=r'1 of 2 files \(2 annotations\) are not in .* absent = "skip"'):
        read(pope_root, "popular", options)
    split = read(pope_root, "popular", options.model_copy(update={"absent": "skip"}))
    assert [example.id for example in split] == ["7"]
    assert split.classes == ("hot dog",)
    assert "1 of 2 files (2 annotations) are absent" in split.notes[0]


def test_no_photo_at_all(pope_root):
    (pope_root / "coco/val2017").mkdir()
    with pytest.raises(UserError, match="none of the photos"):
        read(pope_root, "random", Options(photos="coco/val2017", names=2017, absent="skip"))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({**ROWS[0], "label": "maybe"}, "no question at line 4"),
        ({**ROWS[0], "text": "Is a dog here?"}, "not 'Is there a THING in the image\\?'"),
        ({**ROWS[0], "image": "dog.jpg"}, "of dog.jpg at line 4"),
        (ROWS[0], "asks twice for 'dog' .* take line 4 out"),
    ],
)
def test_what_is_wrong_is_one_sentence(pope_root, row, sentence):
    write(pope_root, [*ROWS, row])
    with pytest.raises(UserError, match=sentence) as error:
        read(pope_root, "adversarial", Options())
    assert "\n" not in str(error.value)


def test_the_fingerprint_knows_questions_and_photos(pope_root, photo):
    before = read(pope_root, "random", Options()).fingerprint
    photo(pope_root / "coco/val2014" / NAMES[0], size=(80, 60))
    middle = read(pope_root, "random", Options()).fingerprint
    write(pope_root, [*ROWS[:2], {**ROWS[2], "label": "yes"}])
    assert len({before, middle, read(pope_root, "random", Options()).fingerprint}) == 3


@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_the_published_counts(test_data, tmp_path, photo, split):
    """All 3,000 questions, with a photo made for each."""
    (tmp_path / "pope").symlink_to(test_data / "pope")
    lines = (test_data / "pope" / f"coco_pope_{split}.json").read_text().splitlines()
    for name in {json.loads(line)["image"] for line in lines}:
        photo(tmp_path / "coco/val2014" / name, size=(1, 1))
    data = read(tmp_path, split, Options())
    counts = data.counts()
    assert (counts["images"], counts["questions"], counts["yes"], counts["classes"]) == (500, 3000, 1500, 79)
    assert {(len(of), sum(of.values())) for of in (example.facet(Objects).present for example in data)} == {(6, 3)}


def test_marked_encodings(pope_root):
    path = pope_root / "pope/coco_pope_random.json"
    text = path.read_text(encoding="utf-8")
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text(text, encoding=encoding)
        assert len(read(pope_root, "random", Options())) == 2
