"""The benchmark: its layers, contestants and reports, on layers that take no time."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from fastconv.__main__ import main
from fastconv.bench import command, cuda, machine, peers, plot, report, runner
from fastconv.bench.contestant import Contestant, Fastconv, Operands
from fastconv.bench.machine import Machine
from fastconv.bench.results import Record, Results, Timing, geometric_mean
from fastconv.bench.runner import Runner, relative_error
from fastconv.bench.suites import MAPS, SUITES, Layer, layers_of

from . import reference

LAYERS = [
    Layer("plain", "none", (2, 3, 7, 9), (4, 3, 3, 2), (1, 1), (1, 0), (1, 1)),
    Layer("strided", "none", (1, 4, 9, 11), (6, 2, 3, 3), (2, 3), (1, 2), (2, 1), 2),
    Layer("depthwise", "none", (2, 6, 8, 7), (6, 1, 3, 3), (2, 2), (1, 1), (1, 1), 6),
    Layer("one-axis", "none", (2, 4, 19), (3, 4, 4), (2,), (3,), (3,)),
    Layer("three-axes", "none", (1, 2, 4, 5, 6), (3, 2, 2, 3, 1), (1, 2, 1), (1, 1, 0), (1, 1, 1)),
    Layer("filter", "none", (1, 1, 12, 15), (1, 1, 5, 3), (1, 1), (2, 1), (1, 1)),
]


class Slow(Contestant):
    """Right, and slow enough to be timed in fewer rounds."""

    name = peer = "slow"

    def supports(self, layer, map_name):
        return True

    def prepare(self, layer, map_name, operands):
        call = Fastconv().prepare(layer, map_name, operands)
        return lambda: [runner.time.sleep(0.02), call()][1]


class Broken(Contestant):
    name = peer = "broken"

    def supports(self, layer, map_name):
        return True

    def prepare(self, layer, map_name, operands):
        raise RuntimeError("not today")


def expected(layer, map_name, operands, mode="zeros"):
    axes = (layer.stride, layer.padding, layer.dilation, layer.groups, mode)
    if map_name == "forward":
        return reference.conv(operands.x, operands.weight, None, *axes)
    if map_name == "grad_input":
        return reference.conv_grad_input(operands.dy, operands.weight, layer.x_shape, *axes)
    return reference.conv_grad_weight(operands.dy, operands.x, layer.weight_shape, *axes)


def some_results(ratios=(2.0, 0.5)):
    """Results of a run on two layers of ``tiny``, the peer's times in these ratios to ours."""
    records = tuple(
        Record(
            layer.name,
            layer.network,
            layer.shape,
            ("tiny",),
            "forward",
            layer.flops,
            layer.bytes,
            (
                Timing("fastconv", "fastconv", 2e-5, 2e-5, 7, 100, 1e-7, "direct"),
                Timing("fastconv channels_last", "fastconv", 1e-5, 2e-5, 7, 100, 1e-7, "direct"),
                Timing("fastconv direct", "fastconv", 1e-5, 2e-5, 7, 100, 1e-7, "direct"),
                Timing("fastconv planar", "fastconv", 9e-6, 2e-5, 7, 100, 1e-7, "planar"),
                Timing("torch", "torch", 3 * ratio * 1e-5, 2e-5, 7, 100, 1e-7),
                Timing("torch channels_last", "torch", ratio * 1e-5, 2e-5, 3, 100, 1e-2),
            ),
        )
        for layer, ratio in zip(SUITES["tiny"], ratios, strict=False)
    )
    host = Machine("a processor", 2, 2, 256, 1e11, 1e10, "omp", "a system", "2024-02-29", {})
    left_out = {"jax": "not installed: jax"}
    return Results(host, 7, 5.0, "something", ("torch",), left_out, records)


def test_roofline_is_of_the_same_rounds():
    results = some_results()
    record = results.records[0]
    whole = max(record.flops / 1e11, record.bytes / 1e10) / record.ours.best
    assert results.of_roofline(record) == whole
    slower = replace(record, peak=1e7)
    assert results.of_roofline(slower) == record.flops / 1e7 / record.ours.best


