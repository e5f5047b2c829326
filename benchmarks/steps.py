"""What a training step spends on convolutions and matrix products, and what on everything else.

python -m benchmarks.steps                       # on the GPU where there is one, else on the CPU
python -m benchmarks.steps --compile --only FCOS

A step is the training loop's: forward, loss, backward, clipped gradients, AdamW and the moving average. Parts
are the profiler's own times of operators, of their kernels on a GPU; the whole step is timed without a
profiler. No step is faster than its products, so the share beside them is what could still be had.
"""

import argparse
import itertools
import re
import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.models import named
from benchmarks.peers import Ours, seconds
from boxwright.config.training import OptimizerConfig
from boxwright.training.optimization import make_average, make_optimizer

PRODUCTS = re.compile(r"conv|mm$|dot_product|attention|linear_pointwise")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RESNET = {"name": "resnet18", "pretrained": False}
MODELS = (
    ("FCOS R18", 512, {"name": "fcos", "backbone": RESNET}),
    ("compact", 320, {"name": "compact"}),
    ("compact, finest 4", 320, {"name": "compact", "finest": 4}),
    ("RetinaNet R50", 512, {"name": "retinanet", "backbone": RESNET | {"name": "resnet50"}}),
    ("Faster R-CNN R50", 512, {"name": "faster_rcnn", "backbone": RESNET | {"name": "resnet50"}}),
    ("D-FINE S", 640, {"name": "dfine", "size": "s", "pretrained": False}),
    ("RT-DETRv2 R18", 640, {"name": "rtdetr", "size": 18, "pretrained": False}),
)


class Step(Ours):
    """A step as the training loop takes it."""

    def __init__(self, config: dict, device: torch.device, precision: torch.dtype, compiled: bool):
        super().__init__(config, device, precision, compiled)
        self.optimizer = make_optimizer(self.model, OptimizerConfig(lr=1e-5))
        self.average = make_average(self.model, 0.998)

    def train(self) -> None:
        losses = self.loss(self.train_outputs())
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.model)


def measure(step: Step, rounds: int) -> tuple[float, float, list[tuple[str, float]], float]:
    """Seconds of the fastest step, its share of products, the dearest other operators, seconds to warm up."""
    began = time.perf_counter()
    for _ in range(3):
        seconds(step.train, step.device)
    warm = time.perf_counter() - began
    whole = min(seconds(step.train, step.device) for _ in range(rounds))
    on_gpu = step.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as record:
        for _ in range(3):
            seconds(step.train, step.device)
    own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {e.key: getattr(e, own) / 3e6 for e in record.key_averages() if getattr(e, own) > 0}
    if on_gpu:  # kernels are listed beside the operators that started them
        times = {name: t for name, t in times.items() if "::" in name and not name.startswith("void")}
    products = sum(t for name, t in times.items() if PRODUCTS.search(name))
    others = sorted(((n, t) for n, t in times.items() if not PRODUCTS.search(n)), key=lambda x: -x[1])
    # A processor does one thing at a time, so shares of the profiled sum; a GPU also waits.
    base = whole if on_gpu else sum(times.values())
    return whole, products / base, [(n, t / base) for n, t in others[:4]], warm


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="Part of the name of the detectors to measure.")
    parser.add_argument("--compile", action="store_true", help="The network through torch.compile.")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="*", help="Both on a GPU if left out.")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, batch {options.batch}", flush=True)
    precisions = options.precision or list(PRECISIONS)[: 1 + (device.type == "cuda")]
    for (name, side, config), precision in itertools.product(named(options.only, MODELS), precisions):
        torch.manual_seed(0)
        step = Step(config, device, PRECISIONS[precision], options.compile)
        step.prepare(options.batch, side, 20)
        whole, products, others, warm = measure(step, options.rounds)
        rest = ", ".join(f"{n.split('::')[-1]} {t:.0%}" for n, t in others)
        how = precision + (f", compiled in {warm:.0f} s" if options.compile else "")
        # Each as soon as it is known: compiling can take minutes.
        line = (
            f"{name}, {side} px, {how}: {options.batch / whole:.1f} images/s, products {products:.0%}, {rest}"
        )
        print(line, flush=True)


if __name__ == "__main__":
    main()
