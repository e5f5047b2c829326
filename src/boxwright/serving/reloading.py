"""Newer checkpoints in place of older ones, while requests go on."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from boxwright.config.places import find_checkpoint
from boxwright.errors import BoxwrightError
from boxwright.serving.served import Served

Seen = tuple[Path, int, int]  # a file, when it was written, and its bytes
logger = logging.getLogger("boxwright.serving")


class Reloader:
    """Looks at checkpoints every so often, and loads what has changed.

    A file counts once two looks in a row have found it alike: it is whole then. The old detector answers
    until the new one is ready, and whoever asked it gets its answer. One that can't be loaded is logged, and
    the old one stays.

    Args:
        models: by name; replaced in it.
        places: of their checkpoints, by name.
        open_model: loads a place.
        every: seconds.
    """

    def __init__(
        self,
        models: dict[str, Served],
        places: Mapping[str, str],
        open_model: Callable[[str], Served],
        every: float = 2.0,
    ):
        self._models, self._places, self._open, self._every = models, places, open_model, every
        self._loaded = {name: look(place) for name, place in places.items()}
        self._latest = dict(self._loaded)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.check()

    async def check(self) -> None:
        """Look once."""
        for name, place in self._places.items():
            seen = await asyncio.to_thread(look, place)
            settled, self._latest[name] = seen == self._latest[name], seen
            if seen is not None and settled and seen != self._loaded[name]:
                self._loaded[name] = seen
                await self._replace(name, place)

    async def _replace(self, name: str, place: str) -> None:
        try:
            served = await asyncio.to_thread(self._open, place)
        except Exception as error:  # whatever it is, the old one answers, and the next file is looked at
            told = {"model": name, "reload": "failed", "why": str(error)}
            logger.error(json.dumps(told), exc_info=not isinstance(error, BoxwrightError))
            return
        old, self._models[name] = self._models[name], served
        old.retire()
        logger.info(json.dumps({"model": name, "reload": "done", "digest": served.digest}))


def look(place: str) -> Seen | None:
    """What lies at a place now; None: nothing."""
    try:
        path = find_checkpoint(place)
        status = path.stat()
    except (BoxwrightError, OSError):
        return None
    return path, status.st_mtime_ns, status.st_size
