"""``test_cuda.py`` and ``test_cuda_dtypes.py`` in Numba's CUDA simulator.

It must be chosen before Numba is imported. They take 25 minutes of one core, in a process of its
own, which begins with the session: see ``conftest.py``.
"""

import atexit
import functools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = [str(HERE / name) for name in ("test_cuda.py", "test_cuda_dtypes.py")]


@functools.cache
def simulation():
    """The process, and the file that it writes to."""
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process runs
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    process = subprocess.Popen(
        command,
        cwd=HERE.parent,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    atexit.register(process.kill)
    return process, output


@pytest.mark.slow
def test_cuda_backend_in_the_simulator():
    pytest.importorskip("numba_cuda")
    pytest.importorskip("greenlet")
    process, output = simulation()
    process.wait()
    output.seek(0)
    text = output.read()
    assert process.returncode == 0, text[-5000:]
    passed = re.search(r"(\d+) passed", text)
    assert passed is not None, text
    assert int(passed[1]) > 370, text