def test_roofline_by_bound():
    results = some_results()
    slow, fast, large = results.records[0], results.records[1], results.records[0]
    # At 1 GFLOP/s and 10 GB/s arithmetic takes 1 us for 1000 operations, memory for 10 kB.
    slow = replace(slow, flops=9_000, bytes=10_000, peak=1e9)  # 9 us of the 10 that it took
    fast = replace(fast, flops=500, bytes=20_000, peak=1e9)  # 2 of 10
    large = replace(large, flops=10**9, bytes=0, peak=1e15)  # 1 of 10
    table = report.roofline_table(replace(results, records=(slow, fast, large, slow)))
    assert table.header[-4:] == ("count", "ours", "least", "torch")
    assert table.rows == (
        ("direct", "arithmetic, a GFLOP and more", "1", "10%", "10%", "5%"),
        ("direct", "arithmetic, less", "2", "90%", "90%", "45%"),
        ("direct", "memory", "1", "20%", "20%", "40%"),
    )


def test_layers_are_well_formed():
    layers = layers_of(SUITES)
    assert len({layer.name for layer in layers}) == len(layers) == 79
    for layer in layers:
        assert layer.geometry.x_shape[0] == layer.x_shape[0]
        assert layer.name == layer.name.lower()
        assert not set(layer.name) & set(" ,")


@pytest.mark.parametrize(
    ("suite", "count"),
    [("resnet50", 23), ("resnet50-3x3", 4), ("vgg16", 9), ("mobilenetv2", 18), ("batch1", 8)],
)
def test_sizes_of_suites(suite, count):
    assert len(SUITES[suite]) == count


def test_layer_counts():
    layer = next(layer for layer in SUITES["resnet50-3x3"] if "conv2" in layer.name)
    assert layer.y_shape == (16, 64, 56, 56)
    assert layer.flops == 2 * 16 * 64 * 56 * 56 * 64 * 9
    assert layer.bytes == 4 * (2 * 16 * 64 * 56 * 56 + 64 * 64 * 9)
    assert layer.shape == "16x64x56x56 to 64, 3x3 p1"


@pytest.mark.parametrize("peer", [*peers.PEERS, "fastconv"])
def test_contestants_agree_with_the_oracle(peer, monkeypatch):
    monkeypatch.setenv("NPROC", "1")  # which would stay set otherwise
    if peer == "fastconv":
        contestants = runner.ours(by_name=True)
    else:
        for package in peers.PEERS[peer][0]:
            pytest.importorskip(package)
        contestants, left_out = peers.load_peers([peer], 1)
        assert not left_out
    for contestant in contestants:
        done = 0
        for layer in LAYERS:
            operands = Operands.random(layer)
            for name in filter(lambda name: contestant.supports(layer, name), MAPS):
                with contestant.active():
                    call = contestant.prepare(layer, name, operands)
                    result = contestant.to_numpy(call(), layer, name)
                assert result.dtype == np.float32
                assert relative_error(result, expected(layer, name, operands)) < 2e-6
                done += 1
        assert done or contestant.peer == "fastconv"  # whose algorithms may serve none of these


def test_relative_error():
    assert relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == 0.1
    with pytest.raises(ValueError, match="shape"):
        relative_error(np.ones((1, 2)), np.ones(2))


def test_runner():
    contestants = [*runner.ours(by_name=True), Slow(), Broken()]
    record = Runner(contestants, threads=1, rounds=4, seconds=0.01).measure(LAYERS[0], "grad_input")
    assert record.flops == LAYERS[0].flops
    assert record.ours.algorithm in algorithms_timed(record)
    assert record.failed == {"broken": "RuntimeError: not today"}
    assert record.best_of("slow").rounds == runner.LEAST_ROUNDS
    assert record.ratio("slow") > 5
    assert record.ratio("nobody") is None
    assert record.peak > 1e9
    for timing in record.timings:
        assert 0 < timing.best <= timing.median
        assert timing.error < 1e-6


