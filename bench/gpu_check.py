"""Check the CUDA backend on a device and time it beside cuDNN.

    python -m bench.gpu_check --out FILE.json

writes FILE.json and FILE.md, and ends by itself within ``--minutes``. Everything is drawn afresh
each time: the seed is in the results. In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) only the checks
of right results run, on small layers.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import exp, log, prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numba import config, cuda

import fastconv
from fastconv.bench.machine import versions
from fastconv.bench.suites import MAPS, Layer, layers_of
from fastconv.dispatch import cuda_backend

PACKAGES = ("fastconv", "numpy", "numba", "numba-cuda", "cuda-bindings", "torch", "cupy")
# Errors relative to the largest element. Half precision keeps 11 or 8 bits of sums in float32, TF32
# 11 of what is multiplied; integers lose nothing.
ALGORITHMS = {
    "float32": {"gemm": 1e-5, "planar": 1e-5, "3xtf32": 1e-5, "tf32": 2e-3, "reference": 1e-5},
    "float16": {"gemm": 1e-3, "planar": 1e-3, "tf32": 1e-3, "reference": 1e-3},
    "float64": {"planar": 1e-13, "reference": 1e-13},
    "bfloat16": {"gemm": 8e-3, "planar": 8e-3},
    "complex64": {"gemm": 1e-5, "planar": 1e-5},
    "complex128": {"planar": 1e-13},
    "int8": {"planar": 0.0, "reference": 0.0},
}
DTYPES = tuple(ALGORITHMS)
LIMIT = 1e-5
ROUNDS = 15
CPU_ROUNDS = 3
SANITIZER = 60  # seconds for each tool
BATCH = 32

SMALL = [
    Layer("tails", "", (2, 9, 9, 12), (130, 9, 3, 2), (1, 1), (1, 0), (1, 1)),
    Layer("strided", "", (2, 17, 13, 11), (5, 17, 3, 3), (2, 3), (2, 1), (1, 1)),
    Layer("dilated groups", "", (1, 12, 15, 14), (18, 4, 2, 3), (1, 2), (0, 2), (3, 1), 3),
    Layer("volume", "", (1, 5, 4, 7, 6), (9, 5, 2, 3, 1), (1, 2, 1), (1, 1, 0), (1, 1, 1)),
    Layer("signal", "", (2, 3, 40), (8, 3, 5), (3,), (2,), (4,)),
]


# What is compared with what.
PAIRS = [
    ("fastconv", "cudnn"),
    ("fastconv 3xtf32", "cudnn"),
    ("fastconv tf32", "cudnn tf32"),
]


@dataclass
class Report:
    """What was found, in the order in which it was."""

    seed: int
    deadline: float
    machine: dict[str, str] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    launch_microseconds: float | None = None

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def check(self, name: str, right: bool, **details: Any) -> None:
        self.checks.append({"name": name, "right": right, **details})
        print("ok   " if right else "WRONG", name, details, flush=True)


def machine() -> dict[str, str]:
    found = versions(PACKAGES)
    if not config.ENABLE_CUDASIM:
        found["device"], found["compute capability"] = cuda_backend().device()
    return found


# The three maps as functions of arrays of any library.


def call(layer: Layer, name: str, arrays: dict[str, Any], **options: Any) -> Any:
    conv = getattr(fastconv, f"conv{layer.ndim}d" + ("" if name == "forward" else f"_{name}"))
    axes = (layer.stride, layer.padding, layer.dilation, layer.groups)
    if name == "forward":
        return conv(arrays["x"], arrays["weight"], None, *axes, **options)
    if name == "grad_input":
        return conv(arrays["dy"], arrays["weight"], layer.x_shape, *axes, **options)
    return conv(arrays["dy"], arrays["x"], layer.weight_shape, *axes, **options)


def shape_of(layer: Layer, name: str) -> tuple[int, ...]:
    return {"forward": layer.y_shape, "grad_input": layer.x_shape}.get(name, layer.weight_shape)


def random_arrays(layer: Layer, rng: np.random.Generator, dtype: str) -> dict[str, Any]:
    shapes = {"x": layer.x_shape, "weight": layer.weight_shape, "dy": layer.y_shape}
    if dtype == "int8":
        return {name: rng.integers(-128, 128, shape, "i1") for name, shape in shapes.items()}
    if dtype.startswith("complex"):
        parts = {name: rng.standard_normal((*shape, 2)) for name, shape in shapes.items()}
        return {name: part.view("c16")[..., 0].astype(dtype) for name, part in parts.items()}
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    return {name: rng.standard_normal(shape).astype(kind) for name, shape in shapes.items()}


def on_device(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: cuda.to_device(array) for name, array in arrays.items()}


def check_results(report: Report, layers: list[Layer]) -> None:
    """Every kernel against float64, twice, into results filled with NaN."""
    rng = np.random.default_rng(report.seed)
    for layer in layers:
        for dtype in DTYPES if layer in SMALL else DTYPES[:1]:
            host = random_arrays(layer, rng, dtype)
            wide = "c16" if dtype.startswith("complex") else "f8"
            double = {name: array.astype(wide) for name, array in host.items()}
            device = on_device(host)
            for name in MAPS[:1] if dtype == "int8" else MAPS:
                expected = call(layer, name, double, algorithm="reference")
                for algorithm, limit in ALGORITHMS[dtype].items():
                    if report.late:
                        report.left_out.append(f"results of {layer.name} {name} {algorithm}")
                        continue
                    kind = np.dtype("i4") if dtype == "int8" else host["x"].dtype
                    poison = np.full(shape_of(layer, name), -7 if dtype == "int8" else np.nan, kind)
                    results = []
                    for _ in range(2):
                        out = cuda.to_device(poison)
                        call(layer, name, device, algorithm=algorithm, out=out)
                        results.append(out.copy_to_host())
                    difference = np.abs(results[0].astype(wide) - expected).max()
                    error = float(difference / np.abs(expected).max())
                    same = results[0].tobytes() == results[1].tobytes()
                    report.check(
                        f"{layer.name} {name} {algorithm} {dtype}",
                        error <= limit and same,
                        error=error,
                        repeatable=same,
                    )


def check_streams(report: Report) -> None:
    """The result of an operation that the library has only just been asked for, on its stream."""
    layer = SMALL[0]
    host = random_arrays(layer, np.random.default_rng(report.seed + 1), "float32")
    expected = call(layer, "forward", host)
    for name, make in (("torch", _torch_on_a_stream), ("cupy", _cupy_on_a_stream)):
        try:
            library = __import__(name)
        except ImportError:
            report.left_out.append(f"streams of {name}: not installed")
            continue
        got = make(library, layer, host)
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        report.check(f"{name} on a stream of its own", error <= LIMIT, error=error)


def _torch_on_a_stream(torch: Any, layer: Layer, host: dict[str, Any]) -> Any:
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)  # so that a kernel on another stream would come first
        device = {name: torch.from_numpy(array).cuda() for name, array in host.items()}
        y = call(layer, "forward", device)
        assert isinstance(y, torch.Tensor)
        return y.cpu().numpy()


def _cupy_on_a_stream(cupy: Any, layer: Layer, host: dict[str, Any]) -> Any:
    with cupy.cuda.Stream(non_blocking=True):
        wait = cupy.ones((4096, 4096), "f4")
        for _ in range(8):
            wait = wait @ wait * 0
        device = {name: cupy.asarray(array) + wait[0, 0] for name, array in host.items()}
        y = call(layer, "forward", device)
        assert isinstance(y, cupy.ndarray)
        return cupy.asnumpy(y)


def check_sanitizer(report: Report) -> None:
    """The checks of small layers again, under CUDA's memcheck and racecheck."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        report.left_out.append("memcheck, racecheck: compute-sanitizer is not installed")
        return
    for tool in ("memcheck", "racecheck"):
        with tempfile.TemporaryDirectory() as folder:
            checks = [
                sys.executable,
                "-m",
                "bench.gpu_check",
                "--small",
                "--out",
                f"{folder}/a.json",
            ]
            command = [program, "--tool", tool, "--error-exitcode", "9", *checks]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SANITIZER)
            except subprocess.TimeoutExpired:
                report.left_out.append(f"{tool}: not done within {SANITIZER} s")
                continue
        report.check(tool, done.returncode == 0, output=done.stdout[-500:])


