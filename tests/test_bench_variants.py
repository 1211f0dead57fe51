"""The benchmark beyond convolutions of float32 numbers, on layers that take no time."""

from dataclasses import replace

import numpy as np
import pytest

from fastconv.__main__ import main
from fastconv.bench import command, report, runner, ways
from fastconv.bench.contestant import Operands
from fastconv.bench.pools import pooling
from fastconv.bench.results import Results
from fastconv.bench.runner import Runner, relative_error
from fastconv.bench.suites import MAPS, SUITES
from fastconv.bench.variants import NEEDS, VARIANTS, half, padding_mode, per_sample

from . import pool_reference
from .test_bench import LAYERS, expected


def checked(variants, exact):
    """Records of some small variants, whose ways are all compared with exact results."""
    pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    records = []
    for variant in variants:
        found, prepared = None, variant.prepare

        def prepare(prepared=prepared):
            nonlocal found
            found, made = prepared()
            return found, made

        runs = Runner([], threads=1, rounds=3, seconds=0.001)
        record = runs.measure_variant(replace(variant, prepare=prepare))
        assert relative_error(found, exact(variant.map_name)) < 1e-12
        timed = [timing.name for timing in record.timings]
        assert [*timed, *record.failed] == list(variant.ways)
        assert {*runner.OUR_NAMES} < {*timed}
        assert (record.map_name, record.dtype) == (variant.map_name, variant.dtype)
        # A peer's sums may be of half precision as well.
        worst = {"float32": 2e-6, **report.STORED_ERRORS}[record.dtype]
        assert all(t.error < (worst if t.peer == "fastconv" else 3 * worst) for t in record.timings)
        assert record.suites == (variant.suite,)
        records.append(record)
    return records


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "x_shape", "windows"),
    [
        ("max", (2, 3, 7, 9), (3, 2, 1)),
        ("avg", (2, 3, 7, 8), (3, 1, 1)),
        ("avg", (2, 5, 4, 4), (4, 4, 0)),
        ("max", (1, 3, 4, 6, 7), (2, 2, 0)),
        ("avg", (1, 3, 4, 6, 7), (2, 2, 0)),
    ],
)
def test_pooling(kind, x_shape, windows):
    x = ways.random(x_shape)
    y = getattr(pool_reference, f"{kind}_pool")(x, *windows)
    y = y[0] if kind == "max" else y
    dy = ways.random(y.shape, seed=1)
    gradient = getattr(pool_reference, f"{kind}_pool_grad_input")
    seen = x if kind == "max" else x_shape
    exact = {"forward": y, "grad_input": gradient(dy, seen, *windows)}
    records = checked(pooling("pool", "none", kind, x_shape, windows), exact.get)
    assert [record.map_name for record in records] == ["forward", "grad_input"]
    images = [1, 2] if kind == "max" else [1, 1]
    assert [r.bytes for r in records] == [4 * (x.size * n + y.size) for n in images]
    whole = x_shape[2:] == (4, 4)
    assert all((record.timing("torch mean") is not None) == whole for record in records)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    layer = LAYERS[1]
    kind = np.float16 if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    full = Operands.random(layer)
    stored = Operands(*(a.astype(kind) for a in (full.x, full.weight, full.dy))).double()
    records = checked(half(layer, dtype), lambda name: expected(layer, name, stored))
    assert [record.map_name for record in records] == list(MAPS)
    for record in records:
        assert record.bytes == layer.bytes // 2
        assert record.ratio("torch float32") > 0
        assert record.ours.error > 1e-5  # what storing the result costs is seen


