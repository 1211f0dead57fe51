"""Into how many tasks "direct" divides a layer: results are the same to the bit."""

import numba
import numpy as np
import pytest

import fastconv
from fastconv.cpu import direct, driver

from .cases import data
from .plans import forget_plans

pytestmark = pytest.mark.usefixtures("plans_anew")


def test_panels_of_blocks_that_are_not_copied_make_more_tasks(rng, monkeypatch):
    tasks, run = [], driver.run

    def spy(plan, *arrays):
        tasks.append(plan.stages[-1][0].last)
        run(plan, *arrays)

    monkeypatch.setattr(driver, "run", spy)
    threads, before = 2, numba.get_num_threads()
    if before < threads:
        pytest.skip("needs two threads")
    x, w = data(rng, (4, 64, 7, 7), "f4"), data(rng, (2048, 64, 1, 1), "f4")
    operations = 2 * 4 * 49 * 64 * 2048

    def forward(most, least):
        monkeypatch.setattr(direct, "MOST_TASKS", most)
        monkeypatch.setattr(direct, "TASK_OPERATIONS", least)
        forget_plans()
        return fastconv.conv2d(x, w, algorithm="direct")

    numba.set_num_threads(threads)
    try:
        few = forward(0, 1)
        np.testing.assert_array_equal(forward(16, 1), few)
        np.testing.assert_array_equal(forward(16, operations // 20), few)
    finally:
        numba.set_num_threads(before)
    fewest, most, limited = tasks
    assert fewest < limited <= 20 < most <= 16 * threads
