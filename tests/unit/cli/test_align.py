import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparc_bench.cli.align import opened, told_apart
from sparc_bench.cli.app import main
from sparc_bench.datasets import scenes1
from sparc_bench.errors import UserError

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "photo.jpg"
    Image.fromarray(np.zeros((30, 50, 3), dtype=np.uint8)).save(file)
    return str(file)


def test_models_image_and_caption_are_told_apart():
    assert told_apart(["a", "scenes1:test:0"]) == (["a"], "scenes1:test:0", None)
    assert told_apart(["a", "b", "x.PNG", "a red dog"]) == (["a", "b"], "x.PNG", "a red dog")
    assert told_apart(["open_clip:ViT-B-32/openai", "x.jpg", "x"]) == (["open_clip:ViT-B-32/openai"], "x.jpg", "x")
    for words in (["x.jpg"], ["x.jpg", "a dog"], ["scenes_clip", "a red dog"], ["a", "x.jpg", "one", "two"]):
        with pytest.raises(UserError):
            told_apart(words)


@pytest.mark.parametrize("number", ["1000", "99999999", "9" * 5000])
def test_a_number_beyond_the_split_is_refused_before_anything_is_drawn(number):
    with pytest.raises(UserError, match=r"scenes1:test has 1000 images: number \d+ is beyond them"):
        opened(f"scenes1:test:{number}")


@pytest.mark.slow
def test_the_image_of_a_number_does_not_depend_on_how_many_are_read():
    item, caption = opened("scenes1:test:3")
    [*_, last] = scenes1.read(None, "test", scenes1.Options(n=4)).examples
    assert (np.asarray(item.open()) == np.asarray(last.image.open())).all()
    assert caption in last.captions


@pytest.mark.slow
def test_a_scene_with_its_own_caption(tmp_path, capsys):
    out = tmp_path / "new" / "a.png"
    assert main(["align", "scenes_clip", "scenes1:test:0", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Wrote {out}: purple, cross, blue, star, green, heart; 2 rows of maps.\n"
    with Image.open(out) as drawn:
        assert drawn.width > drawn.height > 500


@pytest.mark.slow
def test_a_photo_with_a_caption(tmp_path, photo, capsys):
    out = tmp_path / "a.png"
    assert main(["align", "scenes_sparc", photo, "A dog, running.", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Wrote {out}: dog, running; 2 rows of maps.\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["scenes_clip", "PHOTO"], r"photo\.jpg has no caption of its own: write one in quotes after it\.$"),
        (["PHOTO", "a dog"], "No model was named: write models, an image and a caption, in this order"),
        (["scenes_clip", "a dog", "b"], r"no image among the last two words, 'a dog b': .*scenes1:test:0"),
        (["scenes_clip", "none.png", "a dog"], r"There is no image file none\.png: check the path"),
        (["scenes_clip", "broken.png", "a dog"], r"broken\.png cannot be decoded"),
        (["scenes_clip", "scenes1:test:x"], r"scenes1:test:x names no image: write scenes1:SPLIT:NUMBER"),
        (["scenes_clip", "scenes1:tset:1"], "has no split 'tset'"),
        (["scenes_clip", "flickr8k:test:1"], "flickr8k lies in files: name an image file of it"),
        (["scenes_clip", "PHOTO", "..."], r"The caption '\.\.\.' has no word"),
        (["scenes_clip", "PHOTO", ""], "The caption '' has no word"),
        (["scenes_clpi", "PHOTO", "a dog"], r"did you mean 'scenes_clip'\?"),
        (["python:no_patches.py", "PHOTO", "a dog"], r"python_no_patches\.py gives no patch vectors, .*: leave it out"),
        (["scenes_clip", "PHOTO", "a dog", "--out", "a.jpg"], r"a\.jpg is no PNG file: let --out end in \.png"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(words, sentence, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    shutil.copy(PLUGINS / "no_patches.py", tmp_path)
    assert main(["align", *(photo if word == "PHOTO" else word for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(sentence, error)
    assert not list(tmp_path.glob("align.png"))
