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
# strides; more taps, padded or not, of which one block asks for the filters that are packed next,
# gradients of filters for dy.
SHAPES = [
    ((3, 20, 17, 19), (70, 20, 1, 1), {}),
    ((2, 300, 9, 31), (24, 300, 1, 1), {}),
    ((1, 64, 5, 4), (130, 64, 1, 1), {}),
    ((2, 48, 11, 13), (40, 24, 1, 1), {"groups": 2}),
    ((2, 36, 33, 35), (33, 36, 1, 1), {"stride": (2, 3)}),
    ((2, 18, 12, 14), (20, 18, 3, 3), {"padding": 1}),
    ((1, 40, 5, 6), (200, 40, 3, 3), {"padding": 1}),
    ((1, 22, 5, 6), (36, 11, 3, 2), {"groups": 2, "stride": 2}),
    ((5, 6, 19, 33), (40, 6, 5, 4), {"stride": 2}),
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
    pixels = offsets(block, (0, 0, stride * strides[4], stride * strides[5]))
    rows, steps = direct_weight._lines_ahead(x, pixels, channels, channels, height, itemsize)
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


@pytest.mark.parametrize("sums", [27, 150, 576])
@pytest.mark.parametrize("last", [False, True])
def test_more_sums_ask_for_less_each(last, sums):
    block, filters, height, itemsize = (1, 1, 1, 256), 64, 6, 4
    dy = Layout(
        (1, 1, filters, 1, 1, 256), (0, 0, *((1, 0, 0, filters) if last else (256, 0, 0, 1)))
    )
    pixels = offsets(block, (0, 0, dy.strides[4], dy.strides[5]))
    rows, steps = direct_weight._lines_ahead(dy, pixels, filters, sums, height, itemsize)
    assert len(rows) == sums
    asked = lines(rows[::height, None] + steps[::2], itemsize)
    places = [lines(row + steps[::2], itemsize) for row in np.unique(rows)]
    assert len(asked) >= min(0.95 * 16 * filters, 128 * len(places))
    assert asked <= lines(np.arange(16 * 16 * (filters + 16)), itemsize)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("channels", "taps", "pixels"), [(60, 9, 49), (300, 1, 49), (40, 6, 30)])
def test_pixels_ask_for_the_filters_that_are_packed_next(channels, taps, pixels, swapped):
    row, height, itemsize = 64, 6, 4
    filters = 2 * row
    strides = (taps, filters * taps) if swapped else (channels * taps, taps)
    w = Layout((1, filters, channels, 1, 1, taps), (0, *strides, 0, 0, -1 if swapped else 1))
    steps = offsets(w.shape[2:], w.strides[2:])
    rows, asks = direct._filters_ahead(w, steps, pixels, row, height, itemsize)
    assert len(rows) == pixels
    for begin in range(0, len(steps), tile.STEPS):
        some = slice(begin, begin + tile.STEPS)
        lanes = np.arange(row) * strides[0]
        seen = lines(steps[some, None] + lanes, itemsize)
        asked = lines(rows[::height, None] + asks[begin : begin + tile.STEPS : 2], itemsize)
        possible = min(len(seen), len(asks[some]) // 2 * -(-pixels // height))
        assert len(asked & seen) >= 0.8 * possible


@pytest.mark.usefixtures("plans_anew")
def test_filters_of_many_taps_are_not_asked_for(rng, monkeypatch):
    # Of 31x31 taps, 64 filters and 512 channels what to ask for took 6.7 s to list, and 1.4 GB.
    monkeypatch.setattr(ahead, "L2_BYTES", 0)
    listed, list_lines = [], direct._filters_ahead

    def spy(w, *how):
        listed.append(w.shape[3:])
        return list_lines(w, *how)

    monkeypatch.setattr(direct, "_filters_ahead", spy)
    for taps in (5, 13):
        w = data(rng, (6, 5, taps, taps), "f4")
        dy = data(rng, (1, 6, 4, 4), "f4")
        fastconv.conv2d_grad_input(dy, w, (1, 5, 4, 4), padding=taps // 2, algorithm="direct")
    assert listed == [(1, 5, 5)]


def test_what_is_beyond_the_caches():
    numbers = 2 * ahead.L2_BYTES // 4
    assert not ahead.is_beyond(Layout((1, 1, 1, 1, 1, numbers), (0,) * 6), 4, 2)
    assert ahead.is_beyond(Layout((1, 1, 1, 1, 1, numbers + 1), (0,) * 6), 4, 2)
