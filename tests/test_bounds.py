"""The literal loops of reference.py under Numba's bounds checks, in a process of their own.

The other kernels take pointers, which nothing checks: for them ``test_fuzz.py`` puts memory that
must not be touched next to every array.
"""

from .child import ROOT, python


def test_reference_stays_inside():
    matrix = ROOT / "tests" / "test_maps.py"
    out = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "reference", matrix),
        NUMBA_BOUNDSCHECK="1",
        FASTCONV_CACHE="0",
    )
    assert " passed" in out
