"""The golden tests of Preprocess: pixels against a slow bilinear written out here, boxes there and back."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.runtime.preprocess import Preprocess

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


def slow_bilinear(image, width, height):
    """Half-pixel centres, edges repeated, no anti-aliasing: what "linear" means everywhere in EdgeKit."""
    h, w = image.shape[:2]
    x = np.clip((np.arange(width) + 0.5) * w / width - 0.5, 0, w - 1)
    y = np.clip((np.arange(height) + 0.5) * h / height - 0.5, 0, h - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0)[None, :, None], (y - y0)[:, None, None]
    pixels = image.astype(np.float64)
    top = pixels[y0][:, x0] * (1 - fx) + pixels[y0][:, x1] * fx
    bottom = pixels[y1][:, x0] * (1 - fx) + pixels[y1][:, x1] * fx
    return top * (1 - fy) + bottom * fy


def slow_canvas(image, p):
    """(canvas, left, top, width, height of the picture on it), by the definition."""
    width, height = p.size
    h, w = image.shape[:2]
    if p.mode == "letterbox":
        scale = min(width / w, height / h)
        width, height = int(w * scale + 0.5), int(h * scale + 0.5)
    left, top = (p.size[0] - width) // 2, (p.size[1] - height) // 2
    canvas = np.full((p.size[1], p.size[0], 3), float(p.pad_value))
    canvas[top : top + height, left : left + width] = slow_bilinear(image, width, height)
    return (canvas[:, :, ::-1] if p.colour == "rgb" else canvas), left, top, width, height


GOLDEN = {
    "stretch": Preprocess((96, 64), mean=MEAN, std=STD),
    "stretch-up": Preprocess((640, 608), colour="rgb", mean=MEAN, std=STD),
    "letterbox-wide": Preprocess((128, 128), mode="letterbox", pad_value=114),
    "letterbox-rgb": Preprocess((64, 160), mode="letterbox", pad_value=0, colour="rgb", mean=MEAN, std=STD),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_pixels_within_one_grey_level(case, images):
    p = GOLDEN[case]
    for image in images[:3]:
        expected, left, top, width, height = slow_canvas(image, p)
        canvas, where = p.canvas(image)
        assert canvas.shape == (p.size[1], p.size[0], 3)
        assert canvas.dtype == np.uint8
        assert np.abs(canvas - expected).max() <= 1
        assert (where.left, where.top) == (left, top)
        assert where.scale_x == pytest.approx(width / image.shape[1])
        assert where.scale_y == pytest.approx(height / image.shape[0])


@pytest.mark.parametrize("case", GOLDEN)
def test_both_layouts_are_the_same_picture(case, images):
    p = GOLDEN[case]
    raw, where = p(images[0], "nhwc_uint8")
    normalised, same = p(images[0], "nchw_float")
    assert raw.shape == (1, p.size[1], p.size[0], 3)
    assert normalised.shape == (1, 3, p.size[1], p.size[0])
    assert (raw.dtype, normalised.dtype) == (np.uint8, np.float32)
    assert raw.flags.c_contiguous
    assert normalised.flags.c_contiguous
    assert (where.left, where.top, where.scale_x) == (same.left, same.top, same.scale_x)
    for c in range(3):
        by_definition = (raw[0, :, :, c].astype(np.float64) - p.mean[c]) / p.std[c]
        np.testing.assert_allclose(normalised[0, c], by_definition, atol=1e-5)


def test_the_tensor_is_the_same_on_every_machine():
    """A hash: no resize takes part, whose last bit differs between OpenCV's versions, and all arithmetic is IEEE."""
    image = (np.arange(64 * 96 * 3, dtype=np.int64) * 7919 % 251).astype(np.uint8).reshape(64, 96, 3)
    p = Preprocess((96, 128), mode="letterbox", colour="rgb", mean=MEAN, std=STD)
    tensor, where = p(image)
    assert (where.left, where.top, where.scale_x) == (0, 32, 1)
    assert (
        hashlib.sha256(tensor.tobytes()).hexdigest()
        == "90340cec6b21acfe5a69b10817a9502077fefc5676ab60807dc6d79dad408583"
    )


