import re

import numpy as np
import pytest

import fastconv
from fastconv.__main__ import main
from fastconv.host import VECTOR_BITS

from .dtypes import BFLOAT16

# What serves short sums with many filters depends on what it costs to transpose the results.
SHORT_SUMS = "gemm" if VECTOR_BITS == 512 else "direct"


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
        ((1, 512, 4, 4), (512, 512, 3, 3), {"padding": 1}, ("direct",) * 3),
        ((1, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}, ("winograd", "winograd", "direct")),
        ((4, 64, 56, 56), (64, 64, 3, 3), {"dtype": np.float64}, ("direct",) * 3),
        ((4, 64, 56, 56), (64, 64, 3, 3), {"stride": 2}, ("direct",) * 3),
        ((4, 64, 56, 56), (64, 64, 5, 5), {}, ("direct",) * 3),
        ((4, 96, 56, 56), (96, 1, 3, 3), {"groups": 96}, ("depthwise",) * 3),
        ((4, 3, 224, 224), (64, 3, 7, 7), {"stride": 2}, ("direct", "planar", "direct")),
        ((1, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}, ("winograd",) * 3),
        ((4, 3, 64, 64), (64, 3, 3, 3), {"padding": 1}, (SHORT_SUMS, "planar", "direct")),
        ((16, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}, ("winograd",) * 3),
        ((4, 64, 56, 56), (64, 64, 1, 1), {}, ("gemm", "gemm", "direct")),
        ((16, 64, 7, 7), (64, 64, 1, 1), {}, ("direct",) * 3),
        ((1, 512, 7, 7), (2048, 512, 1, 1), {}, ("direct", "direct", "direct")),
    ],
)
def test_choices(x, w, options, algorithms):
    told = fastconv.explain(x, w, **options)
    assert tuple(plan.algorithm for plan in told.maps.values()) == algorithms


@pytest.mark.parametrize(
    ("x", "w", "options", "algorithms"),
    [
        ((32, 64, 56, 56), (64, 64, 3, 3), {}, ("gemm",) * 3),
        ((32, 64, 56, 56), (64, 64, 3, 3), {"precision": "high"}, ("3xtf32",) * 3),
        ((32, 64, 56, 56), (64, 64, 3, 3), {"precision": "medium"}, ("tf32",) * 3),
        ((32, 64, 56, 56), (64, 64, 3, 3), {"dtype": "float16"}, ("tf32",) * 3),
        ((32, 64, 56, 56), (64, 64, 3, 3), {"dtype": "float64"}, ("planar",) * 3),
        ((32, 64, 56, 56), (64, 1, 3, 3), {"groups": 64}, ("planar",) * 3),
        ((32, 3, 224, 224), (64, 3, 7, 7), {"stride": 2}, ("gemm", "planar", "gemm")),
        ((1, 2**20, 1), (2**20, 1, 1), {"groups": 2**20}, ("planar",) * 3),
    ],
)
def test_choices_on_cuda(x, w, options, algorithms):
    """Without a device, or what would drive one."""
    told = fastconv.explain(x, w, **options, backend="cuda")
    assert tuple(plan.algorithm for plan in told.maps.values()) == algorithms
    assert all(plan.threads > 0 for plan in told.maps.values())


def test_costs_on_cuda():
    shapes = (32, 64, 57, 56), (100, 64, 3, 3)
    told = fastconv.explain(*shapes, padding=1, stride=2, backend="cuda", precision="high")
    assert {plan.products for plan in told.maps.values()} == {3 * told.flops // 2}
    panels = {"forward": 9 * 64 * 128, "grad_input": 4 * 104 * 128}
    for name, elements in panels.items():
        assert told.maps[name].workspace == 4 * elements
    # 5 tiles of 100 filters by 576 channels and taps, 928 lines: 102 shares.
    assert told.maps["grad_weight"].workspace == 4 * 102 * 100 * 576
    assert told.maps["grad_weight"].threads == 256 * 5 * 102


def test_images_that_meet_no_filter():
    for backend in ("cpu", "cuda"):
        empty = fastconv.explain((0, 3, 8, 8), (4, 3, 3, 3), backend=backend)
        assert "0% of the multiply-adds" in str(empty)
        apart = fastconv.explain((16, 8, 1), (8, 8, 1), stride=2, padding=1, backend=backend)
        assert len(apart.maps) == 3


def test_images_larger_than_memory():
    told = fastconv.explain((10**6, 64, 224, 224), (64, 64, 3, 3), padding=1)
    assert told.nbytes > 10**13
    for plan in told.maps.values():
        assert 0.24 < 2 * plan.products / told.flops < 0.26
        assert plan.workspace < 64 * 2**20


def test_errors():
    with pytest.raises(ValueError, match="weight_shape must have 3, 4 or 5 entries"):
        fastconv.explain((1, 1), (1, 1))
    with pytest.raises(ValueError, match="x_shape must have 4 axes"):
        fastconv.explain((8, 8), (1, 1, 3, 3))
    with pytest.raises(TypeError, match=r"dtype must be float16, .* 64 bits, got bool"):
        fastconv.explain((1, 1, 8, 8), (1, 1, 3, 3), dtype=np.bool)
    with pytest.raises(ValueError, match="backend must be one of cpu, cuda, got 'tpu'"):
        fastconv.explain((1, 1, 8, 8), (1, 1, 3, 3), backend="tpu")
    with pytest.raises(ValueError, match="precision must be one of highest, high, medium"):
        fastconv.explain((1, 1, 8, 8), (1, 1, 3, 3), precision="low")


def test_command(capsys):
    assert main(["explain", "2x8x9x9", "16x4x3x3", "--groups", "2", "--padding", "same"]) == 0
    out = capsys.readouterr().out
    assert "y       (N, K, P, Q) = (2, 16, 9, 9)" in out
    assert len(re.findall("because", out)) == 3
    on_cuda = ["--backend", "cuda", "--precision", "medium", "--dtype", "float16"]
    assert main(["explain", "2x8x9x9", "16x8x3x3", *on_cuda]) == 0
    assert len(re.findall("tf32, because", capsys.readouterr().out)) == 3
    assert main(["explain", "2x8x9x9", "16x8x3x3", "--accumulate-dtype", "float64"]) == 0
    assert "float32 summed in float64" in capsys.readouterr().out
    assert main(["explain", "2x8x9x9", "16x8x3x3", "--dtype", "int8"]) == 0
    assert len(re.findall("because", capsys.readouterr().out)) == 1
    assert main(["explain", "2x8x9x9", "16x8x3x3", "--dtype", "int8", "--backend", "cuda"]) == 0
    assert "too short for int32" in capsys.readouterr().out
    last = ["--data-format", "channels_last", "--dtype", "bfloat16"]
    assert main(["explain", "2x9x9x8", "16x8x3x3", *last]) == (1 if BFLOAT16 is None else 0)
    told = capsys.readouterr()
    assert ("pip install ml_dtypes" in told.err) if BFLOAT16 is None else "(2, 8, 9, 9)" in told.out
    assert main(["explain", "2x8x9x9", "16x4x3x3"]) == 1
    assert "weight_shape must have 8 / 1 = 8 input channels" in capsys.readouterr().err
