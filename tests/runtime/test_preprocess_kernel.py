"""The CUDA kernel's own source, compiled for the CPU, against ``Preprocess``: a GPU's work without a GPU."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekit.runtime.images import read_image
from edgekit.runtime.preprocess import Preprocess
from edgekit.runtime.sessions import preprocess_kernel as kernel

IMAGES = sorted((Path(__file__).parents[2] / "calibration" / "dhaka-eval").rglob("*.jpg"))

# every CUDA qualifier and built-in variable that the source uses; run() plays the grid, one thread after the other
SHIM = """
#include <math.h>
#include <stddef.h>
#define __device__
#define __global__
struct triple { unsigned int x, y, z; };
static struct triple blockIdx, blockDim, threadIdx;
%s
extern "C" void run(const level_t* src, void* dst, const int* whole, const float* real, int grid_x, int grid_y,
                    int block_x, int block_y)
{
    blockDim.x = block_x; blockDim.y = block_y;
    for (blockIdx.y = 0; blockIdx.y < (unsigned)grid_y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < (unsigned)grid_x; ++blockIdx.x)
    for (threadIdx.y = 0; threadIdx.y < (unsigned)block_y; ++threadIdx.y)
    for (threadIdx.x = 0; threadIdx.x < (unsigned)block_x; ++threadIdx.x)
        edgekit_preprocess(src, dst, whole[0], whole[1], whole[2], whole[3], whole[4], whole[5], whole[6], whole[7],
            whole[8], whole[9], whole[10], whole[11], real[0], real[1], real[2], real[3], real[4], real[5]);
}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(preprocess, image, output) -> what the kernel writes, with the batch axis."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernel's source for the CPU")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.cpp").write_text(SHIM % kernel.SOURCE)
    # no contraction into fused multiply-adds, so that the CPU rounds as the source says
    flags = ["-O2", "-std=c++11", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Werror"]
    subprocess.run(["g++", *flags, "-o", folder / "kernel.so", folder / "kernel.cpp"], check=True)
    library = ctypes.CDLL(str(folder / "kernel.so"))

    def call(preprocess, image, output="float32"):
        values, _ = kernel.arguments(preprocess, image.shape[1], image.shape[0], output)
        width, height = preprocess.size
        shape = (1, height, width, 3) if output == "uint8" else (1, 3, height, width)
        target = np.full(shape, 77, output)
        whole = np.array([v for v in values if isinstance(v, np.int32)], np.int32)
        real = np.array([v for v in values if isinstance(v, np.float32)], np.float32)
        pointers = [
            array.ctypes.data_as(ctypes.c_void_p) for array in (np.ascontiguousarray(image), target, whole, real)
        ]
        library.run(*pointers, *kernel.grid(preprocess), *kernel.BLOCK[:2])
        return target

    return call


def levels(tensor, preprocess):
    """A normalised input back in levels 0..255."""
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return tensor.astype(np.float32) * std + mean


IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375), "colour": "rgb"}
SIZES = [(96, 64), (321, 187), (64, 96), (700, 500)]


@pytest.mark.parametrize("interpolation", kernel.INTERPOLATIONS)
@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_matches_preprocess_on_real_images_to_one_level(run, interpolation, mode, size):
    preprocess = Preprocess(size, mode=mode, interpolation=interpolation)
    for path in IMAGES[:2]:
        image = read_image(path)
        expected, _ = preprocess(image)
        difference = np.abs(run(preprocess, image) - expected)
        # one level, and a little for float32's rounding of it
        assert difference.max() <= 1 / 255 + 1e-6
        assert difference.mean() < 0.25 / 255


@pytest.mark.parametrize("interpolation", kernel.INTERPOLATIONS)
@pytest.mark.parametrize(("source", "size"), [((1280, 720), (416, 416)), ((100, 60), (416, 416))], ids=str)
def test_it_matches_where_positions_fall_on_the_edges_of_pixels(run, interpolation, source, size):
    image = np.random.default_rng(7).integers(0, 256, (source[1], source[0], 3), dtype=np.uint8)
    preprocess = Preprocess(size, interpolation=interpolation)
    assert np.abs(run(preprocess, image) - preprocess(image)[0]).max() <= 1.001 / 255


@pytest.mark.parametrize("size", [(97, 61), (192, 128), (64, 64)], ids=str)
@pytest.mark.parametrize("source", [(61, 97), (7, 5), (193, 131), (384, 256), (192, 128), (1, 1)], ids=str)
@pytest.mark.parametrize("interpolation", kernel.INTERPOLATIONS)
def test_it_matches_on_noise_at_odd_sizes(run, interpolation, size, source):
    image = np.random.default_rng(7).integers(0, 256, (source[1], source[0], 3), dtype=np.uint8)
    for mode in ("stretch", "letterbox"):
        preprocess = Preprocess(size, mode=mode, pad_value=7, interpolation=interpolation, **IMAGENET)
        expected, _ = preprocess(image)
        found = levels(run(preprocess, image), preprocess) - levels(expected, preprocess)
        assert np.abs(found).max() <= 1.001, f"{mode}: {np.abs(found).max()} levels"


def test_without_resizing_it_is_exact(run):
    image = read_image(IMAGES[0])
    preprocess = Preprocess((image.shape[1], image.shape[0]), **IMAGENET)
    np.testing.assert_array_equal(run(preprocess, image), preprocess(image)[0])


def test_the_border_and_the_place_of_a_letterbox(run):
    image = np.full((50, 100, 3), 200, np.uint8)
    preprocess = Preprocess((64, 64), mode="letterbox", pad_value=3, mean=(0, 0, 0), std=(1, 1, 1))
    found = run(preprocess, image)[0, 0]
    np.testing.assert_array_equal(found, preprocess(image)[0][0, 0])
    assert set(np.unique(found)) == {3, 200}


def test_half_and_raw_levels(run):
    image = read_image(IMAGES[0])
    preprocess = Preprocess((160, 96), **IMAGENET)
    single = run(preprocess, image)
    np.testing.assert_array_equal(run(preprocess, image, "float16"), single.astype(np.float16))
    canvas, _ = preprocess(image, "nhwc_uint8")
    raw = run(preprocess, image, "uint8")
    assert np.abs(raw.astype(int) - canvas).max() <= 1


@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 1.0, -2.5, 65504.0, 65519.9, 65520.0, 1e9, 6.1e-5, 6.0e-8, 2.9e-8, 3.0e-8, 1e-30, 2049.0, 2051.0],
)
def test_half_rounds_as_numpy_does(run, value):
    """A black pixel with mean 255 * k and deviation 255 gives any value one likes."""
    preprocess = Preprocess((1, 1), mean=(-value, -value, -value), std=(1, 1, 1))
    found = run(preprocess, np.zeros((1, 1, 3), np.uint8), "float16")
    with np.errstate(over="ignore"):
        expected = np.full((1, 3, 1, 1), np.float32(value)).astype(np.float16)
    np.testing.assert_array_equal(found, expected)


def test_nvcc_accepts_the_source(tmp_path):
    nvcc = kernel.find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc here")
    (tmp_path / "kernel.cu").write_text(kernel.SOURCE)
    command = [nvcc, "-ptx", "-Werror", "all-warnings", "-o", tmp_path / "kernel.ptx", tmp_path / "kernel.cu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ".entry edgekit_preprocess" in (tmp_path / "kernel.ptx").read_text()


def test_the_thread_count_covers_the_canvas():
    assert kernel.grid(Preprocess((33, 9))) == (2, 2)
    assert kernel.grid(Preprocess((32, 8))) == (1, 1)
