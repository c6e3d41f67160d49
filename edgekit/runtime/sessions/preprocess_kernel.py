"""``Preprocess`` as one CUDA kernel: resize or letterbox, colour order, normalisation, layout and type in one pass.

The source is plain C but for three qualifiers, so a test compiles the same text for the CPU and compares it with
``Preprocess`` on real images. The arithmetic of each interpolation is that of OpenCV's resize in real numbers; OpenCV
computes linear and cubic in fixed point, so a pixel may differ by one level of 255, never more.
"""

import os
import shutil

import numpy as np

from ..cuda import load_pycuda
from ..errors import MissingDependency

INTERPOLATIONS = ("nearest", "linear", "cubic", "area")
# what the kernel writes; NCHW is normalised, NHWC keeps the raw levels
OUTPUTS = {"float32": 0, "float16": 1, "uint8": 2}
BLOCK = (32, 8, 1)
_NVCC = "/usr/local/cuda/bin/nvcc"

SOURCE = r"""
/* One thread makes one pixel of the network's input. src: BGR levels [src_h, src_w, 3]. The image covers the rectangle
   new_w x new_h at (left, top) of the canvas dst_w x dst_h; the rest is pad. */

typedef unsigned char level_t;

struct geometry_t {
    int src_w, src_h, dst_w, dst_h, left, top, new_w, new_h;
};

static __device__ int clamp_to(int value, int low, int high)
{
    return value < low ? low : (value > high ? high : value);
}

static __device__ float level_at(const level_t* src, const geometry_t& g, int x, int y, int c)
{
    return (float)src[((size_t)clamp_to(y, 0, g.src_h - 1) * g.src_w + clamp_to(x, 0, g.src_w - 1)) * 3 + c];
}

static __device__ int floor_of(double value)
{
    return (int)floor(value);
}

/* Where destination position d lies between two source positions: index of the first, weight of the second. */
static __device__ int linear_place(int d, double scale, int size, float* weight)
{
    double position = (d + 0.5) * scale - 0.5;
    int first = floor_of(position);
    *weight = (float)(position - first);
    if (first < 0) { first = 0; *weight = 0.0f; }
    if (first >= size - 1) { first = size - 1; *weight = 0.0f; }
    return first;
}

/* The same for an area resize that enlarges; inverse: destination pixels for one source pixel. */
static __device__ int area_up_place(int d, double scale, double inverse, int size, float* weight)
{
    int first = floor_of(d * scale);
    float rest = (float)((d + 1) - (first + 1) * inverse);
    *weight = rest <= 0.0f ? 0.0f : rest - floorf(rest);
    if (first >= size - 1) { first = size - 1; *weight = 0.0f; }
    return first;
}

static __device__ float between(const level_t* src, const geometry_t& g, int x, float wx, int y, float wy, int c)
{
    float upper = level_at(src, g, x, y, c) * (1.0f - wx) + level_at(src, g, x + 1, y, c) * wx;
    float lower = level_at(src, g, x, y + 1, c) * (1.0f - wx) + level_at(src, g, x + 1, y + 1, c) * wx;
    return upper * (1.0f - wy) + lower * wy;
}

/* Keys' cubic convolution with a = -0.75, as OpenCV has it. */
static __device__ void cubic_weights(float x, float* w)
{
    const float a = -0.75f;
    w[0] = ((a * (x + 1.0f) - 5.0f * a) * (x + 1.0f) + 8.0f * a) * (x + 1.0f) - 4.0f * a;
    w[1] = ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
    w[2] = ((a + 2.0f) * (1.0f - x) - (a + 3.0f)) * (1.0f - x) * (1.0f - x) + 1.0f;
    w[3] = 1.0f - w[0] - w[1] - w[2];
}

static __device__ float cubic(const level_t* src, const geometry_t& g, int x, int y, int c)
{
    double px = (x + 0.5) * ((double)g.src_w / g.new_w) - 0.5, py = (y + 0.5) * ((double)g.src_h / g.new_h) - 0.5;
    int sx = floor_of(px), sy = floor_of(py);
    float wx[4], wy[4], sum = 0.0f;
    cubic_weights((float)(px - sx), wx);
    cubic_weights((float)(py - sy), wy);
    for (int j = 0; j < 4; ++j) {
        float row = 0.0f;
        for (int i = 0; i < 4; ++i) row += wx[i] * level_at(src, g, sx - 1 + i, sy - 1 + j, c);
        sum += wy[j] * row;
    }
    return sum;
}

/* How much of source cell s the span [first, last) covers. */
static __device__ float covered(int s, double first, double last)
{
    double from = s > first ? s : first, to = s + 1 < last ? s + 1 : last;
    return to - from > 1e-3 ? (float)(to - from) : 0.0f;
}

static __device__ float area(const level_t* src, const geometry_t& g, int x, int y, int c)
{
    double sx = (double)g.src_w / g.new_w, sy = (double)g.src_h / g.new_h;
    double x0 = x * sx, x1 = x0 + sx, y0 = y * sy, y1 = y0 + sy;
    if (x1 > g.src_w) x1 = g.src_w;
    if (y1 > g.src_h) y1 = g.src_h;
    float sum = 0.0f, weight = 0.0f;
    for (int j = floor_of(y0); j < y1; ++j) {
        float wy = covered(j, y0, y1), row = 0.0f, across = 0.0f;
        for (int i = floor_of(x0); i < x1; ++i) {
            float wx = covered(i, x0, x1);
            row += wx * level_at(src, g, i, j, c);
            across += wx;
        }
        sum += wy * row;
        weight += wy * across;
    }
    return sum / weight;
}

static __device__ float resized(const level_t* src, const geometry_t& g, int method, int x, int y, int c)
{
    /* OpenCV's own two divisions: where a position falls on a pixel's edge, one alone finds the pixel beside it */
    double across = (double)g.new_w / g.src_w, down = (double)g.new_h / g.src_h, sx = 1.0 / across, sy = 1.0 / down;
    float wx, wy;
    if (method == 0) {
        int nx = floor_of(x * sx), ny = floor_of(y * sy);
        return level_at(src, g, nx, ny, c);
    }
    if (method == 2) return cubic(src, g, x, y, c);
    if (method == 3 && sx >= 1.0 && sy >= 1.0) return area(src, g, x, y, c);
    if (method == 3) {
        int ax = area_up_place(x, sx, across, g.src_w, &wx), ay = area_up_place(y, sy, down, g.src_h, &wy);
        return between(src, g, ax, wx, ay, wy, c);
    }
    int lx = linear_place(x, sx, g.src_w, &wx), ly = linear_place(y, sy, g.src_h, &wy);
    return between(src, g, lx, wx, ly, wy, c);
}

/* IEEE half of a float, to nearest, ties to even; what is too large becomes infinity. */
static __device__ unsigned short half_of(float value)
{
    union { float f; unsigned int u; } bits;
    bits.f = value;
    unsigned int sign = (bits.u >> 16) & 0x8000u, magnitude = bits.u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (unsigned short)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);
    if (magnitude < 0x33000001u) return (unsigned short)sign;
    unsigned int kept, rest, half;
    if (magnitude >= 0x38800000u) {
        kept = (magnitude - 0x38000000u) >> 13;
        rest = magnitude & 0x1fffu;
        half = 0x1000u;
    } else {
        int shift = 126 - (int)(magnitude >> 23);
        unsigned int mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        kept = mantissa >> shift;
        rest = mantissa & ((1u << shift) - 1u);
        half = 1u << (shift - 1);
    }
    if (rest > half || (rest == half && (kept & 1u))) ++kept;
    return (unsigned short)(sign | kept);
}

extern "C" __global__ void edgekit_preprocess(
    const level_t* src, void* dst, int src_w, int src_h, int dst_w, int dst_h, int left, int top, int new_w, int new_h,
    int method, int swap, int pad, int output, float mean0, float mean1, float mean2, float std0, float std1,
    float std2)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= dst_w || y >= dst_h) return;
    geometry_t g = {src_w, src_h, dst_w, dst_h, left, top, new_w, new_h};
    const float mean[3] = {mean0, mean1, mean2}, deviation[3] = {std0, std1, std2};
    int ix = x - left, iy = y - top;
    bool inside = ix >= 0 && iy >= 0 && ix < new_w && iy < new_h;
    for (int c = 0; c < 3; ++c) {
        float value = (float)pad;
        if (inside) {
            value = floorf(resized(src, g, method, ix, iy, swap ? 2 - c : c) + 0.5f);
            value = value < 0.0f ? 0.0f : (value > 255.0f ? 255.0f : value);
        }
        size_t plane = ((size_t)c * dst_h + y) * dst_w + x;
        if (output == 2) {
            ((level_t*)dst)[((size_t)y * dst_w + x) * 3 + c] = (level_t)value;
        } else if (output == 1) {
            ((unsigned short*)dst)[plane] = half_of((value - mean[c]) / deviation[c]);
        } else {
            ((float*)dst)[plane] = (value - mean[c]) / deviation[c];
        }
    }
}
"""


