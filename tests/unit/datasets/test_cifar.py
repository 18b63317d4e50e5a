import pickle
import struct

import numpy as np
import pytest

from sparc_bench.datasets.cifar import Options, read
from sparc_bench.errors import UserError

NAMES = [*("airplane", "automobile", "bird", "cat", "deer"), *("dog", "frog", "horse", "ship", "truck")]
CIFAR100 = Options(name="cifar100", folder="cifar-100-binary")


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 wrote its strings, which is what the published files hold."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, content):
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch[bytes] = save_bytes


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(count, 3072), dtype=np.uint8)


def dump(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(table)


@pytest.fixture
def binary_root(tmp_path):
    home = tmp_path / "cifar-10-batches-bin"
    home.mkdir()
    (home / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        records = [bytes([(number + row) % 10]) + pixels.tobytes() for row, pixels in enumerate(pictures(3, number))]
        (home / f"{name}.bin").write_bytes(b"".join(records))
    return tmp_path


@pytest.fixture
def python_root(tmp_path):
    home = tmp_path / "py/cifar-10-batches-py"
    dump(home / "batches.meta", {b"label_names": [name.encode() for name in NAMES]})
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        labels = [(number + row) % 10 for row in range(3)]
        files = [f"thing_s_{number}{row}.png".encode() for row in range(3)]
        dump(home / name, {b"data": pictures(3, number), b"labels": labels, b"filenames": files})
    return tmp_path / "py"


def test_the_binary_version(binary_root):
    data = read(binary_root, "test", Options())
    assert data.classes == tuple(NAMES)
    assert [(example.id, example.label) for example in data] == [
        ("test/00000", 5),
        ("test/00001", 6),
        ("test/00002", 7),
    ]
    image = pickle.loads(pickle.dumps(data[1].image)).open()
    assert (image.mode, image.size) == ("RGB", (32, 32))
    # 1,024 red values row by row, then green, then blue
    assert np.array_equal(np.asarray(image), pictures(3, 5)[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert data[1].photo == ""


def test_the_python_version_is_the_same_with_names(binary_root, python_root):
    binary, python = (read(root, "train+test", Options()) for root in (binary_root, python_root))
    assert python.fingerprint == binary.fingerprint
    for one, other in zip(binary, python, strict=True):
        assert (one.id, one.label, one.tags) == (other.id, other.label, other.tags)
        assert np.array_equal(np.asarray(one.image.open()), np.asarray(other.image.open()))
    assert python[-1].photo == "cifar10:thing_s_52"
    assert (python[-1].id, python[-1].tags) == ("test/00002", {"split": "test"})
    assert python.sizes == {"train": 15, "test": 3}


def test_another_pixel_or_label_is_another_fingerprint(binary_root):
    before = read(binary_root, "test", Options()).fingerprint
    path = binary_root / "cifar-10-batches-bin/test_batch.bin"
    content = bytearray(path.read_bytes())
    for place in (0, 1):
        content[place] = (content[place] + 1) % 10
        path.write_bytes(content)
        assert read(binary_root, "test", Options()).fingerprint != before
        content[place] = (content[place] - 1) % 256


def test_cifar100_has_its_fine_classes(tmp_path):
    home = tmp_path / "cifar-100-binary"
    home.mkdir()
    (home / "fine_label_names.txt").write_text("".join(f"class{number}\n" for number in range(100)))
    records = [bytes([3, 90 + row]) + pixels.tobytes() for row, pixels in enumerate(pictures(2))]
    (home / "test.bin").write_bytes(b"".join(records))
    binary = read(tmp_path, "test", CIFAR100)
    assert [example.label for example in binary] == [90, 91]
    other = tmp_path / "py/cifar-100-python"
    dump(other / "meta", {b"fine_label_names": [f"class{number}".encode() for number in range(100)]})
    table = {
        b"data": pictures(2),
        b"fine_labels": [90, 91],
        b"coarse_labels": [3, 3],
        b"filenames": [b"a.png", b"b.png"],
    }
    dump(other / "test", table)
    python = read(tmp_path / "py", "test", CIFAR100)
    assert python.fingerprint == binary.fingerprint
    assert python[0].photo == "cifar100:a"


class Evil:
    def __reduce__(self):
        return (print, ("run by a file",))


def test_a_pickle_that_asks_for_more_is_refused(python_root, capsys):
    path = python_root / "cifar-10-batches-py/test_batch"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"test_batch is no batch of CIFAR.*builtins\.print.*copy it again\.$"):
        read(python_root, "test", Options())
    assert capsys.readouterr().out == ""
    path.write_bytes(b"\x80\x02}q")
    with pytest.raises(UserError, match="is no batch of CIFAR's Python version"):
        read(python_root, "test", Options())
    dump(path, {b"data": pictures(2), b"labels": [1], b"filenames": [b"a", b"b"]})
    with pytest.raises(UserError, match="lacks data, labels or filenames of equal length"):
        read(python_root, "test", Options())


def test_mistakes_on_disk_are_one_sentence(binary_root):
    home = binary_root / "cifar-10-batches-bin"
    (home / "test_batch.bin").write_bytes(b"\x00" * 3000)
    with pytest.raises(UserError, match="has 3000 bytes, not a multiple of 3073: copy it again"):
        read(binary_root, "test", Options())
    (home / "test_batch.bin").write_bytes(bytes([10]) + b"\x00" * 3072)
    with pytest.raises(UserError, match="has the class 10 and names 10 classes: copy it again"):
        read(binary_root, "test", Options())
    with pytest.raises(UserError, match=r"holds no folder 'cifar-100-binary'.*cifar-100-python/"):
        read(binary_root, "test", CIFAR100)
