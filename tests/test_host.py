"""Sizes of caches as the system tells them."""

import pytest

from fastconv import host


@pytest.fixture
def folder(tmp_path):
    caches = [("1", "Instruction", "32K"), ("1", "Data", "48K"), ("2", "Unified", "2048K")]
    for i, facts in enumerate(caches):
        cache = tmp_path / f"index{i}"
        cache.mkdir()
        for name, value in zip(("level", "type", "size"), facts, strict=True):
            (cache / name).write_text(value + "\n")
    return tmp_path


def test_sizes(folder):
    assert host._cache_bytes(1, 7, folder) == 48 * 1024
    assert host._cache_bytes(2, 7, folder) == 2048 * 1024
    assert host._cache_bytes(3, 7, folder) == 7


def test_what_the_system_does_not_say(folder):
    (folder / "index1" / "size").unlink()
    (folder / "index2" / "size").write_text("unknown")
    assert host._cache_bytes(1, 7, folder) == 7
    assert host._cache_bytes(2, 7, folder) == 7
    assert host._cache_bytes(1, 7, folder / "nowhere") == 7


def test_this_machine():
    """What was taken for sizes is what some processor has."""
    for size in (host.L1_BYTES, host.L2_BYTES):
        assert 8 * 1024 <= size <= 64 * 2**20
        assert size % 1024 == 0
