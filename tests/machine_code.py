"""CUDA kernels as machine code, made without a device: what they use, and what they consist of.

The loops of a listing, of any processor.
"""

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

INSTRUCTION = re.compile(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)[^;]*;")
LABEL = re.compile(r"^(\.L_\w+):", re.MULTILINE)
BRANCH = re.compile(r"BRA\S*\s+`\((\.L_\w+)\)")


def find_loops(text, label, branch):
    """Where the loops of a listing begin and end: from a label to a branch back to it.

    ``label`` and ``branch`` are patterns whose first group is the label's name.
    """
    labels = {match[1]: match.start() for match in label.finditer(text)}
    return {
        (labels[jump[1]], jump.end())
        for jump in branch.finditer(text)
        if labels.get(jump[1], jump.start()) < jump.start()
    }


def around(loop, loops):
    """Those of the loops that contain this one."""
    return [x for x in loops if x != loop and x[0] <= loop[0] and loop[1] <= x[1]]


def innermost(loops):
    """Those that contain no other."""
    return [x for x in loops if not any(x in around(other, loops) for other in loops)]


@dataclass(frozen=True)
class MachineCode:
    """A compiled kernel.

    Attributes
    ----------
    registers, stack, spills, shared : int
        Registers of a thread; bytes of its stack and of registers put there; bytes of a block's
        shared memory.
    text : str
        The disassembly.
    """

    registers: int
    stack: int
    spills: int
    shared: int
    text: str

    @property
    def instructions(self):
        return Counter(INSTRUCTION.findall(self.text))

    def count(self, *prefixes):
        """Instructions whose names begin with one of these."""
        return sum(n for name, n in self.instructions.items() if name.startswith(prefixes))

    def longest_loop(self):
        """Instructions of the longest loop that contains no other."""
        return self._longest_loops()[0]

    def nested_loop(self, repeats):
        """The same with those of the loop around it, in which it is run so often."""
        inner, outer = self._longest_loops()
        body = Counter(outer)
        for name, count in inner.items():
            body[name] += (repeats - 1) * count
        return body

    def _longest_loops(self):
        loops = find_loops(self.text, LABEL, BRANCH)
        bodies = {
            (start, end): Counter(INSTRUCTION.findall(self.text[start:end])) for start, end in loops
        }
        inner = max(innermost(loops), key=lambda loop: bodies[loop].total())
        outer = min(around(inner, loops), key=lambda loop: bodies[loop].total(), default=inner)
        return bodies[inner], bodies[outer]


def _tool(name):
    from cuda import pathfinder

    path = pathfinder.find_nvidia_binary_utility(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def machine_code(kernel, dtype, architecture, folder: Path):
    """Compile a ``Kernel`` for arrays of ``dtype`` on devices of an architecture like (9, 0)."""
    pytest.importorskip("numba_cuda")
    from numba import cuda

    assembler, disassembler = _tool("ptxas"), _tool("nvdisasm")
    device = SimpleNamespace(compute_capability=architecture)
    # Numba asks the device for what it has just been told, if a kernel calls device functions.
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        text, _ = cuda.compile(
            kernel.function(dtype),
            kernel.signature(dtype),
            cc=architecture,
            device=False,
            abi="numba",
            **kernel.options,
        )
    source, binary = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(text)
    name = "sm_{}{}".format(*architecture)
    done = subprocess.run(
        [assembler, "-v", "-O3", f"-arch={name}", source, "-o", binary],
        capture_output=True,
        text=True,
        check=True,
    )
    listing = subprocess.run(
        [disassembler, "-c", binary], capture_output=True, text=True, check=True
    )

    def number(pattern):
        found = re.search(pattern, done.stderr)
        return int(found[1]) if found else 0

    return MachineCode(
        registers=number(r"Used (\d+) registers"),
        stack=number(r"(\d+) bytes stack frame"),
        spills=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        shared=number(r"(\d+) bytes smem"),
        text=listing.stdout,
    )
