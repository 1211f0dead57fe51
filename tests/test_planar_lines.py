"""Three lines of the result at a time: every number of lines, and nothing written but these."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import planar_lines

from . import reference
from .cases import assert_close, data
from .test_maps import function

# Lines that are, and are not, whole threes; shorter than a tile, longer than a block, and others;
# filters of three lines and more; several channels, planes, groups and images.
LAYERS = [
    ((1, 1, 66, 70), (1, 1, 3, 3), {"padding": 1}),
    ((1, 1, 65, 71), (1, 1, 3, 5), {"padding": (0, 2), "stride": (1, 1)}),
    ((1, 1, 67, 149), (1, 1, 7, 4), {"stride": (1, 2), "padding": ((5, 1), (0, 3))}),
    ((2, 6, 73, 70), (3, 2, 4, 3), {"groups": 3, "dilation": (1, 3)}),
    ((1, 1, 5, 6001), (1, 1, 3, 3), {}),
    ((1, 2, 3, 17003), (1, 2, 3, 2), {"padding": (1, 0)}),
    ((2, 1, 900, 5), (1, 1, 5, 3), {"padding": 1}),
    ((1, 1, 90, 80), (1, 1, 31, 29), {"padding": (15, 14)}),
    ((1, 2, 6, 35, 41), (1, 2, 2, 3, 3), {"padding": (1, 0, 2), "stride": (2, 1, 1)}),
]


@pytest.fixture
def planned(monkeypatch):
    """Plans that are made for three lines at a time."""
    made = []
    make_plan = planar_lines.make_plan

    def noted(*arguments):
        made.append(make_plan(*arguments))
        return made[-1]

    monkeypatch.setattr(planar_lines, "make_plan", noted)
    return made


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), LAYERS, ids=str)
def test_correlation(x_shape, w_shape, options, data_format, dtype, rng, planned):
    ndim = len(x_shape) - 2
    x, w, b = (data(rng, shape, dtype) for shape in (x_shape, w_shape, w_shape[0]))
    expected = np.maximum(reference.conv(x, w, b, **options), 0)
    seen, place = x, expected.shape
    if data_format == "channels_last":
        seen = np.moveaxis(x, 1, -1).copy()
        place = (place[0], *place[2:], place[1])
    wide = np.full((*place[:-1], place[-1] + 3), np.nan, dtype)
    out = wide[..., :-3]
    how = {**options, "algorithm": "planar", "data_format": data_format}
    function("conv", ndim)(seen, w, b, **how, activation="relu", out=out)
    assert np.isnan(wide[..., -3:]).all()
    assert_close(np.moveaxis(out, -1, 1) if data_format == "channels_last" else out, expected)
    assert len(planned) == 1


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), LAYERS[:3], ids=str)
def test_gradient(x_shape, w_shape, options, dtype, rng, planned):
    x, w = data(rng, x_shape, dtype), data(rng, w_shape, dtype)
    y = reference.conv(x, w, **options).astype(dtype)
    expected = reference.conv_grad_input(y, w, x_shape, **options)
    out = np.full(x_shape, np.nan, dtype)
    fastconv.conv2d_grad_input(y, w, x_shape, **options, algorithm="planar", out=out)
    assert_close(out, expected)
    assert planned


def test_rounding(planned):
    """Of 961 equal numbers, one after the other, that round the same way: in pieces."""
    x, w = np.full((1, 1, 100, 100), 0.1, "f4"), np.full((1, 1, 31, 31), 0.7, "f4")
    y = fastconv.conv2d(x, w, algorithm="planar").astype("f8")
    exact = 961 * float(x[0, 0, 0, 0]) * float(w[0, 0, 0, 0])
    assert planned
    assert abs(y / exact - 1).max() <= 64 * 2**-24


def test_an_image_has_the_same_bits_in_any_batch(rng):
    x, w = data(rng, (3, 2, 50, 52), "f4"), data(rng, (1, 2, 3, 3), "f4")
    y = fastconv.conv2d(x, w, algorithm="planar")
    np.testing.assert_array_equal(y[1:2], fastconv.conv2d(x[1:2], w, algorithm="planar"))


def test_what_is_no_number_stays_in_its_windows(planned):
    x, w = np.ones((1, 1, 70, 66), np.float32), np.ones((1, 1, 5, 3), np.float32)
    x[0, 0, 31, 40], x[0, 0, 0, 0] = np.nan, np.inf
    y = fastconv.conv2d(x, w, padding=(2, 1), algorithm="planar")[0, 0]
    assert planned
    rows, cols = np.nonzero(~np.isfinite(y))
    windows = {(r, c) for r in range(29, 34) for c in range(39, 42)}
    assert {*zip(rows.tolist(), cols.tolist(), strict=True)} == windows | {
        (r, c) for r in range(3) for c in range(2)
    }


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        ((1, 1, 66, 70), (1, 1, 2, 3), {}),  # two lines of taps
        ((1, 1, 66, 70), (2, 1, 3, 3), {}),  # two filters
        ((1, 1, 131, 70), (1, 1, 3, 3), {"stride": (2, 1)}),
        ((1, 1, 70, 70), (1, 1, 3, 3), {"dilation": (2, 1)}),
        ((1, 1, 60, 60), (1, 1, 3, 3), {}),  # few pixels
        ((1, 1, 9, 6000), (1, 1, 9, 120), {}),  # a line of more taps than are added up at a time
        ((1, 1, 3, 6000), (1, 1, 3, 3), {}),  # one line
        ((2, 1, 7, 6000), (1, 1, 4, 3), {}),  # four, for which six were computed
    ],
    ids=str,
)
def test_others(x_shape, w_shape, options, rng, planned):
    x, w = data(rng, x_shape, "f4"), data(rng, w_shape, "f4")
    y = fastconv.conv2d(x, w, **options, algorithm="planar")
    assert_close(y, reference.conv(x, w, **options))
    assert not planned
