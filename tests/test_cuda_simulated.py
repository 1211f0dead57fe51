"""``test_cuda.py`` in Numba's CUDA simulator, which must be chosen before Numba is imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_cuda_backend_in_the_simulator():
    pytest.importorskip("numba_cuda")
    pytest.importorskip("greenlet")
    file = Path(__file__).with_name("test_cuda.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    root = file.parent.parent
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) > 250, done.stdout
