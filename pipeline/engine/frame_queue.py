"""Bounded queue between the thread that reads frames and the one that processes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from threading import Condition
from typing import Generic, TypeVar

from maskstream.pipeline.errors import ConfigError, QueueClosedError

T = TypeVar("T")


class Policy(Enum):
    """Behavior of `FrameQueue.put` when the queue is full."""

    WAIT = "wait"  # until the consumer has taken an item: nothing is lost (files)
    DROP_OLDEST = "drop_oldest"  # latency is bounded by the capacity (live)
    LATEST = "latest"  # as DROP_OLDEST with a capacity of 1 (live)


class FrameQueue(Generic[T]):
    """Bounded FIFO queue from one producer to one consumer.

    The producer ends it with `close`, the consumer with `cancel`, either of them with `fail`; each
    wakes the other side at once. Iterate to consume; `len` is the number of items waiting.

    carry: makes of an item that is dropped and the one after it what the latter becomes.
    """

    def __init__(
        self,
        capacity: int,
        policy: Policy = Policy.WAIT,
        carry: Callable[[T, T], T] = lambda dropped, after: after,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"A frame queue needs a capacity of 1 or more, not {capacity}.")
        self.capacity = 1 if policy is Policy.LATEST else capacity
        self.policy = policy
        self._carry = carry
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._closed = False
        self._failure: BaseException | None = None
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def dropped(self) -> int:
        """Number of items dropped for newer ones."""
        return self._dropped

    def put(self, item: T) -> None:
        """Append an item; when the queue is full, wait or drop the oldest, as the policy says.

        Raises:
            QueueClosedError: the queue was closed or canceled, also while waiting.
            BaseException: the one that was given to `fail`, also while waiting.
        """
        with self._changed:
            if self.policy is Policy.WAIT:
                self._changed.wait_for(lambda: self._closed or len(self) < self.capacity)
            self._raise_failure()
            if self._closed:
                raise QueueClosedError("The frame queue is closed and takes no more frames.")
            dropped = [self._items.popleft()] if len(self) == self.capacity else []
            self._items.append(item)
            for before in dropped:
                self._items[0] = self._carry(before, self._items[0])
                self._dropped += 1
            self._changed.notify_all()

    def get(self) -> T:
        """Wait for the oldest item and take it.

        Raises:
            QueueClosedError: the queue was closed and is empty, or was canceled.
            BaseException: the one that was given to `fail`, whatever items were left.
        """
        try:
            return next(self)
        except StopIteration:
            raise QueueClosedError("The frame queue is closed and empty.") from None

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is an item or the queue has ended; False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or bool(self._items), timeout_s)

    def __iter__(self) -> FrameQueue[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            self._raise_failure()
            if not self._items:
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """End the queue after the items in it, which the consumer still gets."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the queue and discard the items in it, from the consumer's side."""
        with self._changed:
            self._items.clear()
            self.close()

    def fail(self, failure: BaseException) -> None:
        """End the queue, discard the items, and raise `failure` on both sides; the first wins."""
        with self._changed:
            if self._failure is None:
                self._failure = failure
            self.cancel()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
