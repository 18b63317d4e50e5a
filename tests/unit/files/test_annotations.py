import pytest

from sparc_bench.errors import UserError
from sparc_bench.files.annotations import (
    CocoRow,
    DataFolder,
    absent_notes,
    decoded,
    file_sizes,
    fingerprint,
    read_json,
    repeated,
)


def test_no_root_names_both_ways_to_give_one():
    with pytest.raises(UserError, match=r"--data-root FOLDER or set SPARC_BENCH_DATA to the folder that holds x/ with"):
        DataFolder.find(None, "x", "x/ with a.txt")


def test_missing_root_and_missing_folder_end_in_the_fix(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is no folder: mend --data-root or SPARC_BENCH_DATA\.$"):
        DataFolder.find(tmp_path / "nowhere", "x", "x/")
    with pytest.raises(UserError, match=r"holds no folder 'x'.*needs x/ with a.txt\.$"):
        DataFolder.find(tmp_path, "x", "x/ with a.txt")


def test_a_root_that_is_the_folder_itself_is_told_to_go_up(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=f"--data-root {tmp_path} "):
        DataFolder.find(tmp_path / "x", "x", "x/")


def test_lists(tmp_path):
    home = DataFolder(tmp_path, "ids.txt")
    with pytest.raises(UserError, match=r"ids\.txt does not exist: the data set needs ids\.txt\.$"):
        home.lines("ids.txt")
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfb\r\n\r\na\r\n")
    assert home.lines("ids.txt") == ["b", "a"]
    (tmp_path / "ids.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match="lists a more than once"):
        home.lines("ids.txt")
    (tmp_path / "ids.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(UserError, match=r"no UTF-8 text \(byte 2\)"):
        home.lines("ids.txt")


def test_a_name_that_no_file_can_have_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"'a\\x00b' in .* is no name of a file: mend the annotations"):
        file_sizes(tmp_path, ["a\0b"])
    with pytest.raises(UserError, match="cannot be read"):
        DataFolder(tmp_path, "a file").read("a\0b")


def test_absent_files_are_refused_or_noted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    rows = {"a.jpg": 5, "b.jpg": 4, "c.jpg": 3}
    sizes = file_sizes(tmp_path, rows)
    assert sizes == {"a.jpg": 5}
    with pytest.raises(UserError, match=r'^2 of 3 files \(7 annotations\) are not .*b\.jpg, c\.jpg.*absent = "skip"'):
        absent_notes(rows, sizes, tmp_path, "refuse")
    (note,) = absent_notes(rows, sizes, tmp_path, "skip")
    assert note == "2 of 3 files (7 annotations) are absent and left out: b.jpg, c.jpg."
    assert absent_notes({"a.jpg": 5}, sizes, tmp_path, "refuse") == ()


def test_fingerprint_knows_annotations_ids_and_contents_but_no_order():
    base = fingerprint([b"captions"], {"a": "1", "b": "2"})
    assert base == fingerprint([b"captions"], {"b": "2", "a": "1"})
    others = [
        fingerprint([b"Captions"], {"a": "1", "b": "2"}),
        fingerprint([b"capt", b"ions"], {"a": "1", "b": "2"}),
        fingerprint([b"captions"], {"a": "1", "b": "3"}),
        fingerprint([b"captions"], {"a": "1", "c": "2"}),
        fingerprint([b"captions"], {"a": "1"}),
    ]
    assert len({base, *others}) == 6


def test_repeated():
    assert repeated(["a", "b", "b", "a", "b"]) == ["b", "a"]
    assert repeated([]) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_decoded_by_its_mark(encoding):
    assert decoded("für 1\n".encode(encoding), "x") == "für 1\n"


def test_text_in_another_encoding_is_refused():
    with pytest.raises(UserError, match=r"x is no UTF-8 text \(byte 1\): save it again as UTF-8"):
        decoded("für".encode("latin-1"), "x")
    with pytest.raises(UserError, match="x is no UTF-16 text"):
        decoded(b"\xff\xfe\x00", "x")
    with pytest.raises(UserError, match="without a byte order mark: save it again as UTF-8"):
        read_json(CocoRow, '{"id": 1}'.encode("utf-16-le"), "x")
