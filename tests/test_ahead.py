"""Cache lines that the micro-kernel asks for: those that it takes later, and the same bits."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import ahead, direct, direct_weight, tile
from fastconv.cpu.blocks import offsets
from fastconv.cpu.views import Layout

from .cases import data
from .plans import forget_plans

# Several blocks and one, whole tiles and not, more channels than are summed at a time, groups,
# strides, padding (which is copied and asks for nothing).
SHAPES = [
    ((3, 20, 17, 19), (70, 20, 1, 1), {}),
    ((2, 300, 9, 31), (24, 300, 1, 1), {}),
    ((1, 64, 5, 4), (130, 64, 1, 1), {}),
    ((2, 48, 11, 13), (40, 24, 1, 1), {"groups": 2}),
    ((2, 36, 33, 35), (33, 36, 1, 1), {"stride": (2, 3)}),
    ((2, 18, 12, 14), (20, 18, 3, 3), {"padding": 1}),
]


@pytest.mark.usefixtures("plans_anew")
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("x_shape", "w_shape", "geometry"), SHAPES)
def test_same_bits(x_shape, w_shape, geometry, data_format, dtype, rng, monkeypatch):
    x, w = data(rng, x_shape, dtype), data(rng, w_shape, dtype)
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    options = {**geometry, "algorithm": "direct", "data_format": data_format}
    y = fastconv.conv2d(x, w, **options)
    dx = fastconv.conv2d_grad_input(y, w, x.shape, **options)
    dw = fastconv.conv2d_grad_weight(y, x, w.shape, **options)
    monkeypatch.setattr(ahead, "L2_BYTES", 0)
    forget_plans()
    outs = [np.full_like(array, np.nan) for array in (y, dx, dw)]
    fastconv.conv2d(x, w, **options, out=outs[0])
    fastconv.conv2d_grad_input(y, w, x.shape, **options, out=outs[1])
    fastconv.conv2d_grad_weight(y, x, w.shape, **options, out=outs[2])
    for out, array in zip(outs, (y, dx, dw), strict=True):
        np.testing.assert_array_equal(out, array)


def lines(places, itemsize):
    """Cache lines of these numbers of an array that begins with one."""
    return set((np.ravel(places) * itemsize // ahead.LINE).tolist())


@pytest.mark.parametrize("height", [4, 6])
@pytest.mark.parametrize("channels", [16, 24, 64, 250])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_tiles_ask_for_all_of_the_next_block(stride, last, channels, height):
    block, itemsize = (1, 1, 4, 48), 4
    wide = 48 * stride
    strides = (0, 0, 1, 0, wide * channels, channels) if last else (0, 0, 8 * wide, 0, wide, 1)
    x = Layout((1, 1, channels, 1, 8, wide), strides)
    rows, steps = direct_weight._lines_ahead(
        x, (1, stride, stride), block, channels, height, itemsize
    )
    pixels = offsets(block, (0, 0, stride * strides[4], stride * strides[5]))
    assert len(rows) == channels
    assert len(steps) == len(pixels)
    seen = lines(pixels[:, None] + np.arange(channels) * strides[2], itemsize)
    asked = lines(rows[::height, None] + steps[::2], itemsize)
    # Every other number of a line makes more lines than there are steps to ask in; and a pixel's
    # last channels may lie in the line in which the next pixel begins.
    assert len(asked & seen) >= (0.95 if stride == 1 else 0.65) * len(seen)
    # The last tile has fewer rows, and asks for as many as the others.
    assert len(asked - seen) <= 0.25 * len(seen)


def test_pixels_ask_for_those_of_a_later_tile():
    channels, itemsize = 200, 4
    image = direct.ImageBlocks(
        Layout((1, 1, channels, 1, 1, 60), (0, 0, 1, 0, 0, channels)),
        Layout((1, 1, 8, 1, 1, 60), (0, 0, 1, 0, 0, 8)),
        (1, 1, 1),
        (1, 1, 1),
        (0, 0, 0),
        (1, 1, 1),
        channels,
        (1, 1, 1, 60),
        16,
    )
    steps = direct._lines_ahead(image, 6, itemsize)
    assert len(steps) == channels
    for begin in range(0, channels, tile.STEPS):
        some = slice(begin, begin + tile.STEPS)
        seen = image.pixels[12:18, None] + image.steps[some]
        asked = lines(image.pixels[ahead.AHEAD] + steps[some][::2], itemsize)
        assert asked >= lines(seen[:, ::16], itemsize)


def test_what_is_beyond_the_caches():
    numbers = 2 * ahead.L2_BYTES // 4
    assert not ahead.is_beyond(Layout((1, 1, 1, 1, 1, numbers), (0,) * 6), 4, 2)
    assert ahead.is_beyond(Layout((1, 1, 1, 1, 1, numbers + 1), (0,) * 6), 4, 2)
