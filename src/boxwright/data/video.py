"""Frames of videos, cameras and streams, one at a time; and videos written (PyAV, extra `video`).

A damaged frame is counted and left out, the ones after it are read. Frames keep their numbers, from 1, and
their time stamps. A camera or stream gives its newest frame: those that came while nobody looked are dropped.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType

import numpy as np

from boxwright.data.images import MAX_PIXELS
from boxwright.errors import DataError, import_extra

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "srt://")
CAMERA = "/dev/video"
TIMEOUT = "10000000"  # microseconds that a stream may be silent
TICKS = 90_000  # a second, of the time stamps that are written
CODECS = {".webm": ("libvpx-vp9", "libvpx")}
USUAL_CODECS = ("libx264", "h264", "mpeg4")
BROKEN_IN_A_ROW = 500  # frames after which a file is given up


@dataclass(frozen=True)
class Frame:
    """A picture of a video: `number` from 1, `seconds` from its start, `pixels` (H, W, 3) uint8 RGB."""

    number: int
    seconds: float
    pixels: np.ndarray


def is_video(place: str | os.PathLike) -> bool:
    """Whether a path or address is a video's, by its suffix or scheme, or a camera's."""
    text = str(place)
    return is_live(text) or Path(text).suffix.lower() in VIDEO_SUFFIXES


def is_live(place: str | os.PathLike) -> bool:
    """Whether frames come by themselves, from a camera or an address."""
    return str(place).startswith((*SCHEMES, CAMERA))


class VideoReader:
    """The frames of a video in order.

    Args:
        place: a file, a camera such as /dev/video0, or an address such as rtsp://host/stream.
        every: of so many frames one is given.

    Attributes:
        size: (width, height) as displayed.
        rate: frames a second, as the file says; 25 where it doesn't.
        count: frames that are to come, as far as the file says; 0: unknown.
        broken: frames that couldn't be decoded so far.
        dropped: frames of a camera or stream that nobody took.

    Raises:
        DataError: no video can be read there.
    """

    def __init__(self, place: str | os.PathLike, every: int = 1):
        self._av = import_extra("av", "video")
        self.place, self.every, self.live = str(place), every, is_live(place)
        self.broken = self.dropped = 0
        self._container = self._open()
        try:
            self._stream = self._container.streams.video[0]
        except IndexError as error:
            self._container.close()
            raise DataError(f"{place}: no pictures in it, expected a video.") from error
        self._stream.thread_type = "AUTO"
        context = self._stream.codec_context
        if not 0 < context.width * context.height <= MAX_PIXELS:
            self._container.close()
            raise DataError(
                f"{place}: {context.width} x {context.height}, expected at most {MAX_PIXELS:,} pixels."
            )
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = Fraction(rate).limit_denominator(1001) if rate else Fraction(25)
        self.count = -(-self._count() // every)
        self.size = (context.width, context.height)
        self._first = self._peek()

    def __iter__(self) -> Iterator[Frame]:
        return self._newest() if self.live else self._frames()

    def close(self) -> None:
        self._container.close()

    def _open(self):
        path = Path(self.place)
        if not self.live and not path.is_file():
            raise DataError(f"{path}: {'a folder, expected a video' if path.is_dir() else 'no such file'}.")
        options = {"rtsp_transport": "tcp", "timeout": TIMEOUT} if self.place.startswith("rtsp") else {}
        kind = "v4l2" if self.place.startswith(CAMERA) else None
        try:
            return self._av.open(self.place, format=kind, options=options)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{self.place}: can't be opened as a video: {error}.") from error

    def _count(self) -> int:
        stream = self._stream
        if stream.frames:
            return stream.frames
        known = self._container.duration
        rate = stream.average_rate
        return round(known / self._av.time_base * rate) if known and rate and not self.live else 0

    def _peek(self):
        """The first frame that can be decoded, which tells how the video is turned."""
        self._decoded = self._decode()
        try:
            first = next(self._decoded)
        except StopIteration:
            self._container.close()
            raise DataError(
                f"{self.place}: no frame of it can be decoded ({self.broken} are broken)."
            ) from None
        height, width = _pixels(first, self.size).shape[:2]
        self._as_coded, self.size = self.size, (width, height)
        return first

    def _decode(self) -> Iterator:
        """Decoded frames; broken ones are counted."""
        in_a_row = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
                in_a_row = 0
            except StopIteration:
                return
            except (self._av.EOFError, self._av.error.ExitError):
                return
            except (self._av.FFmpegError, ValueError):
                self.broken, in_a_row = self.broken + 1, in_a_row + 1
                if in_a_row >= BROKEN_IN_A_ROW:
                    return
                continue
            for frame in frames:
                if getattr(frame, "is_corrupt", False):
                    self.broken += 1
                else:
                    yield frame

    def _frames(self) -> Iterator[Frame]:
        read, frame = 0, self._first
        start = frame.time or 0.0
        while frame is not None:
            read += 1
            number = read + self.broken  # broken ones have theirs
            if (read - 1) % self.every == 0:
                seconds = frame.time - start if frame.time is not None else float((number - 1) / self.rate)
                yield Frame(number, seconds, _pixels(frame, self._as_coded))
            frame = next(self._decoded, None)

    def _newest(self) -> Iterator[Frame]:
        """Frames as they come, read by a thread; the newest two wait, older ones are dropped."""
        waiting: Queue[Frame | None] = Queue(2)
        stop = Event()

        def read() -> None:
            for frame in self._frames():
                if stop.is_set():
                    return
                try:
                    waiting.put_nowait(frame)
                except Full:
                    self.dropped += _taken(waiting)
                    waiting.put(frame)
            waiting.put(None)

        Thread(target=read, daemon=True).start()
        try:
            while (frame := waiting.get()) is not None:
                yield frame
        finally:
            stop.set()


def _taken(waiting: Queue) -> int:
    """Takes one out of a queue; how many there were to take."""
    try:
        waiting.get_nowait()
    except Empty:
        return 0
    return 1


def _pixels(frame, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) RGB of a decoded frame, turned as it is to be displayed; one of another size is scaled."""
    width, height = size
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


