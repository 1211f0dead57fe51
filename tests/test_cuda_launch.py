"""What a launch hands to the driver, as far as that can be seen without a device."""

from types import SimpleNamespace

import pytest

pytest.importorskip("numba_cuda")
pytest.importorskip("cuda.core")
from cuda import core

from fastconv.cuda import arrays, kernel


def test_numbers_are_passed_one_after_the_other(monkeypatch):
    launched = []
    monkeypatch.setattr(core, "launch", lambda *arguments: launched.append(arguments))
    monkeypatch.setattr(core, "Stream", SimpleNamespace(from_handle=lambda handle: handle))
    function = SimpleNamespace(kernel="function")
    compiled = SimpleNamespace(_codelibrary=SimpleNamespace(get_cufunc=lambda: function))
    kernel._launch(compiled, 7, (3, 2, 1), (11, (1, 2), 5, (3,)))
    ((stream, config, name, *numbers),) = launched
    assert (stream, name, numbers) == (7, "function", [11, 1, 2, 5, 3])
    assert (config.grid, config.block) == ((3, 2, 1), (256, 1, 1))


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_another_device(library, monkeypatch):
    device = SimpleNamespace(index=1, id=1)
    array = type("Array", (), {"__module__": library, "device": device})()
    context = SimpleNamespace(device=SimpleNamespace(id=1))
    monkeypatch.setattr(arrays.cuda, "current_context", lambda: context)
    arrays.check_devices({"x": array})
    context.device.id = 0
    with pytest.raises(ValueError, match=r"x must lie on the current device, 0, got .* device 1"):
        arrays.check_devices({"x": array})


@pytest.mark.parametrize("state", ["is_conj", "is_neg"])
def test_tensors_that_are_not_what_their_memory_says(state):
    answers = {"is_conj": lambda self: False, "is_neg": lambda self: False}
    answers[state] = lambda self: True
    tensor = type("Tensor", (), {"__module__": "torch", **answers})()
    with pytest.raises(TypeError, match=r"x must be in memory as it is.*resolve_conj"):
        arrays.check_resolved("x", tensor)
