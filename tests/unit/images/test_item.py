import pickle

import numpy as np
import pytest
from PIL import Image

from sparc_bench.errors import UnreadableImageError
from sparc_bench.images.item import ImageItem


def opened(path):
    return pickle.loads(pickle.dumps(ImageItem.file("x", path))).open()


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_image(tmp_path, noise, suffix):
    path = tmp_path / f"x.{suffix}"
    noise.save(path)
    assert opened(path).size == (50, 40)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableImageError, match=rf"x\.{suffix} cannot be decoded \(.*\): copy the file"):
            opened(path)


@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>"])
def test_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        opened(path)


def test_missing_file(tmp_path):
    with pytest.raises(UnreadableImageError, match="does not exist: check --data-root"):
        opened(tmp_path / "x.jpg")


def test_every_mode_becomes_rgb(tmp_path):
    red = Image.new("RGB", (4, 3), (255, 0, 0))
    for mode, name in [("P", "palette.png"), ("RGBA", "alpha.png"), ("1", "bits.png")]:
        red.convert(mode).save(tmp_path / name)
    Image.new("L", (4, 3), 77).save(tmp_path / "grey.jpg")
    red.convert("CMYK").save(tmp_path / "cmyk.tif")
    red.convert("P").save(tmp_path / "clear.png", transparency=bytes([0, 128]))
    for name in ("palette.png", "alpha.png", "cmyk.tif", "clear.png"):
        image = opened(tmp_path / name)
        assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 0, 0)), name
    assert opened(tmp_path / "bits.png").mode == "RGB"
    assert opened(tmp_path / "grey.jpg").getpixel((1, 1)) == (77, 77, 77)


def test_16_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    image = opened(tmp_path / "deep.png")
    assert image.mode == "RGB"
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert opened(tmp_path / "turned.jpg").size == (10, 4)


def test_an_image_of_too_many_pixels(tmp_path):
    Image.new("1", (14_000, 14_000)).save(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="more than the 179 megapixels that are decoded: save it"):
        opened(tmp_path / "x.png")
