import os
import struct

import cv2
import numpy as np
import pytest

from edgekit.runtime.errors import BadInput
from edgekit.runtime.images import read_image

FORMATS = {"jpg": [], "progressive.jpg": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], "png": [], "bmp": [], "webp": []}
LOSSLESS = ("png", "bmp")


@pytest.fixture(scope="module")
def picture(images):
    return np.ascontiguousarray(images[0][:120, :150])


def encode(picture, name):
    ok, data = cv2.imencode("." + name.split(".")[-1], picture, FORMATS[name])
    assert ok
    return data.tobytes()


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_reads_whole_files(name, picture, tmp_path, capfd):
    image = read_image(write(tmp_path, name, encode(picture, name)))
    assert image.shape == picture.shape
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture).mean() < (1e-9 if name in LOSSLESS else 8)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kept", [0.999, 0.6, 0.1])
@pytest.mark.parametrize("name", FORMATS)
def test_refuses_what_is_cut_short(name, kept, picture, tmp_path):
    data = encode(picture, name)
    path = write(tmp_path, name, data[: int(len(data) * kept)])
    with pytest.raises(BadInput, match="truncated") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_refuses_a_damaged_jpeg_scan(picture, tmp_path, capfd):
    data = bytearray(encode(picture, "jpg"))
    middle = len(data) * 2 // 3
    data[middle : middle + 60] = bytes(range(1, 61))
    path = write(tmp_path, "a.jpg", bytes(data))
    assert cv2.imread(str(path)) is not None  # this is why it must be told
    capfd.readouterr()
    with pytest.raises(BadInput, match="corrupt"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_a_process_that_starts_meanwhile_does_not_disturb(picture, tmp_path, monkeypatch):
    """Between fork and exec it holds every descriptor of ours, so the decoder's pipe has no end of file."""
    pipe, held = os.pipe, []

    def forked():
        reader, writer = pipe()
        held.append(os.dup(writer))
        return reader, writer

    monkeypatch.setattr(os, "pipe", forked)
    path = write(tmp_path, "a.jpg", encode(picture, "jpg"))
    try:
        assert read_image(path).shape == picture.shape
    finally:
        for writer in held:
            os.close(writer)
    assert len(held) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"this is text, not a picture, whatever its name says", "not a readable image"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"BM", "truncated"),
    ],
)
def test_refuses_what_is_no_image(content, message, tmp_path):
    path = write(tmp_path, "a.jpg", content)
    with pytest.raises(BadInput, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_missing_file_folder_and_a_name_that_cannot_be(tmp_path):
    missing = (tmp_path / "none.jpg", "no such image file"), (tmp_path, "directory"), ("a\0b.jpg", "NUL|null")
    for path, message in missing:
        with pytest.raises(BadInput, match=message):
            read_image(path)


def with_orientation(jpeg, value, thumbnail=b""):
    """Put an EXIF block with the orientation tag, and a thumbnail's bytes, behind the start marker."""
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHH", 0x0112, 3, 1, value, 0) + b"\0" * 4 + thumbnail
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def test_the_exif_rotation_is_not_applied(picture, tmp_path):
    """COCO boxes count stored pixels. cv2 alone would turn this one on its side."""
    path = write(tmp_path, "a.jpg", with_orientation(encode(picture, "jpg"), 6))
    assert cv2.imread(str(path)).shape == (150, 120, 3)
    assert read_image(path).shape == (120, 150, 3)


def test_a_thumbnails_end_is_not_the_images_end(picture, tmp_path):
    data = with_orientation(encode(picture, "jpg"), 1, thumbnail=encode(cv2.resize(picture, (16, 16)), "jpg"))
    assert read_image(write(tmp_path, "a.jpg", data)).shape == (120, 150, 3)
    with pytest.raises(BadInput, match="truncated"):
        read_image(write(tmp_path, "b.jpg", data[:-2000]))


def test_bytes_behind_the_end_are_nobodys_business(picture, tmp_path):
    assert read_image(write(tmp_path, "a.jpg", encode(picture, "jpg") + b"\0" * 100)).shape == (120, 150, 3)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_alpha_become_bgr(channels, picture, tmp_path):
    source = cv2.cvtColor(picture, {1: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGR2BGRA}[channels])
    cv2.imwrite(str(tmp_path / "a.png"), source)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (120, 150, 3)
    if channels == 4:
        np.testing.assert_array_equal(image, picture)


def test_sixteen_bits_become_eight(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 5, 3), 0x8000, np.uint16))
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert 127 <= image.min() <= image.max() <= 128
