"""A data set on disk is checked as a person would: every fault is found, named, and counted as wrong."""

import pytest

from sparc_bench.catalogue.data_card import load
from sparc_bench.catalogue.data_check import check_data
from sparc_bench.catalogue.data_report import verdict
from sparc_bench.errors import UserError
from tests.unit.catalogue.conftest import write_captions


@pytest.fixture
def check(checkout, root):
    """Check the data set as it lies on disk now; returns the report, its findings by name, and the verdict."""

    def go():
        report = check_data(load("toy"), root)
        return report, dict(report.findings), verdict(report)

    return go


def test_what_is_whole_is_in_order(check):
    report, findings, sentence = check()
    assert report.failed == []
    assert sentence == "toy is in order."
    assert findings["layout"].measured == "5 of 5 parts"
    assert findings["captions.txt"].status == "ok"
    assert (findings["toy_test"].status, findings["toy_test"].measured) == ("ok", "12 images, 60 captions")
    assert findings["toy_test"].expected == "as published (test)"
    assert findings["toy_val"].expected == "as published (val)"
    # ten of the 26 photos of test and val, test0.jpg (grey) among them
    assert findings["images"].measured == "10 of 26 decoded: 24 x 20, L, RGB"


def test_a_file_without_known_checksum_is_printed_whole(check):
    finding = check()[1]["Flickr_8k.testImages.txt"]
    assert finding.status == "note"
    assert len(finding.advice.removeprefix("sha256 ").rstrip(".")) == 64


def test_an_edited_captions_file_is_told_by_its_checksum(check, root):
    captions = root / "toy/captions.txt"
    captions.write_text(captions.read_text().replace("Caption 1 of 0", "Caption one of 0"))
    report, findings, sentence = check()
    assert report.failed == ["captions.txt"]
    assert "copy it again from https://example.org/toy" in findings["captions.txt"].advice
    assert sentence.startswith("toy: 1 wrong (captions.txt)")


def test_one_caption_for_five(check, root):
    write_captions(root / "toy", each=1)
    report, findings, _ = check()
    assert report.failed == ["captions.txt", "toy_test", "toy_val"]
    assert findings["toy_test"].measured == "12 images, 12 captions"
    assert findings["toy_test"].expected == "12 images, 60 captions"
    assert "expects 60 captions, but flickr8k:test has 12, one caption for each image" in findings["toy_test"].advice


def test_the_list_of_val_in_the_place_of_tests(check, root):
    home = root / "toy"
    (home / "Flickr_8k.testImages.txt").write_text((home / "Flickr_8k.devImages.txt").read_text())
    report, findings, _ = check()
    assert report.failed == ["toy_test"]
    assert "has 14, which is val (14 images, 70 captions): put test in its place" in findings["toy_test"].advice


def test_a_missing_photo_is_named(check, root):
    (root / "toy/images/test3.jpg").unlink()
    report, findings, _ = check()
    assert report.failed == ["toy_test"]
    assert "1 of 12 files (5 annotations) are not in" in findings["toy_test"].advice
    assert "test3.jpg" in findings["toy_test"].advice
    assert findings["toy_val"].status == "ok"


@pytest.mark.parametrize("content", ["half", "text"])
def test_a_damaged_photo_is_named(check, root, content):
    photo = root / "toy/images/dev13.jpg"  # the last one read, which is always among the ten
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2] if content == "half" else b"<html>not found</html>")
    report, findings, _ = check()
    assert report.failed == ["image dev13.jpg"]
    assert "dev13.jpg cannot be decoded" in findings["image dev13.jpg"].advice
    assert findings["images"].measured.startswith("9 of 26 decoded")


def test_a_part_that_is_absent_is_no_fault_where_other_tasks_can_run(check, root):
    (root / "toy/Flickr_8k.testImages.txt").unlink()
    report, findings, sentence = check()
    assert report.failed == []
    assert findings["layout"].measured == "4 of 5 parts"
    assert findings["toy_test"].measured == "Flickr_8k.testImages.txt: absent"
    assert findings["toy_val"].status == "ok"
    assert sentence == "toy is in order as far as it is there (absent: Flickr_8k.testImages.txt)."


def test_nothing_can_be_read_without_what_all_tasks_need(check, root):
    (root / "toy/captions.txt").unlink()
    report, _, sentence = check()
    assert report.failed == ["tasks"]
    assert "1 wrong" in sentence


def test_nothing_there_or_no_root_is_a_mistake_of_the_user(checkout, root, tmp_path):
    with pytest.raises(UserError, match=r"no data root was given: pass --data-root"):
        check_data(load("toy"), None)
    with pytest.raises(UserError, match=r"toy is not there.*get it from https://example\.org/toy"):
        check_data(load("toy"), tmp_path)


@pytest.mark.slow
def test_real_flickr8k_is_in_order(test_data):
    report = check_data(load("flickr8k"), test_data)
    findings = dict(report.findings)
    assert report.failed == []
    assert findings["captions.txt"].status == "ok"
    assert findings["images"].measured.startswith("10 of ")
