import pytest

from sparc_bench.metrics.object_mentions import ObjectMentions

ROWS = (
    "person, man, woman, child, policeman, passenger, people",
    "bus, minibus",
    "bench, pew",
    "chair, seat, stool",
    "toilet, urinal",
    "dog, puppy, hot",
    "hot dog",
    "tie, bow tie",
    "wine glass",
    "knife",
    "sheep, calf",
    "elephant",
    "train",
    "mouse",
    "cell phone, phone, iphone",
    "tomato",
    "couch",
)
MENTIONS = ObjectMentions({word: row.split(", ")[0] for row in ROWS for word in row.split(", ")})


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("A dog on a pew.", ("dog", "bench")),
        ("Two men and women, policemen; children's dogs!", ("person", "person", "person", "person", "dog")),
        ("Some people and a person: persons", ("person", "person", "person")),
        ("A bus, buses and minibuses", ("bus", "bus", "bus")),
        (
            "benches couches ties puppies knives mice calves tomatoes",
            ("bench", "couch", "tie", "dog", "knife", "mouse", "sheep", "tomato"),
        ),
        ("Hot dogs and wine glasses", ("hot dog", "wine glass")),
        ("A hot, dog", ("dog", "dog")),
        ("a bow tie and an iPhone", ("tie", "cell phone")),
        ("A baby elephant beside an adult sheep", ("elephant", "sheep")),
        ("a baby animal", ()),
        ("A passenger train and a passenger", ("train", "person")),
        ("Empty train tracks, and a train on a train track", ("train",)),
        ("A toilet seat", ("toilet",)),
        ("A seat beside the toilet", ("toilet",)),
        ("A seat", ("chair",)),
        ("the man's seat, a dog\u2019s phone", ("person", "chair", "dog", "cell phone")),
        ("A hot-dog at a dogma-bus", ()),
        ("", ()),
    ],
)
def test_by_hand(caption, objects):
    assert MENTIONS.of(caption) == objects


def test_all_names_of_coco_and_their_plurals(test_data):
    lines = (test_data / "chair" / "synonyms.txt").read_text().splitlines()
    rows = [[word.strip().lower() for word in line.split(",")] for line in lines]
    mentions = ObjectMentions({word: row[0] for row in rows for word in row if word})
    assert len(rows) == 80
    for row in rows:
        assert mentions.of(f"There is a {row[0]} here.") == (row[0],)
        if not row[0].endswith(("s", "sheep", "knife", "mouse", "person")):
            plural = f"{row[0]}es" if row[0].endswith(("sh", "ch")) else f"{row[0]}s"
            assert mentions.of(f"Many {plural}!") == (row[0],), plural
