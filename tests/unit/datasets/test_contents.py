"""Every reader knows what its images hold: exchanged bytes are other data, a moved folder is the same data."""

import os

import pytest

from sparc_bench.cards import discovery
from tests.unit.datasets.test_aro import root as aro_root  # noqa: F401
from tests.unit.datasets.test_cifar import binary_root, python_root  # noqa: F401
from tests.unit.datasets.test_coco_objects import objects_root  # noqa: F401
from tests.unit.datasets.test_image_folder import pets_root  # noqa: F401
from tests.unit.datasets.test_imagenet_corruptions import corrupted_root  # noqa: F401
from tests.unit.datasets.test_karpathy import karpathy_root  # noqa: F401
from tests.unit.datasets.test_lvis import root as lvis_root  # noqa: F401
from tests.unit.datasets.test_mask_folders import masks_home, masks_root  # noqa: F401
from tests.unit.datasets.test_pope import pope_root  # noqa: F401
from tests.unit.datasets.test_sugar_crepe_captions import root as sugar_root  # noqa: F401
from tests.unit.datasets.test_valse_foils import root as valse_root  # noqa: F401
from tests.unit.datasets.test_webdataset_folder import toys_root  # noqa: F401
from tests.unit.datasets.test_winoground_pairs import root as winoground_root  # noqa: F401

READERS = {
    "aro": ("aro_root", "vg_relation", {}),
    "coco_captions": ("coco_root", "val2017", {}),
    "coco_instances": ("coco_root", "val2017", {}),
    "coco_objects": ("objects_root", "val2017", {}),
    "coco_words": ("objects_root", "val", {}),
    "flickr8k": ("flickr8k_root", "train", {}),
    "image_folder": ("pets_root", "train", {"folder": "pets/{split}"}),
    "imagenet_corruptions": ("corrupted_root", "validation", {}),
    "karpathy": ("karpathy_root", "test", {}),
    "lvis": ("lvis_root", "val", {"photos": "coco"}),
    "mask_folders": ("masks_root", "val", {}),
    "pope": ("pope_root", "random", {}),
    "sugar_crepe_captions": ("sugar_root", "test", {}),
    "valse_foils": ("valse_root", "test", {}),
    "voc_segmentation": ("voc_root", "val", {}),
    "webdataset_folder": ("toys_root", "test", {"folder": "wds_toys"}),
    "winoground_pairs": ("winoground_root", "test", {}),
}


def reading(name, request):
    fixture, split, options = READERS[name]
    module = discovery.load("datasets", name)
    return request.getfixturevalue(fixture), lambda root: module.read(root, split, module.Options(**options))


def contents(data):
    return {view.id: view.item.content for view in data.views}


def exchange(item):
    """Change one byte of an image; neither name nor size nor time of change says so."""
    path, *place = item.opener.args
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[place[0].offset + place[0].size - 1 if place else -1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", READERS)
def test_exchanged_bytes_are_other_data(name, request):
    root, read = reading(name, request)
    before = read(root)
    exchange(before.views[0].item)
    after = read(root)
    assert after.fingerprint != before.fingerprint
    if name == "imagenet_corruptions":  # whose 3.75 million versions are not listed
        return
    changed = {key for key in contents(after) if contents(after)[key] != contents(before)[key]}
    of_its_file = {view.id for view in before.views if view.item.opener.args[0] == before.views[0].item.opener.args[0]}
    assert changed == of_its_file
    assert all(contents(after).values())


@pytest.mark.parametrize("name", READERS)
def test_a_moved_folder_is_the_same_data(name, request):
    root, read = reading(name, request)
    before = read(root)
    elsewhere = root.rename(root.parent / f"{root.name}_moved")
    after = read(elsewhere)
    assert after.fingerprint == before.fingerprint
    assert contents(after) == contents(before)


def test_both_versions_of_cifar_hold_the_same_pictures(binary_root, python_root):  # noqa: F811
    module = discovery.load("datasets", "cifar")
    binary, python = (module.read(root, "test", module.Options()) for root in (binary_root, python_root))
    assert contents(binary) == contents(python)
    assert all(contents(binary).values())


def test_every_reader_of_files_is_here():
    others = {"cifar", "scenes1", "sugar_crepe_pp_captions"}  # arrays; rendered; reads as sugar_crepe_captions does
    assert {*READERS, *others} == set(discovery.names("datasets"))
