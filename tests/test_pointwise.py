"""Gradients of 1x1 filters: of copied pixels or of those that lie in x, lanes of either kind."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv
from fastconv import host
from fastconv.cpu import direct_weight, driver
from fastconv.cpu.jobs import jobs_of
from fastconv.geometry import conv_geometry

from .cases import assert_close, data

# As many pixels as are copied where channels crowd the caches: 512 do, with narrow vectors 256 too,
# 224 do not. Filters that are lanes, and some that are rows; strides that leave pixels unseen.
LAYERS = [
    ((2, 512, 33, 33), 24, (1, 1), 0),
    ((2, 256, 33, 33), 24, (1, 1), 0),
    ((2, 256, 33, 33), 300, (1, 1), 0),
    ((2, 224, 33, 33), 24, (1, 1), 0),
    ((2, 256, 66, 35), 20, (2, 1), 0),
    ((2, 24, 65, 99), 256, (2, 3), 0),
    ((2, 5, 40, 41), 7, (1, 1), 0),  # several blocks to an image, the last one shorter
    ((20, 3, 8, 9), 9, (1, 1), 0),  # several images to a block
    ((2, 290, 17, 19), 260, (1, 1), 0),
    ((1, 530, 9, 5), 3, (1, 1), 0),
    ((1, 1030, 9, 5), 3, (1, 1), 0),  # more channels than one task takes
    ((2, 11, 21, 46), 10, (2, 3), 0),
    ((2, 6, 30, 31), 5, (1, 1), 2),  # copied with its padding
]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("algorithm", ["direct", "gemm"])
@pytest.mark.parametrize(("x_shape", "filters", "stride", "padding"), LAYERS)
def test_gradient_of_filters(x_shape, filters, stride, padding, algorithm, data_format, dtype, rng):
    x = data(rng, x_shape, dtype)
    seen = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    seen = seen[:, :, :: stride[0], :: stride[1]]
    dy = data(rng, (x_shape[0], filters, *seen.shape[2:]), dtype)
    expected = np.einsum("nkhw,nchw->kc", dy.astype("f8"), seen.astype("f8"), optimize=True)
    if data_format == "channels_last":
        x, dy = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy))
    dw = np.full((filters, x_shape[1], 1, 1), np.nan, dtype)
    fastconv.conv2d_grad_weight(
        dy, x, dw.shape, stride, padding, algorithm=algorithm, data_format=data_format, out=dw
    )
    assert_close(dw[..., 0, 0], expected)


@pytest.mark.usefixtures("plans_anew")
@pytest.mark.parametrize("groups", [1, 2])
def test_sums_that_lie_as_the_gradient_does_are_written_at_once(groups, dtype, rng, monkeypatch):
    channels, filters = 128, 600
    x, dy = (
        data(rng, (5, groups * channels, 9, 14), dtype),
        data(rng, (5, groups * filters, 9, 14), dtype),
    )
    monkeypatch.setattr(direct_weight, "BLOCK_PIXELS", 100)
    monkeypatch.setattr(direct_weight, "TASK_ROWS", 256)
    monkeypatch.setattr(direct_weight, "SHARE_OPERATIONS", 10**12)
    stages, run = [], driver.run

    def spy(plan, *arrays):
        stages.append(len(plan.stages))
        run(plan, *arrays)

    monkeypatch.setattr(driver, "run", spy)
    shape = (groups * filters, channels, 1, 1)
    room = np.full((*shape[:1], channels + 3, *shape[2:]), np.nan, dtype)
    results = []
    for out in (room[:, 3:], np.full((channels, shape[0], 1, 1), np.nan, dtype).swapaxes(0, 1)):
        how = {"groups": groups, "algorithm": "direct", "out": out}
        results.append(fastconv.conv2d_grad_weight(dy, x, shape, **how))
    assert stages == [1, 2]
    assert np.isnan(room[:, :3]).all()
    np.testing.assert_array_equal(*results)
    split = dy.reshape(5, groups, filters, 9, 14), x.reshape(5, groups, channels, 9, 14)
    expected = np.einsum("ngkhw,ngchw->gkc", *(a.astype("f8") for a in split), optimize=True)
    assert_close(results[0].reshape(groups, filters, channels), expected)


@pytest.mark.parametrize(("filters", "channels", "swapped"), [(24, 96, True), (96, 24, False)])
def test_lanes_are_those_that_fill_more(filters, channels, swapped, monkeypatch):
    monkeypatch.setattr(host, "VECTOR_BITS", 512)
    monkeypatch.setattr(direct_weight, "ROWS_OF", {4: 6, 3: 6, 2: 6, 1: 6})
    shape = (1, filters, channels, 1, 1, 1)
    assert direct_weight.fills_more_swapped(shape, np.dtype(np.float32)) is swapped


def test_shifted_pixels_keep_their_places():
    # Cropped on one side and padded on the other, an image has as many pixels as its result.
    g = conv_geometry(2, (1, 96, 9, 9), (24, 96, 1, 1), (1, 1), ((-1, 1), (0, 0)), (1, 1), 1)
    assert not g.is_pointwise
    g = replace(g, channels_last=True)
    dy, x, dw = (np.ones(s, "f4") for s in ((1, 9, 9, 24), (1, 9, 9, 96), (24, 96, 1, 1)))
    (job,) = jobs_of("grad_weight", dy, x, dw, g, "direct")
    assert np.may_share_memory(job.a, dy)
