"""A grey ramp from black to white, stored with more than 8 bits, is seen from black to white, or refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sparc_bench.errors import UserError
from sparc_bench.images.item import decoded_image

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (4, 1))


def seen(content):
    return np.asarray(decoded_image(io.BytesIO(content), "x"))


def tiff(values, **tags):
    file, listed = io.BytesIO(), ImageFileDirectory_v2()
    for name, value in tags.items():
        number = {"photometric": 262, "lowest": 340, "highest": 341}[name]
        listed[number] = value
        if number > 262:
            listed.tagtype[number] = 12
    Image.fromarray(values).save(file, "TIFF", tiffinfo=listed)
    return file.getvalue()


def png(values, significant=None):
    """A PNG of 16 bits: grey (rows, columns), or colours (rows, columns, 3)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = (*values.shape, 1)[:3]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    about = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    marks = chunk(b"sBIT", bytes([significant] * channels)) if significant else b""
    body = chunk(b"IHDR", about) + marks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


WIDE = RAMP.astype(np.uint16)


@pytest.mark.parametrize(
    "content",
    [
        png(WIDE * 257),
        png(WIDE, significant=8),
        png(WIDE * 257, significant=8),
        png(np.repeat(WIDE[..., None] * 257, 3, axis=2)),
        tiff(WIDE * 257),
        tiff(WIDE, highest=255.0),
        tiff(RAMP.astype(np.int32), highest=255.0),
        tiff(RAMP.astype(np.int32) - 100, lowest=-100.0, highest=155.0),
        tiff(RAMP.astype(np.float32) / 255, lowest=0.0, highest=1.0),
        b"P5\n64 4\n255\n" + RAMP.tobytes(),
        b"P5\n64 4\n65535\n" + (WIDE * 257).astype(">u2").tobytes(),
        b"P5\n64 4\n256\n" + WIDE.astype(">u2").tobytes(),
    ],
    ids=lambda content: content[:4].hex(),
)
def test_a_stated_range_is_scaled(content):
    picture = seen(content)
    assert picture.shape == (4, 64, 3)
    assert np.abs(picture.astype(int) - RAMP[..., None]).max() <= 1


@pytest.mark.parametrize("bits", [10, 12])
def test_significant_bits_of_a_png(bits):
    ramp_HW = np.tile(np.linspace(0, 2**bits - 1, 64), (4, 1)).round().astype(np.uint16)
    assert np.abs(seen(png(ramp_HW, significant=bits))[..., 0].astype(int) - RAMP).max() <= 1


def test_bits_of_a_tiff():
    """A TIFF of 12 bits a sample, packed as the format has it."""
    ramp_HW = np.tile(np.linspace(0, 4095, 64), (4, 1)).round().astype(np.uint16)
    pairs = ramp_HW.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    tags = [(256, 64), (257, 4), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4), (279, packed.size)]
    data = packed.astype(np.uint8).tobytes()
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + table + b"\0" * 4
    assert np.abs(seen(content)[..., 0].astype(int) - RAMP).max() <= 1


def test_white_can_be_zero():
    assert np.abs(seen(tiff(WIDE * 257, photometric=0))[..., 0].astype(int) - (255 - RAMP)).max() <= 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (png(WIDE), "x holds values of 0 to 255 in 16 bits, without stating which value is white: save it with 8 bits"),
        (png(WIDE * 16), "x holds values of 0 to 4080 in 16 bits"),
        (png(np.repeat(WIDE[..., None] * 16, 3, axis=2)), "x has colours of 16 bits, of which it uses the lower ones"),
        (tiff(WIDE * 16), "x holds values of 0 to 4080 in 16 bits"),
        (tiff(RAMP.astype(np.int32)), "x holds values of 0 to 255 in whole numbers of more than 16 bits"),
        (tiff(RAMP.astype(np.float32) / 255), "x holds values of 0 to 1 in floating point"),
        (tiff(RAMP.astype(np.float32), highest=1.0), "0 to 255 in floating point, beyond the 1 that it states"),
        (tiff(np.full((4, 4), np.nan, dtype=np.float32), highest=1.0), "values of nan to nan in floating point"),
    ],
)
def test_an_unknown_range_is_refused_by_name(content, sentence):
    with pytest.raises(UserError, match=sentence):
        seen(content)


def test_black_is_black():
    assert not seen(png(np.zeros((4, 4), dtype=np.uint16))).any()


def test_sixteen_bits_of_a_whole_pixel_are_not_deep():
    """A BMP of 5, 6 and 5 bits."""
    rows = np.full((2, 2), 0b00001_000001_00001, dtype="<u2").tobytes()
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, len(rows), 0, 0, 0, 0)
    content = b"BM" + struct.pack("<IHHI", 66 + len(rows), 0, 0, 66) + header + masks + rows
    assert seen(content).max() < 16


def test_a_dark_picture_of_high_bits_stays_dark():
    """sBIT of a PNG counts high bits: 12 of 16 leave multiples of 16, however dark the picture is."""
    dark = (RAMP.astype(np.uint16) % 16) * 256
    assert seen(png(dark & 0xFFF0, significant=12)).max() == 15
