"""Changes of what the whole process shares, for as long as any thread needs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager


class Shared:
    """A context that several threads and runs may be in at a time: the first makes the change, the last undoes it.

    Args:
        change: makes the context manager of the change.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]):
        self._change = change
        self._lock = threading.Lock()
        self._users = 0
        self._stack = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._stack.enter_context(self._change())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._stack.close()


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Within it `owner` has another attribute. If somebody else replaced that meanwhile, it is left as it is."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if getattr(owner, name) is value:
            setattr(owner, name, original)
