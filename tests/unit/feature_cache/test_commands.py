"""sparc-bench cache show|clear, and the option of sparc-bench eval."""

import os

import pytest

from sparc_bench.cli.app import main
from tests.toys.cached import ALL, TinyEncoder, split_of


@pytest.fixture
def filled(new_cache, tmp_path, cache_root):
    photos = split_of(5, tmp_path / "log")
    for keep in ("full", "half"):
        cache = new_cache(keep)
        cached = cache.around(TinyEncoder(), photos)
        cached.images(photos.views, ALL)
        cached.texts(["a cat", "a dog"], frozenset({"global"}))
        cached.texts(["a dog", "grass"], frozenset({"global"}))
        cached.untrained().texts(["a cat"], frozenset({"global"}))
        cache.flush()
    pixels = cache_root / "pixels"
    pixels.mkdir()
    (pixels / "scenes1-train-0123456789abcdef.npy").write_bytes(b"x" * 2_500_000)
    (pixels / "scenes1-train-0123456789abcdef.unreadable").write_text("photo\n")


@pytest.mark.usefixtures("filled")
def test_show(capsys, cache_root):
    assert main(["cache", "show"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].split() == ["model", "data", "what", "of", "size", "last", "used", "place"]
    photos = next(line for line in lines if "photos:test" in line)
    assert "5 images" in photos
    assert "global, branches," in photos  # a long cell goes on in the next line
    assert any("3 texts" in line and line.startswith("tiny  ") for line in lines)
    assert any("1 text " in line and line.startswith("tiny (untrained, seed 0)") for line in lines)
    assert any("scenes1:train" in line and "decoded pixels" in line and "2.5 MB" in line for line in lines)
    assert lines[-1] == f"2.5 MB in {cache_root}; sparc-bench cache clear removes it."


@pytest.mark.usefixtures("filled")
def test_clear_removes_what_is_ours_alone(capsys, cache_root):
    mine = cache_root / "features" / "notes.txt"
    mine.write_text("of the user")
    choice = cache_root / "precision" / "a.json"
    choice.parent.mkdir()
    choice.write_text("{}")
    folder = next(path for path in (cache_root / "features").iterdir() if path.is_dir())
    (folder / ".x.safetensors.7.part").touch()  # of a killed process
    (cache_root / "pixels" / ".x.npy.7.part").touch()
    (cache_root / "hashes").mkdir()
    (cache_root / "hashes" / "a.json").touch()
    assert main(["cache", "clear"]) == 0
    assert (
        capsys.readouterr().out
        == f"Removed 3 folders of features and 2 files of decoded pixels (2.5 MB) from {cache_root}.\n"
    )
    left = sorted(path.relative_to(cache_root).as_posix() for path in cache_root.rglob("*") if path.is_file())
    assert left == ["features/notes.txt", "precision/a.json"]
    assert main(["cache", "show"]) == 0
    assert f"0.0 MB in {cache_root}" in capsys.readouterr().out


def test_nothing_is_there_yet(capsys, cache_root):
    assert main(["cache", "show"]) == 0
    assert main(["cache", "clear"]) == 0
    assert "Removed 0 folders of features" in capsys.readouterr().out
    assert not cache_root.exists()


@pytest.mark.usefixtures("filled")
def test_a_damaged_key_or_shard_is_shown_as_far_as_it_goes(capsys, cache_root):
    for file in cache_root.rglob("key.json"):
        file.write_text("{")
    for file in cache_root.rglob("*.safetensors"):
        file.write_bytes(b"")
    assert main(["cache", "show"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("?")


def test_the_last_used_stand_first(new_cache, tmp_path, cache_root, capsys):
    for name in ("older", "newer"):
        cache = new_cache()
        cache.around(TinyEncoder(weights=name), split_of(0, tmp_path / "log")).texts([name], frozenset({"global"}))
        cache.flush()
    older, newer = sorted(
        (cache_root / "features").iterdir(), key=lambda folder: "newer" in (folder / "key.json").read_text()
    )
    for folder, day in ((older, 1), (newer, 2)):
        for file in folder.iterdir():
            os.utime(file, (86400 * day, 86400 * day))
    main(["cache", "show"])
    places = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert places == [f"features/{newer.name}", f"features/{older.name}"]


@pytest.mark.slow
@pytest.mark.parametrize(("option", "kept"), [([], True), (["--cache", "off"], False)])
def test_eval(tmp_path, cache_root, option, kept):
    arguments = ["--task", "scenes_classification_shape", "--limit", "8", "--results", str(tmp_path), "--workers", "0"]
    assert main(["eval", "scenes_clip", *arguments, *option]) == 0
    assert cache_root.exists() == kept


def test_a_misspelt_choice(capsys):
    assert main(["cache", "remove"]) == 2
    assert "'show', 'clear'" in capsys.readouterr().err