def algorithms_timed(record):
    """Algorithms of ours that were timed by name."""
    return [t.algorithm for t in record.timings if t.name == f"fastconv {t.algorithm}"]


def test_own_failure_is_not_hidden(monkeypatch):
    monkeypatch.setattr(Fastconv, "prepare", Broken.prepare)
    monkeypatch.setattr(Runner, "_expected", lambda *arguments: None)
    with pytest.raises(RuntimeError, match="not today"):
        Runner([Fastconv()], threads=1, rounds=3, seconds=1).measure(LAYERS[0], "forward")


def test_machine(monkeypatch):
    monkeypatch.setattr(machine, "MEASURE_SECONDS", 0.01)
    monkeypatch.setattr(machine, "STREAM_BYTES", 2**20)
    found = machine.measure(("numpy", "no-such-package"))
    assert found.peak > 1e9
    assert found.bandwidth > 1e8
    assert "no-such-package" not in found.versions
    assert found.roofline(2 * found.peak, found.bandwidth) == 2
    assert found.roofline(found.peak, 2 * found.bandwidth) == 2


def test_geometric_mean():
    assert math.isclose(geometric_mean([1, 4]), 2)
    assert geometric_mean([]) is None


def test_results_are_kept(tmp_path):
    results = some_results()
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="format"):
        Results.load(tmp_path / "other.json")


def test_statistics():
    results = some_results((2.0, 0.5, 0.8))
    assert math.isclose(results.mean_ratio("torch"), 0.8 ** (1 / 3))
    assert results.mean_ratio("torch", "tiny", "grad_input") is None
    assert [loss.ratio for loss in results.losses()] == [0.5, 0.8]
    assert results.suites == ["tiny"]
    assert math.isclose(results.mean_ratio("torch", ours="fastconv"), 0.8 ** (1 / 3) / 2)
    record = results.records[0]
    assert record.channels_last
    # In the same layout: 9 us is no faster than 10 with channels last.
    names = [(auto.name, other.name) for auto, other in record.faster_algorithms()]
    assert names == [("fastconv", "fastconv planar")]


def test_markdown():
    text = report.markdown(some_results())
    assert "| tiny | forward | 2 | 1.00x | 0.50x |" in text
    assert "- tiny-1x8x8 forward: 0.50x torch" in text
    assert "jax left out: not installed: jax" in text
    assert "fewer rounds of torch channels_last (3)" in text
    assert "torch channels_last has a relative error of 1.0e-02" in text
    assert 'fastconv planar is 2.22 times as fast as "auto"' in text
    summary = report.summary_markdown(some_results())
    assert "| all layers | 1.00x | 1.00x |" in summary
    assert "Slower than torch in 1 of 2 cases:" in summary


def test_details():
    results = some_results((2.0, 0.5, 0.8))
    slower = results.records[0]
    # 21 us with channels last beside 20 with channels first is no more than noise, 25 is.
    for best, lines in ((2.1e-5, []), (2.5e-5, ["tiny-1d forward: 1.25x"])):
        first, last, *others = slower.timings
        timings = (first, replace(last, best=best), *others)
        found = replace(results, records=(replace(slower, timings=timings), *results.records[1:]))
        assert report.layout_lines(found) == lines
    text = report.markdown(found)
    assert "with channels last than first (time / time): 1\n\n- tiny-1d forward: 1.25x" in text
    assert report.way_lines(results) == []
    loop = Timing("torch loop", "torch", 1e-6, 2e-6, 7, 100, 1e-7)
    named = replace(slower, timings=(*slower.timings, loop))
    lines = report.way_lines(replace(results, records=(named,)))
    times = "torch loop 0.001 ms, torch channels_last 0.02 ms, torch 0.06 ms"
    assert lines == [f"tiny-1d forward: {times}."]