class VideoWriter:
    """A video file that is whole after every `close`, also where it was broken off.

    Args:
        path: .mp4, .mkv, .mov, .webm ...
        size: (width, height) of the frames; the last column or row goes where a side is odd, as codecs want.
        rate: frames a second.

    Raises:
        DataError: no such file can be written.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int], rate: Fraction | float):
        self._av = import_extra("av", "video")
        self.path, self.size = Path(path), (size[0] // 2 * 2, size[1] // 2 * 2)
        self._rate = Fraction(rate).limit_denominator(1001)
        self._part = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")
        self._last = -1
        if min(self.size) < 2:
            raise DataError(f"{path}: frames of {size[0]} x {size[1]}, expected 2 x 2 at least.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._av.open(str(self._part), "w")
            self._stream = self._add_stream()
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{path}: can't be written as a video: {error}.") from error

    def _add_stream(self):
        for name in CODECS.get(self.path.suffix.lower(), USUAL_CODECS):
            try:
                stream = self._container.add_stream(name, rate=self._rate)
            except (self._av.FFmpegError, ValueError):
                continue
            stream.width, stream.height = self.size
            stream.pix_fmt, stream.thread_type = "yuv420p", "AUTO"
            stream.codec_context.time_base = Fraction(1, TICKS)
            if "264" in name:
                stream.options = {"crf": "23", "preset": "veryfast"}
            return stream
        raise DataError(f"{self.path}: no codec for '{self.path.suffix}' is there.")

    def write(self, pixels: np.ndarray, seconds: float | None = None) -> None:
        """Add a frame (H, W, 3) RGB, shown from `seconds` on; None: after the last one by the rate.

        Raises:
            DataError: the file can't be written.
        """
        width, height = self.size
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), "rgb24")
        step = round(TICKS / self._rate)
        wanted = self._last + step if seconds is None else round(seconds * TICKS)
        self._last = 0 if self._last < 0 and seconds is None else max(wanted, self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
        self._mux(frame)

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._mux(None)
        except DataError:
            self._part.unlink(missing_ok=True)
            raise
        finally:
            self._container.close()
        os.replace(self._part, self.path)

    def _mux(self, frame) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (self._av.FFmpegError, OSError) as error:
            raise DataError(f"{self.path}: can't be written: {error}.") from error

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last >= 0:
            self.close()
        else:
            self._container.close()
            self._part.unlink(missing_ok=True)
