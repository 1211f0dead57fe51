"""Every example in a docstring runs."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re

import pytest

import fastconv

EXAMPLES = [n for n in fastconv.__all__ if n not in ("Explanation", "GradCheck")]
LAYERS = [n for n in EXAMPLES if isinstance(getattr(fastconv, n), type)]


# What backends need that not everybody installs.
OPTIONAL = {"fastconv.cuda": "numba_cuda", "fastconv.dask": "dask"}
MISSING = [name for name, needed in OPTIONAL.items() if importlib.util.find_spec(needed) is None]


def _without(name):
    if name not in MISSING:
        raise ImportError(name)


MODULES = [m.name for m in pkgutil.walk_packages(fastconv.__path__, "fastconv.", _without)]
MODULES = [name for name in MODULES if name not in MISSING]


def run(item, name):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    attempted = 0
    for test in finder.find(item, name):
        result = runner.run(test)
        assert result.failed == 0
        attempted += result.attempted
    return attempted


@pytest.mark.parametrize("name", EXAMPLES)
def test_public_example(name):
    assert run(getattr(fastconv, name), name) > 0


@pytest.mark.parametrize("name", fastconv.__all__)
def test_public_docstring(name):
    text = getattr(fastconv, name).__doc__
    assert "{" not in text.replace('{"auto"', "")
    assert "Attributes" in text or "Returns" in text or name == "free_workspace"


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    """Layers say what attributes they have, and that there may be no way back."""
    kind = getattr(fastconv, name)
    layer = kind(*(1, 1, 1) if "Conv" in name else (1,))
    entries = re.findall(r"^\w[\w, ]*", inspect.getdoc(kind), re.MULTILINE)
    entries = {entry for line in entries for entry in line.rstrip().split(", ")}
    assert {*vars(layer), "parameters"} - entries == {"_saved"}
    sections = (
        r"Parameters\n-+\ngrad_output : \(N, .*Returns\n-+\n\(N, .*Raises\n-+\nRuntimeError\n"
    )
    assert re.search(sections, inspect.getdoc(kind.backward), re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_module(name):
    """Modules say what they are about; their helpers' examples run."""
    module = importlib.import_module(name)
    assert module.__doc__
    for key, item in vars(module).items():
        if getattr(item, "__module__", None) == name and "{n}" not in (item.__doc__ or ""):
            run(item, key)
