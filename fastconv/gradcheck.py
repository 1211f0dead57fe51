"""Checking gradients: central differences, and adjointness.

    <dy, (f(x + h e) - f(x - h e)) / 2h>  =  (gradient of <dy, f> at x)[e]
    <dy, f(x)>  =  <f*(dy), x>                                for f linear in x

The first tests any gradient element by element, the second one in a single number, exactly: it has
no step, so in float64 it holds to rounding. ``<a, b>`` is the real part of ``sum conj(a) b``: a
real loss. Its gradient with respect to complex numbers is that with respect to their real parts,
and i times that with respect to the imaginary ones, for which the step is ih.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class GradCheck:
    """Outcome of ``gradcheck``; true if the gradient passed.

    Attributes
    ----------
    error : float
        Largest difference of an element, relative to the largest element of the gradient.
    worst : tuple of ints
        Index of that element.
    gradient, difference : float or complex
        What the gradient function and the central difference say there.
    adjointness : float or None
        ``|<dy, f(x)> - <f*(dy), x>|`` relative to ``|dy| |f(x)|``; None if not asked for.
    passed : bool
        Whether all of that is within the tolerances.
    """

    error: float
    worst: tuple[int, ...]
    gradient: complex
    difference: complex
    adjointness: float | None
    passed: bool

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        text = (
            f"{'passed' if self.passed else 'FAILED'}: largest relative error {self.error:.2e}, at"
            f" {self.worst}: gradient {self.gradient:.9g}, central difference {self.difference:.9g}"
        )
        if self.adjointness is not None:
            text += f"; adjointness to {self.adjointness:.2e}"
        return text


def gradcheck(
    function: Callable[[Array], Array],
    gradient: Callable[[Array], Array],
    x: Array,
    *,
    linear: bool = False,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    rng: np.random.Generator | int | None = 0,
) -> GradCheck:
    """Compare a gradient with central differences of its function, in float64 or complex128.

    Parameters
    ----------
    function : callable
        ``function(x) -> y``.
    gradient : callable
        ``gradient(dy) -> dx`` at ``x``, of the shape of ``x``, for dy of the shape of y.
    x : ndarray
        Where; converted to float64 or complex128. Every element costs two calls of ``function``,
        every complex one four.
    linear : bool, default False
        Whether ``function`` is linear in ``x``, so that adjointness is checked too, to 1e-10.
    step : float, default 1e-5
        Of the differences: near the cube root of float64's rounding error, where the errors of
        rounding and of the difference are about equal.
    tolerance : float, default 1e-6
        Allowed difference, relative to the largest element of the gradient.
    rng : numpy.random.Generator or int, optional
        Source of the random dy with which the result is weighted.

    Returns
    -------
    GradCheck
        True if the gradient passed; prints the worst element.

    Raises
    ------
    ValueError
        If the gradient does not have the shape of ``x``.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.standard_normal((1, 2, 5, 4)), rng.standard_normal((3, 2, 2, 3))
    >>> bool(fastconv.gradcheck(
    ...     lambda w: fastconv.conv2d(x, w),
    ...     lambda dy: fastconv.conv2d_grad_weight(dy, x, w.shape),
    ...     w,
    ...     linear=True,
    ... ))
    True
    """
    x = _doubles(x)
    y = _doubles(function(x))
    generator = np.random.default_rng(rng)
    dy: Array = generator.standard_normal(y.shape)
    if np.iscomplexobj(y):
        dy = dy + 1j * generator.standard_normal(y.shape)
    dx = np.asarray(gradient(dy))
    if dx.shape != x.shape:
        raise ValueError(f"gradient must return the shape of x, {x.shape}, got {dx.shape}")
    differences = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        total: complex = 0.0
        for unit in (1.0, 1j) if np.iscomplexobj(x) else (1.0,):
            moved = x.copy()
            moved[index] = x[index] + unit * step
            above = _doubles(function(moved))
            moved[index] = x[index] - unit * step
            total += unit * np.vdot(dy, above - function(moved)).real / (2 * step)
        differences[index] = total
    adjointness = None
    if linear:
        scale = float(np.linalg.norm(dy) * np.linalg.norm(y)) or 1.0
        adjointness = float(abs((np.vdot(dy, y) - np.vdot(dx, x)).real)) / scale
    if x.size == 0:
        return GradCheck(0.0, (), 0.0, 0.0, adjointness, True)
    errors = np.abs(dx - differences) / (np.abs(dx).max() or 1.0)
    # A NaN compares as no error at all: let it be the worst.
    errors = np.where(np.isnan(errors), np.inf, errors)
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(errors), errors.shape))
    passed = bool(errors[worst] <= tolerance) and (adjointness is None or adjointness <= 1e-10)
    return GradCheck(
        float(errors[worst]),
        worst,
        dx[worst].item(),
        differences[worst].item(),
        adjointness,
        passed,
    )


def _doubles(x: Array) -> Array:
    return np.array(x, np.complex128 if np.iscomplexobj(x) else np.float64, order="C")