def test_tables_without_rich(monkeypatch, capsys):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    report.mean_table(some_results()).show()
    header = capsys.readouterr().out.splitlines()[2]
    assert re.split(r"  +", header) == [
        "suite",
        "map",
        "count",
        "torch",
        "torch, ours channels first",
    ]


def test_tables_in_a_terminal(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")  # no reason to break a table's columns
    report.layer_table(some_results()).show()
    lines = capsys.readouterr().out.splitlines()
    assert any("tiny-1x8x8" in line and "0.50x" in line for line in lines)


@pytest.mark.parametrize(("names", "torch"), [(45, True), (1, True), (45, False)])
def test_plot(tmp_path, monkeypatch, names, torch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plot, "MOST_NAMES", names)
    results = some_results((0.5, 3, 0.7)) if torch else replace(some_results(), peers=("scipy",))
    plot.save(results, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_command(tmp_path, known_machine, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    lacking = ("jax", "jaxlib")
    monkeypatch.setattr(
        peers, "find_spec", lambda name: None if name in lacking else find_spec(name)
    )
    files = [str(tmp_path / name) for name in ("a.json", "a.md", "a.png")]
    options = ["--quick", "--suite", "tiny,batch1", "--against", "numpy,jax"]
    outputs = ["--json", files[0], "--markdown", files[1], "--plot", files[2]]
    assert main(["bench", *options, "--suite", "tiny", "--map", "forward", *outputs]) == 0
    text = capsys.readouterr().out
    assert "jax is left out: not installed: jax, jaxlib" in text
    assert "Geometric means" in text
    content = json.loads((tmp_path / "a.json").read_text())
    layers = [record["layer"] for record in content["records"]]
    assert layers == ["tiny-1d", "batch1-resnet50-conv2-expand"]
    assert content["left_out"] == {"jax": "not installed: jax, jaxlib"}
    assert content["peers"] == ["numpy"]
    assert "tiny-1d" in (tmp_path / "a.md").read_text()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["bench", "--load", files[0]]) == 0
    assert "tiny-1d" in capsys.readouterr().out


def test_other_paths_are_compared_and_lose_nothing():
    results = replace(some_results((0.5, 3)), peers=(), paths=("torch",))
    assert results.losses() == []
    assert "0.50x" in report.markdown(results)
    assert "Losses: 0" in report.markdown(results)
    assert "on arrays that lie on a device" in report.markdown(results)


def test_cuda_path_needs_a_device(capsys, monkeypatch):
    def no_device():
        raise RuntimeError("no CUDA device answers")

    monkeypatch.setattr(cuda, "cuda_backend", no_device)
    assert main(["bench", "--backend", "cpu,cuda"]) == 1
    assert "fastconv bench: no CUDA device answers" in capsys.readouterr().err


def test_interrupted(known_machine, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "measure", interrupted)
    assert main(["bench", "--suite", "tiny", "--against", "numpy"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_plot_needs_its_extra(capsys, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["bench", "--plot", "a.png"]) == 1
    assert 'pip install "fastconv[bench]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "resnet51"], "'resnet51' is not among resnet50, resnet50-3x3"),
        (["--map", "forward,sideways"], "'sideways' is not among forward, grad_input"),
        (["--against", "tensorflow"], "'tensorflow' is not among torch, onnxruntime"),
        (["--backend", "abacus"], "'abacus' is not among cpu, cuda"),
        (["--rounds", "2"], "must be an integer, at least 3, got '2'"),
        (["--threads", "none"], "must be an integer, between 1 and"),
        (["--seconds", "-1"], "must be a positive number, got '-1'"),
        (["--json", "no/such/folder/a.json"], "there is no directory 'no/such/folder'"),
        (["--plot", "."], "'.' is a directory"),
        (["--load", "nothing.json"], "No such file"),
    ],
)
def test_wrong_options(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *options])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_import_leaves_it_out():
    code = "import sys, fastconv; sys.exit('fastconv.bench' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