def layers_to_time() -> list[Layer]:
    """Distinct 3x3 and 1x1 layers of ResNet-50, then those of VGG-16, with a batch of BATCH."""
    layers = [
        replace(layer, x_shape=(BATCH, *layer.x_shape[1:]))
        for layer in layers_of(["resnet50", "vgg16"])
    ]
    return sorted(layers, key=lambda layer: (layer.network, layer.stride != (1, 1)))


def time_layers(report: Report) -> None:
    """Medians of CUDA events, contestants in turn, inputs rotating, beside cuDNN."""
    try:
        import torch
    except ImportError:
        report.left_out.append("times: PyTorch is not installed")
        return
    if not torch.cuda.is_available():
        report.left_out.append("times: PyTorch sees no device")
        return
    torch.backends.cudnn.benchmark = True
    for layer in layers_to_time():
        for name in MAPS:
            if report.late:
                report.left_out.append(f"times of {layer.name} {name}")
                continue
            entry = {"layer": layer.name, "shape": layer.shape, "map": name, "flops": layer.flops}
            report.times.append({**entry, **_time(torch, layer, name)})
            print(report.times[-1], flush=True)


def _time(torch: Any, layer: Layer, name: str) -> dict[str, float]:
    """Milliseconds of each contestant."""
    shapes = {"x": layer.x_shape, "weight": layer.weight_shape, "dy": layer.y_shape}
    sets = [
        {key: torch.randn(shape, device="cuda") for key, shape in shapes.items()} for _ in range(3)
    ]

    def cudnn(arrays: dict[str, Any], tf32: bool) -> Any:
        torch.backends.cudnn.allow_tf32 = tf32
        axes = (layer.stride, layer.padding, layer.dilation)
        if name == "forward":
            return torch.ops.aten.convolution(
                arrays["x"], arrays["weight"], None, *axes, False, (0, 0), layer.groups
            )
        needs = [name == "grad_input", name == "grad_weight", False]
        return torch.ops.aten.convolution_backward(
            arrays["dy"],
            arrays["x"],
            arrays["weight"],
            None,
            *axes,
            False,
            (0, 0),
            layer.groups,
            needs,
        )

    contestants: dict[str, Callable[[dict[str, Any]], Any]] = {
        "fastconv": lambda arrays: call(layer, name, arrays),
        "fastconv 3xtf32": lambda arrays: call(layer, name, arrays, precision="high"),
        "fastconv tf32": lambda arrays: call(layer, name, arrays, precision="medium"),
        "cudnn": lambda arrays: cudnn(arrays, tf32=False),
        "cudnn tf32": lambda arrays: cudnn(arrays, tf32=True),
    }
    times: dict[str, list[float]] = {key: [] for key in contestants}
    with torch.no_grad():
        for turn in range(ROUNDS + 3):
            for key, contestant in contestants.items():
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                contestant(sets[turn % len(sets)])
                end.record()
                end.synchronize()
                if turn >= 3:  # the first ones compile and choose
                    times[key].append(start.elapsed_time(end))
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {
        **medians,
        "cpu": _cpu_time({key: a.cpu().numpy() for key, a in sets[0].items()}, layer, name),
    }


