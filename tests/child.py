"""Python in a process of its own, which finds the package wherever it runs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(**changes):
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def python(*arguments, **changes):
    """What ``python *arguments`` prints; an error, and a failed test, if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(**changes),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()
