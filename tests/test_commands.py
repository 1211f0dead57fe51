"""``fastconv info`` and ``fastconv warmup``."""

import re

import pytest

from fastconv.__main__ import main

from .child import python


def test_info(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(re.split(r"\s{2,}|(?<=compiled kernels)", line, maxsplit=1) for line in lines)
    assert re.fullmatch(r"\d+ \((omp|tbb|workqueue)\)", facts["threads"].strip())
    assert facts["vectors"].strip().split()[0] in ("128", "256", "512")
    assert "CUDA device" in facts


def test_warmup_leaves_nothing_to_be_compiled(tmp_path):
    layers = (
        "2x32x9x9,40x32x3x3,padding=1",
        "1x8x40,8x1x3,groups=8",
        "2x32x9x9,40x32x3x3,padding=2,padding_mode=reflect",
        "2x32x9x9,40x32x1x1,stride=2",
    )
    given = [word for layer in layers for word in ("--layer", layer)]
    out = python("-m", "fastconv", "warmup", *given, FASTCONV_CACHE_DIR=str(tmp_path))
    assert "kernels of 4 layers, float32" in out
    code = """
from fastconv import caching
caching._Cache.save_overload = None  # fails if called
import numpy as np, fastconv
for x, w, options in (
    ((2, 32, 9, 9), (40, 32, 3, 3), {"padding": 1}),
    ((1, 8, 40), (8, 1, 3), {"groups": 8}),
    ((2, 32, 9, 9), (40, 32, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    ((2, 32, 9, 9), (40, 32, 1, 1), {"stride": 2}),  # whose gradient has pixels that no tap meets
):
    rank = f"{len(x) - 2}d"
    arrays = np.ones(x, "f4"), np.ones(w, "f4")
    y = getattr(fastconv, "conv" + rank)(*arrays, **options)
    getattr(fastconv, "conv" + rank + "_backward")(y, *arrays, **options)
"""
    python("-c", code, FASTCONV_CACHE_DIR=str(tmp_path))


def test_warmup_of_a_suite(capsys):
    assert main(["warmup", "--suite", "lenet5", "tiny"]) == 0
    assert re.search(r"kernels of \d+ layers", capsys.readouterr().out)


@pytest.mark.parametrize("layer", ["16x64", "1x1x8,1x1x3,size=2", "axb,1x1", "1x1x8,1x1x3,groups"])
def test_warmup_of_what_is_no_layer(layer, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["warmup", "--layer", layer])
    assert stop.value.code == 2
    assert "must be like" in capsys.readouterr().err


def test_warmup_of_a_layer_that_does_not_fit(capsys):
    assert main(["warmup", "--layer", "1x1x8,1x2x3"]) == 1
    assert "fastconv warmup: weight_shape must have" in capsys.readouterr().err
    assert main(["warmup", "--layer", "1x1x8,1x1x3,padding=1,padding_mode=wrap"]) == 1
    assert "fastconv warmup: padding_mode must be one of zeros," in capsys.readouterr().err
