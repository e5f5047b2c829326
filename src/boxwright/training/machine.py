"""What a run has to train on: device, precision, loader, signals."""

import atexit
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from weakref import WeakSet

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader

from boxwright.config.training import TrainConfig
from boxwright.data.dataset import DetectionDataset
from boxwright.data.sampling import EpochSampler
from boxwright.data.targets import Batch
from boxwright.errors import DataError
from boxwright.models.detector import Detector, collate_for
from boxwright.models.memory import keep_memory

_started: "WeakSet[BaseProcess]" = WeakSet()  # loaders' workers


def start(loader: DataLoader) -> Iterator[Batch]:
    """The loader's batches, whose workers never get Ctrl-C and SIGTERM: the last step still needs them."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        return iter(loader)
    _kill_workers_at_exit()
    others = set(multiprocessing.active_children())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _started.update(set(multiprocessing.active_children()) - others)


def ahead(loader: DataLoader, count: int) -> Iterator[Batch]:
    """The loader's first batches; without workers, a thread makes each while the one before is trained on."""
    batches = itertools.islice(start(loader), count)
    return batches if loader.num_workers else _made_ahead(batches)


def _made_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


@cache
def _kill_workers_at_exit() -> None:
    """Multiprocessing would end workers that an error has left by a signal that they never get, and wait."""
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    left = [worker for worker in _started if worker.is_alive()]
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # at which torch would raise
    for worker in left:
        worker.kill()


@contextmanager
def loader_faults() -> Iterator[None]:
    """What goes wrong in a loader, in one line.

    Raises:
        DataError: a sample can't be made, or a worker was killed.
    """
    try:
        yield
    except DataError as error:
        # A worker's comes with its whole traceback, the message last.
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a loader's worker was killed, as happens where memory runs out: fewer train.workers, or a"
            f" smaller train.cache_gib, take less. {str(error).splitlines()[0]}"
        ) from error


def on_cpu() -> bool:
    """Whether to train on the processor: where there is nothing else, or ACCELERATE_USE_CPU is set.

    Accelerate starts several processes on processors only when it is told.
    """
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return wanted or not torch.accelerator.is_available()


def choose_precision(wanted: str) -> str:
    """Accelerate's name of the precision; "auto" is bf16 where a GPU or a processor gains by it."""
    if wanted != "auto":
        return {"fp32": "no"}.get(wanted, wanted)
    if not on_cpu() and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    # With AVX-512's bf16 103 images/s to 76; without it it is no faster (31 to 35), and AVX2 emulates it.
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "no"


def make_accelerator(settings: TrainConfig, folder: Path) -> Accelerator:
    """Device, precision and processes of a run, and the trackers of its folder."""
    AcceleratorState._reset_state()  # an earlier run's of this process, whose precision it would keep
    if cpu := on_cpu():
        keep_memory()
    return Accelerator(
        mixed_precision=choose_precision(settings.precision),
        cpu=cpu,
        log_with=list(settings.trackers) or None,
        project_dir=folder,
    )


@cache
def part_at_exit() -> None:
    """Once all processes are done: they part before Python ends.

    A thread of gloo that lets go of its last tensor while Python ends would abort the process. Processes that
    fail don't part: it may wait for what the others never do.
    """
    atexit.register(_part)


def _part() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def make_loader(
    model: Detector,
    batch_size: int,
    workers: int | None,
    device: torch.device,
    dataset: DetectionDataset,
    sampler: EpochSampler | list[tuple[int, int]],
) -> DataLoader:
    """Batches of samples; on a CPU without workers, which would take the cores that train."""
    if workers is None:
        workers = 0 if device.type == "cpu" else min(8, torch.get_num_threads())
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_for(model),
        pin_memory=device.type == "cuda",
    )