@pytest.mark.torch
@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[2]], ids=lambda layer: layer.name)
def test_gradients_for_each_sample(layer):
    operands = Operands.random(layer)

    def exact(name):
        each = zip(operands.x, operands.dy, strict=True)
        one = [Operands(x[None], operands.weight, dy[None]) for x, dy in each]
        return np.stack([expected(layer, name, sample) for sample in one])

    (record,) = checked(per_sample(layer), exact)
    names = {timing.name for timing in record.ways("torch")}
    assert names == {"torch loop", "torch vmap", "torch groups"}
    assert record.bytes == layer.bytes + operands.weight.nbytes


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["reflect", "circular"])
@pytest.mark.parametrize("layer", [LAYERS[1], LAYERS[4]], ids=lambda layer: layer.name)
def test_padding_modes(layer, mode):
    operands = Operands.random(layer)
    records = checked(padding_mode(layer, mode), lambda name: expected(layer, name, operands, mode))
    assert [record.map_name for record in records] == ["forward", "grad_input"]
    assert all(record.layer == f"{layer.name} {mode}" for record in records)


def test_variants_are_well_formed():
    for suite, variants in VARIANTS.items():
        assert len({(v.name, v.map_name) for v in variants}) == len(variants)
        assert all(v.suite == suite and {*runner.OUR_NAMES} < {*v.ways} for v in variants)
    assert {suite: len(variants) for suite, variants in VARIANTS.items()} == {
        "pooling": 22,
        "half": 30,
        "per-sample": 4,
        "padding-modes": 20,
    }
    assert not {*SUITES} & {*VARIANTS}


def test_failure_of_a_peer_is_kept():
    variant = next(padding_mode(LAYERS[0], "reflect"))
    ours = ways.our_convolution(LAYERS[0], "forward", Operands.random(LAYERS[0]))
    broken = ways.Way("torch", "torch", lambda: 1 / 0, np.asarray)
    result = ours[0].to_numpy(ours[0].call())
    made = replace(variant, prepare=lambda: (result, [*ours, broken]))
    record = Runner([], threads=1, rounds=3, seconds=0.001).measure_variant(made)
    assert record.failed == {"torch": "ZeroDivisionError: division by zero"}
    assert len(record.timings) == 2


@pytest.mark.torch
def test_command_of_variants(tmp_path, known_machine, capsys, monkeypatch):
    for package in NEEDS["half"]:
        pytest.importorskip(package)
    small = {
        "half": (*half(LAYERS[0], "float16"), *half(LAYERS[1], "bfloat16")),
        "per-sample": tuple(per_sample(LAYERS[0])),
        "padding-modes": tuple(padding_mode(LAYERS[0], "reflect")),
    }
    monkeypatch.setattr(command, "VARIANTS", small)
    file, text = tmp_path / "times.json", tmp_path / "times.md"
    outputs = ["--json", str(file), "--markdown", str(text)]
    options = ["--suite", *small, "--map", "grad_weight", "--quick", "--seconds", "0.001"]
    assert main(["bench", *options, *outputs]) == 0
    results = Results.load(file)
    cheaper = min(small["half"], key=lambda variant: variant.flops)
    names = [(record.layer, *record.suites) for record in results.records]
    assert names == [(cheaper.name, "half"), ("plain", "per-sample")]
    assert results.peers == ("torch", "torch float32")
    assert "- plain grad_weight: torch" in text.read_text()
    assert "per-sample" in capsys.readouterr().out


def test_variants_need_packages(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "ml_dtypes" else True)
    assert main(["bench", "--suite", "half"]) == 1
    assert "half needs ml_dtypes, which is not installed" in capsys.readouterr().err


@pytest.mark.torch
def test_maps_that_no_layer_has(capsys):
    pytest.importorskip("torch")
    assert main(["bench", "--suite", "per-sample", "--map", "forward"]) == 1
    assert "per-sample have no layers with the maps forward" in capsys.readouterr().err


def test_operands_begin_at_a_cache_line():
    layer = next(layer for layer in SUITES["lenet5"] if layer.name == "lenet5-c1")
    x = Operands.random(layer).x
    assert x.nbytes >= 2**18
    for array in (x, ways.last(x), ways.random(x.shape)):
        assert array.flags.c_contiguous
        assert array.ctypes.data % 64 == 0
    assert np.array_equal(ways.last(x), np.moveaxis(x, 1, -1))
