"""Contents are known by their hash: computed once, again after any change, and remembered by path."""

import hashlib
import os
import shutil
import time

import pytest

from sparc_bench.errors import UserError
from sparc_bench.files import file_hashes as module
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.files.file_hashes import UNREADABLE, file_hashes


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "deep/c.jpg"):
        write(tmp_path / "photos" / name, f"content of {name}")
    return tmp_path / "photos"


def write(file, text, age=3600.0):
    file.write_text(text)
    past = time.time() - age
    os.utime(file, (past, past))


@pytest.fixture(autouse=True)
def _old_enough(monkeypatch):
    """The time of a change of a file's entry cannot be set back: no file counts as just changed."""
    monkeypatch.setattr(module, "RECENT", -60.0)


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were read."""
    names = []
    plain = module._digest
    monkeypatch.setattr(module, "_digest", lambda folder, name: names.append(name) or plain(folder, name))
    return names


NAMES = ["a.jpg", "b.jpg", "deep/c.jpg", "none.jpg"]


def test_each_file_is_read_once(folder, hashed):
    first = file_hashes(folder, NAMES)
    assert first == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES[:3]}
    assert sorted(hashed) == NAMES[:3]
    assert file_hashes(folder, NAMES) == first
    assert list(file_hashes(folder, ["b.jpg", "a.jpg"])) == ["b.jpg", "a.jpg"]
    assert len(hashed) == 3
    write(folder / "d.jpg", "another")
    assert file_hashes(folder, [*NAMES, "d.jpg"]).keys() == {*NAMES[:3], "d.jpg"}
    assert hashed[3:] == ["d.jpg"]


def test_another_content_of_the_same_size_is_seen(folder, hashed):
    before = file_hashes(folder, NAMES)
    write(folder / "a.jpg", "content of z.jpg", age=7200)
    after = file_hashes(folder, NAMES)
    assert {name for name in after if after[name] != before[name]} == {"a.jpg"}
    assert hashed[3:] == ["a.jpg"]


def test_a_file_put_in_the_place_of_another_with_its_times_is_seen(folder):
    before = file_hashes(folder, NAMES)
    (folder / "new").write_text("content of z.jpg")
    shutil.copystat(folder / "a.jpg", folder / "new")
    (folder / "new").replace(folder / "a.jpg")
    assert file_hashes(folder, NAMES)["a.jpg"] != before["a.jpg"]


def test_a_file_that_changed_just_now_is_not_remembered(folder, hashed, monkeypatch):
    monkeypatch.setattr(module, "RECENT", 60.0)
    file_hashes(folder, NAMES)
    file_hashes(folder, NAMES)
    assert sorted(hashed) == sorted(2 * NAMES[:3])


def test_a_moved_folder_has_the_same_hashes(folder, hashed):
    before = file_hashes(folder, NAMES)
    folder.rename(folder.parent / "elsewhere")
    assert file_hashes(folder.parent / "elsewhere", NAMES) == before
    assert len(hashed) == 6


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"00000000\nother", "flipped"])
def test_a_damaged_memory_is_made_again(folder, hashed, damage):
    before = file_hashes(folder, NAMES)
    (memory,) = (cache_folder() / module.HASHES).iterdir()
    whole = memory.read_bytes()
    digest = bytes.fromhex(before["a.jpg"])
    memory.write_bytes(whole.replace(digest, digest[::-1]) if damage == "flipped" else damage)
    assert file_hashes(folder, NAMES) == before
    assert len(hashed) == 6
    assert memory.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_time_alone(folder, hashed, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "file"))
    assert file_hashes(folder, NAMES) == file_hashes(folder, NAMES)
    assert len(hashed) == 6


def test_what_is_there_and_cannot_be_read_has_a_name_of_its_own(folder):
    (folder / "folder.jpg").mkdir()
    assert file_hashes(folder, ["folder.jpg", "a.jpg"])["folder.jpg"] == UNREADABLE


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\udc00.jpg"])
def test_a_name_that_no_file_can_have_is_a_sentence(folder, name):
    with pytest.raises(UserError, match=r"'a\\\S+' in .* is no name of a file: mend the annotations"):
        file_hashes(folder, ["a.jpg", name])


def test_hashing_that_takes_long_is_shown(folder, monkeypatch, capsys):
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", -1.0)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_WRITES", -1.0)
    file_hashes(folder, NAMES)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"Hashing the files of {folder}, once: 1 of 3, ")
    assert lines[0].endswith(" s left.")
