"""What a stranger may ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from boxwright.errors import ConfigError


class TooLargeError(Exception):
    """A request beyond a limit that no waiting changes."""


class BusyError(Exception):
    """More is asked for than can be worked on now."""


@dataclass(frozen=True)
class Limits:
    """Limits of a service.

    Attributes:
        bytes: of a request's body, or of an image that is fetched for it.
        pixels: of an image, checked before it is decoded.
        memory: bytes of bodies and decoded pixels of all requests at a time; those beyond are answered with
            429.
        images: of a request.
        queue: images that may wait; more are answered with 429.
        batch: images that the network sees at once.
        wait: seconds that a batch waits for more.
        seconds: for a request's head and body to come, and for an answer.

    Raises:
        ConfigError: a number that can't be meant.
    """

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    memory: int = 600_000_000
    images: int = 16
    queue: int = 64
    batch: int = 8
    wait: float = 0.005
    seconds: float = 30.0

    def __post_init__(self) -> None:
        whole = (self.bytes, self.pixels, self.memory, self.images, self.queue, self.batch)
        if min(whole) < 1 or self.seconds <= 0:
            raise ConfigError(f"{self}: expected numbers above 0.")
        if self.wait < 0:
            raise ConfigError(f"wait {self.wait}, expected 0 or more seconds.")


class Held:
    """Bytes that a request holds, of what all may."""

    def __init__(self, budget: "Budget"):
        self._budget, self.bytes = budget, 0

    def take(self, count: int) -> None:
        """Hold more.

        Raises:
            TooLargeError: this request alone would be beyond the limit.
            BusyError: all together would be.
        """
        if self.bytes + count > self._budget.most:
            raise TooLargeError(f"more than {self._budget.most:,} bytes of images in memory")
        if self._budget.used + count > self._budget.most:
            raise BusyError
        self.bytes += count
        self._budget.used += count


class Budget:
    """Bytes that requests may hold together; used from the event loop alone."""

    def __init__(self, most: int):
        self.most, self.used = most, 0

    @contextmanager
    def held(self) -> Iterator[Held]:
        """What a request holds, given back at its end."""
        own = Held(self)
        try:
            yield own
        finally:
            self.used -= own.bytes