def _cpu_time(arrays: dict[str, Any], layer: Layer, name: str) -> float:
    """Milliseconds of the CPU path."""
    times = []
    for _ in range(CPU_ROUNDS):
        start = time.perf_counter()
        call(layer, name, arrays)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def time_launch(report: Report) -> None:
    """Microseconds of the host for a call too small to keep the device busy."""
    arrays = on_device(random_arrays(SMALL[0], np.random.default_rng(0), "float32"))
    out = cuda.device_array(SMALL[0].y_shape, np.float32)
    best = float("inf")
    for _ in range(20):
        cuda.synchronize()
        start = time.perf_counter()
        for _ in range(50):
            call(SMALL[0], "forward", arrays, algorithm="reference", out=out)
        best = min(best, (time.perf_counter() - start) / 50)
    report.launch_microseconds = best * 1e6


def lines_of(report: Report) -> Iterator[str]:
    """The report in Markdown."""
    yield "# CUDA backend"
    yield ""
    yield "; ".join(f"{key} {value}" for key, value in report.machine.items()) + "."
    yield ""
    wrong = [check["name"] for check in report.checks if not check["right"]]
    yield f"{len(report.checks)} checks, {len(wrong)} wrong; seed {report.seed}."
    yield from (f"- WRONG: {name}" for name in wrong)
    yield from (f"- left out: {what}" for what in report.left_out)
    if report.launch_microseconds is not None:
        yield f"- a launch takes {report.launch_microseconds:.1f} us of the host."
    if not report.times:
        return
    for ours, peer in PAIRS:
        ratios = [entry[peer] / entry[ours] for entry in report.times]
        mean = exp(sum(map(log, ratios)) / len(ratios))
        yield f"- {ours}: {mean:.0%} of the speed of {peer}, geometric mean over {len(ratios)}."
    yield ""
    contestants = [*dict.fromkeys(name for pair in PAIRS for name in pair), "cpu"]
    yield f"| layer | shape | map | {' | '.join(f'{name} ms' for name in contestants)} | TFLOP/s |"
    yield f"| :-- | :-- | :-- | {'--: | ' * len(contestants)}--: |"
    for entry in report.times:
        times = " | ".join(f"{entry[name]:.3f}" for name in contestants)
        speed = entry["flops"] / entry["fastconv"] / 1e9
        yield f"| {entry['layer']} | {entry['shape']} | {entry['map']} | {times} | {speed:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON; a table goes beside it")
    parser.add_argument("--minutes", type=float, default=7.5, help="when to end (default 7.5)")
    parser.add_argument("--small", action="store_true", help="only results of small layers")
    parser.add_argument("--seed", type=int, default=None, help="of all numbers (default: any)")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    report = Report(seed, time.monotonic() + 60 * arguments.minutes)
    report.machine = machine()
    if arguments.small:
        check_results(report, SMALL)
    elif config.ENABLE_CUDASIM:
        check_results(report, SMALL[:1])
        report.left_out.append("everything else: in the simulator")
    else:
        large = [replace(layer, x_shape=(2, *layer.x_shape[1:])) for layer in layers_to_time()]
        check_results(report, SMALL + [layer for layer in large if prod(layer.x_shape) < 1e6])
        check_streams(report)
        check_sanitizer(report)
        time_launch(report)
        time_layers(report)
    found = {key: value for key, value in vars(report).items() if key != "deadline"}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text("\n".join(lines_of(report)) + "\n")
    print("\n".join(lines_of(report)))
    return int(not all(check["right"] for check in report.checks))


if __name__ == "__main__":
    raise SystemExit(main())
