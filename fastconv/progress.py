"""A bar for commands that take a while."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")


def progress(items: Sequence[T], unit: str, name: Callable[[T], str]) -> Iterator[T]:
    """The items one by one, with a bar that names them where tqdm is there and somebody watches."""
    if find_spec("tqdm") is None:
        yield from items
        return
    from tqdm import tqdm

    with tqdm(items, leave=False, disable=None, unit=unit, smoothing=0) as bar:
        for item in bar:
            bar.set_description(name(item))
            yield item
