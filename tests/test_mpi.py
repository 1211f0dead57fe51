"""Training on several processes: sums of gradients, and the example that uses them."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv.demo import data
from fastconv.demo.network import digit_network
from fastconv.demo.training import train
from fastconv.distributed import allreduce_gradients

from .child import ROOT, environment


class Ranks:
    """A communicator whose other ranks have twice the gradients of this one."""

    def __init__(self):
        self.messages = []

    def Allreduce(self, own, total):
        self.messages.append(own.copy())
        total[...] = 3 * own


def trained(dtype, *layers):
    for layer in layers:
        x = np.arange(2 * layer.in_channels * 25, dtype=dtype).reshape(2, layer.in_channels, 5, 5)
        layer.backward(layer.forward(x))
    return layers


def test_gradients_are_summed_in_one_message(dtype):
    layers = trained(
        dtype,
        fastconv.Conv2d(2, 3, (3, 2), dtype=dtype, rng=0),
        fastconv.Conv2d(3, 1, 1, bias=False, dtype=dtype, rng=1),
    )
    before = [{name: grad.copy() for name, grad in layer.grads.items()} for layer in layers]
    comm = Ranks()
    allreduce_gradients(iter(layers), comm)
    ((message,),) = ([m] for m in comm.messages)
    assert (message.size, message.dtype) == (36 + 3 + 3, dtype)
    for layer, grads in zip(layers, before, strict=True):
        assert layer.grads.keys() == grads.keys()
        for name, grad in grads.items():
            np.testing.assert_array_equal(layer.grads[name], 3 * grad)
            assert layer.grads[name].dtype == dtype


def test_gradients_that_cannot_be_summed():
    single, double = fastconv.Conv1d(1, 2, 3), fastconv.Conv1d(1, 2, 3, dtype="f8")
    comm = Ranks()
    with pytest.raises(RuntimeError, match="layers must have gradients, filled by backward"):
        allreduce_gradients([single], comm)
    for layer in (single, double):
        layer.backward(layer.forward(np.ones((1, 1, 5), layer.weight.dtype)))
    with pytest.raises(TypeError, match="gradients must have one dtype, got float"):
        allreduce_gradients([single, double], comm)
    allreduce_gradients([], comm)
    assert comm.messages == []


# The example.

MPIEXEC = Path(sys.executable).with_name("mpiexec")
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or not MPIEXEC.exists(),
    reason='needs MPI: pip install "fastconv[mpi]"',
)
needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None,
    reason='needs scikit-learn: pip install "fastconv[demo]"',
)
EXAMPLE = ROOT / "examples" / "train_mpi.py"
EPOCH = re.compile(r"^epoch (\d+)/\d+  loss ([\d.]+)  held-out accuracy ([\d.]+)%$", re.MULTILINE)


def mpiexec(ranks, *arguments):
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def run(ranks, *options):
    """Epochs, losses and accuracies that the example prints."""
    done = mpiexec(ranks, EXAMPLE, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{ranks} ranks, weights equal on all" in done.stdout
    found = [tuple(map(float, line)) for line in EPOCH.findall(done.stdout)]
    assert len(found) == done.stdout.count("epoch")  # told by one rank
    return found


def alone(dtype, epochs, batch_size):
    """The same of the demo's own loop, in this process."""
    digits, rng = data.load("digits", 0), np.random.default_rng(0)
    digits = replace(
        digits,
        train_images=digits.train_images.astype(dtype),
        test_images=digits.test_images.astype(dtype),
    )
    network = digit_network(8, rng, dtype=dtype)
    options = {"epochs": epochs, "batch_size": batch_size, "rate": 0.003}
    return [
        (i + 1, epoch.loss, 100 * epoch.test_accuracy)
        for i, epoch in enumerate(train(network, digits, rng, **options))
    ]


@needs_mpi
@needs_digits
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_learn_what_one_does(ranks):
    # Batches that no number of ranks divides, and a last one of a single image.
    got = run(ranks, "--epochs", 2, "--batch-size", 359, "--dtype", "float64", "--threads", 1)
    expected = alone("f8", 2, 359)
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.006)  # accuracies have two decimals
    losses = [[line[1] for line in lines] for lines in (got, expected)]
    np.testing.assert_allclose(*losses, rtol=0, atol=2e-9)  # and losses nine


@needs_mpi
@needs_digits
def test_one_rank_is_the_demo():
    assert run(1, "--epochs", 2) == [
        (epoch, round(loss, 9), round(accuracy, 2)) for epoch, loss, accuracy in alone("f4", 2, 64)
    ]


@needs_mpi
@needs_digits
def test_accuracy_of_the_demo():
    """In float32, where rounding makes another run of it."""
    first, *_, last = run(2, "--epochs", 12)
    assert last[1] < first[1] / 10
    assert last[2] >= 97
    assert abs(last[2] - alone("f4", 12, 64)[-1][2]) < 1.5


FAILURE = """
import sys
sys.path.insert(0, {folder!r})
import train_mpi
def check_equal(network, comm):
    if comm.rank == 1:
        network.parameters()[0][0] += 1e-6
    {rest}
checked = train_mpi.check_equal
train_mpi.check_equal = check_equal
train_mpi.main()
"""


@needs_mpi
@needs_digits
@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("checked(network, comm)", "RuntimeError: weights differ: their digests are, rank by rank"),
        ("assert comm.rank != 1, 'gone wrong'; comm.barrier()", "AssertionError: gone wrong"),
    ],
)
def test_an_exception_on_one_rank_stops_all(rest, message, tmp_path):
    script = tmp_path / "failure.py"
    script.write_text(FAILURE.format(folder=str(EXAMPLE.parent), rest=rest))
    done = mpiexec(2, script, "--epochs", 1)
    assert done.returncode != 0
    assert message in done.stderr
    assert "held-out" not in done.stdout


@needs_mpi
def test_options():
    done = mpiexec(2, EXAMPLE, "--epochs", "none")
    assert done.returncode == 2
    assert done.stderr.count("--epochs: must be a whole number of at least 1, got 'none'") == 1