def arguments(preprocess, width, height, output):
    """(scalar arguments of the kernel behind src and dst, Placement) for an image of this size.

    output: "float32", "float16" or "uint8", the type of the network's input
    """
    where = preprocess.place(width, height)
    new_w, new_h = preprocess.size
    if preprocess.mode == "letterbox":
        new_w, new_h = int(width * where.scale_x + 0.5), int(height * where.scale_y + 0.5)
    whole = (
        width,
        height,
        preprocess.size[0],
        preprocess.size[1],
        where.left,
        where.top,
        new_w,
        new_h,
        INTERPOLATIONS.index(preprocess.interpolation),
        int(preprocess.colour == "rgb"),
        preprocess.pad_value,
        OUTPUTS[output],
    )
    real = preprocess.mean + preprocess.std
    return [np.int32(v) for v in whole] + [np.float32(v) for v in real], where


def grid(preprocess):
    """Blocks (x, y) that cover the canvas."""
    width, height = preprocess.size
    return (-(-width // BLOCK[0]), -(-height // BLOCK[1]))


def find_nvcc():
    """Path of CUDA's compiler, or None."""
    return shutil.which("nvcc") or (_NVCC if os.access(_NVCC, os.X_OK) else None)


def compile_kernel():
    """The kernel as a pycuda function for the current context. MissingDependency without nvcc."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise MissingDependency("nvcc is neither on the path nor in /usr/local/cuda/bin")
    compiler = load_pycuda("pycuda.compiler")
    module = compiler.SourceModule(SOURCE, nvcc=nvcc, no_extern_c=True)
    return module.get_function("edgekit_preprocess")
