import re

import numpy as np
import pytest

import fastconv
from fastconv.__main__ import main


def test_costs_and_choices():
    told = fastconv.explain((16, 64, 56, 56), (128, 64, 3, 3), padding=1)
    assert told.flops == 2 * 16 * 128 * 56 * 56 * 64 * 9
    assert told.nbytes == 4 * (16 * 64 * 56 * 56 + 128 * 64 * 9 + 16 * 128 * 56 * 56)
    for name, plan in told.maps.items():
        assert plan.algorithm == "winograd"
        assert 0.24 < 2 * plan.products / told.flops < 0.26
        assert 0 < plan.workspace < 64 * 2**20
        assert f"{name}: winograd, because" in str(told)
    assert "y       (N, K, P, Q) = (16, 128, 56, 56)" in str(told)


@pytest.mark.parametrize(
    ("x", "w", "options", "algorithms"),
    [
        # Winograd needs pixels to make up for the transforms of filters, and single precision.
        ((1, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}, ("direct",) * 3),
        ((4, 64, 56, 56), (64, 64, 3, 3), {"dtype": np.float64}, ("direct",) * 3),
        ((4, 64, 56, 56), (64, 64, 3, 3), {"stride": 2}, ("direct",) * 3),
        ((4, 64, 56, 56), (64, 64, 5, 5), {}, ("direct",) * 3),
        ((4, 96, 56, 56), (96, 1, 3, 3), {"groups": 96}, ("depthwise",) * 3),
        ((4, 3, 224, 224), (64, 3, 7, 7), {"stride": 2}, ("direct", "planar", "direct")),
        ((1, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}, ("direct",) * 3),
        ((4, 3, 64, 64), (64, 3, 3, 3), {"padding": 1}, ("gemm", "planar", "direct")),
        ((16, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}, ("winograd",) * 3),
        ((4, 64, 56, 56), (64, 64, 1, 1), {}, ("gemm", "gemm", "direct")),
        ((16, 64, 7, 7), (64, 64, 1, 1), {}, ("direct",) * 3),
        ((1, 512, 7, 7), (2048, 512, 1, 1), {}, ("direct", "gemm", "direct")),
    ],
)
def test_choices(x, w, options, algorithms):
    told = fastconv.explain(x, w, **options)
    assert tuple(plan.algorithm for plan in told.maps.values()) == algorithms


def test_errors():
    with pytest.raises(ValueError, match="weight_shape must have 3, 4 or 5 entries"):
        fastconv.explain((1, 1), (1, 1))
    with pytest.raises(ValueError, match="x_shape must have 4 axes"):
        fastconv.explain((8, 8), (1, 1, 3, 3))
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got int32"):
        fastconv.explain((1, 1, 8, 8), (1, 1, 3, 3), dtype=np.int32)


def test_command(capsys):
    assert main(["explain", "2x8x9x9", "16x4x3x3", "--groups", "2", "--padding", "same"]) == 0
    out = capsys.readouterr().out
    assert "y       (N, K, P, Q) = (2, 16, 9, 9)" in out
    assert len(re.findall("because", out)) == 3
    assert main(["explain", "2x8x9x9", "16x4x3x3"]) == 1
    assert "weight_shape must have 8 / 1 = 8 input channels" in capsys.readouterr().err
