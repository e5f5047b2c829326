"""What a stranger may ask for."""

from dataclasses import dataclass

from boxwright.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Limits of a service.

    Attributes:
        bytes: of a request's body.
        pixels: of an image, checked before it is decoded.
        held: pixels of all requests that are decoded at a time; those beyond are answered with 429.
        images: of a request.
        queue: images that may wait; more are answered with 429.
        batch: images that the network sees at once.
        wait: seconds that a batch waits for more.
        seconds: for a body to come, and for an answer.

    Raises:
        ConfigError: a number that can't be meant.
    """

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    held: int = 200_000_000
    images: int = 16
    queue: int = 64
    batch: int = 8
    wait: float = 0.005
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if (
            min(self.bytes, self.pixels, self.held, self.images, self.queue, self.batch) < 1
            or self.seconds <= 0
        ):
            raise ConfigError(f"{self}: expected numbers above 0.")
        if self.wait < 0:
            raise ConfigError(f"wait {self.wait}, expected 0 or more seconds.")