def test_an_image_of_the_right_size_is_not_copied_and_a_view_is_made_contiguous(images):
    image = np.ascontiguousarray(images[0][:64, :96])
    p = Preprocess((96, 64))
    assert p.canvas(image)[0] is image
    view = images[0][:64, :96]
    assert not view.flags.c_contiguous
    canvas, _ = p.canvas(view)
    assert canvas.flags.c_contiguous
    np.testing.assert_array_equal(canvas, image)


@st.composite
def placed_boxes(draw):
    width, height = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    xs = draw(st.lists(st.floats(0, width, width=32), min_size=2, max_size=2).map(sorted))
    ys = draw(st.lists(st.floats(0, height, width=32), min_size=2, max_size=2).map(sorted))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    mode = draw(st.sampled_from(["stretch", "letterbox"]))
    return Preprocess((size[0] * 32, size[1] * 32), mode=mode).place(width, height), [xs[0], ys[0], xs[1], ys[1]], size


@given(placed_boxes())
@settings(max_examples=300, deadline=None)
def test_boxes_there_and_back(case):
    where, box, size = case
    on_canvas = where.to_canvas([box])
    back = where.to_original(on_canvas)
    # float32 keeps 24 bits; the way through the canvas costs a few of them, more where it is small
    tolerance = 1e-3 + 4 * np.finfo(np.float32).eps * max(size) * 32 / min(where.scale_x, where.scale_y)
    np.testing.assert_allclose(back, [box], atol=tolerance)
    assert on_canvas.min() >= -1e-3
    assert on_canvas[0, 2] <= size[0] * 32 + 1e-2
    assert on_canvas[0, 3] <= size[1] * 32 + 1e-2


def test_boxes_follow_the_pixels():
    """A white rectangle, placed: its box on the canvas covers its pixels there."""
    image = np.zeros((300, 500, 3), np.uint8)
    image[60:240, 100:400] = 255
    for mode in ("stretch", "letterbox"):
        canvas, where = Preprocess((320, 320), mode=mode, pad_value=0).canvas(image)
        ys, xs = np.nonzero(canvas[:, :, 0] > 127)
        box = where.to_canvas([[100, 60, 400, 240]])[0]
        np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], box, atol=1)


# -- the value --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", GOLDEN)
def test_round_trip(case):
    p = GOLDEN[case]
    again = Preprocess.from_dict(p.to_dict())
    assert again == p
    assert hash(again) == hash(p)
    assert again.digest() == p.digest()


def test_the_digest_sees_every_field():
    base = Preprocess((96, 64)).to_dict()
    changes = {
        "size": [64, 96],
        "mode": "letterbox",
        "pad_value": 0,
        "colour": "rgb",
        "mean": [1, 0, 0],
        "std": [1, 1, 1],
        "interpolation": "area",
    }
    assert set(changes) == set(Preprocess.FIELDS)
    digests = {Preprocess.from_dict(dict(base, **{k: v})).digest() for k, v in changes.items()}
    assert len(digests | {Preprocess.from_dict(base).digest()}) == len(changes) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 64)}, "size: expected"),
        ({"size": (64,)}, "size: expected"),
        ({"mode": "crop"}, "mode: expected one of stretch, letterbox, got 'crop'"),
        ({"pad_value": 256}, "pad_value: expected 0..255"),
        ({"colour": "grey"}, "colour: expected"),
        ({"std": (1, 0, 1)}, "std positive"),
        ({"mean": (1, 2)}, "mean, std"),
        ({"interpolation": "lanczos"}, "interpolation: expected one of area, cubic, linear, nearest"),
    ],
)
def test_wrong_fields(change, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**dict({"size": (96, 64)}, **change))


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="unknown preprocess fields: pad"):
        Preprocess.from_dict({"size": [96, 64], "pad": 3})


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (None, "nothing"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
    ],
)
def test_what_is_no_image_is_refused(image, found):
    with pytest.raises(ValueError, match=found):
        Preprocess((96, 64)).canvas(image)


def test_unknown_layout_is_refused(images):
    with pytest.raises(ValueError, match="layout: expected"):
        Preprocess((96, 64))(images[0], "nhwc_float")
