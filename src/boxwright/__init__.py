"""boxwright: build, judge and ship object detectors on your own data.

Each command of the command line is a function here (`boxwright data check` is `check`), imported when it is
first used: `import boxwright` costs nothing, and only what trains or predicts needs torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxwright.auditing.planting import corrupt as corrupt
    from boxwright.auditing.repair import repair as repair
    from boxwright.data.anchors import fit_anchors as fit_anchors
    from boxwright.data.checking import check as check
    from boxwright.data.conversion import convert as convert
    from boxwright.data.drafting import init as init
    from boxwright.data.formats import read as read
    from boxwright.data.formats import write as write
    from boxwright.data.smoothing import smooth_angles as smooth_angles
    from boxwright.data.splitting import split as split
    from boxwright.data.statistics import stats as stats
    from boxwright.data.traffic import make_traffic as make_traffic
    from boxwright.evaluation.calibrate import calibrate as calibrate
    from boxwright.evaluation.comparison import compare as compare
    from boxwright.evaluation.evaluate import evaluate as evaluate
    from boxwright.evaluation.metrics import measure as measure
    from boxwright.evaluation.thresholds import threshold as threshold
    from boxwright.models.importing import import_checkpoint as import_checkpoint
    from boxwright.prediction.benchmark import benchmark as benchmark
    from boxwright.prediction.export import export as export
    from boxwright.prediction.on_ray import predict_on_ray as predict_on_ray
    from boxwright.prediction.predict import predict as predict
    from boxwright.prediction.predictor import Predictor as Predictor
    from boxwright.prediction.predictor import open_predictor as open_predictor
    from boxwright.prediction.pseudo import pseudo_label as pseudo_label
    from boxwright.prediction.tiling import TilingOptions as TilingOptions
    from boxwright.prediction.video import VideoOptions as VideoOptions
    from boxwright.reporting.audit import audit as audit
    from boxwright.reporting.card import card as card
    from boxwright.reporting.explore import explore as explore
    from boxwright.reporting.gallery import show as show
    from boxwright.reporting.report import report as report
    from boxwright.reporting.runs import runs as runs
    from boxwright.serving.serve import serve as serve
    from boxwright.tracking.options import TrackOptions as TrackOptions
    from boxwright.tracking.track import track as track
    from boxwright.training.assignment import show_assignment as show_assignment
    from boxwright.training.augmented import show_augmented as show_augmented
    from boxwright.training.averaging import average as average
    from boxwright.training.folds import out_of_fold as out_of_fold
    from boxwright.training.inspection import activations as activations
    from boxwright.training.inspection import filters as filters
    from boxwright.training.inspection import summarize as summarize
    from boxwright.training.pretraining import pretrain as pretrain
    from boxwright.training.range_test import lr_find as lr_find
    from boxwright.training.schedule import schedule as schedule
    from boxwright.training.sweep import sweep as sweep
    from boxwright.training.train import train as train

__version__ = "0.2.0.dev0"

# Public name to the module that holds it.
_HOMES = {
    "read": "boxwright.data.formats",
    "write": "boxwright.data.formats",
    "check": "boxwright.data.checking",
    "convert": "boxwright.data.conversion",
    "init": "boxwright.data.drafting",
    "smooth_angles": "boxwright.data.smoothing",
    "split": "boxwright.data.splitting",
    "stats": "boxwright.data.statistics",
    "make_traffic": "boxwright.data.traffic",
    "TrackOptions": "boxwright.tracking.options",
    "track": "boxwright.tracking.track",
    "audit": "boxwright.reporting.audit",
    "card": "boxwright.reporting.card",
    "corrupt": "boxwright.auditing.planting",
    "explore": "boxwright.reporting.explore",
    "repair": "boxwright.auditing.repair",
    "show": "boxwright.reporting.gallery",
    "fit_anchors": "boxwright.data.anchors",
    "show_assignment": "boxwright.training.assignment",
    "evaluate": "boxwright.evaluation.evaluate",
    "measure": "boxwright.evaluation.metrics",
    "compare": "boxwright.evaluation.comparison",
    "calibrate": "boxwright.evaluation.calibrate",
    "threshold": "boxwright.evaluation.thresholds",
    "benchmark": "boxwright.prediction.benchmark",
    "export": "boxwright.prediction.export",
    "predict": "boxwright.prediction.predict",
    "Predictor": "boxwright.prediction.predictor",
    "open_predictor": "boxwright.prediction.predictor",
    "predict_on_ray": "boxwright.prediction.on_ray",
    "pseudo_label": "boxwright.prediction.pseudo",
    "TilingOptions": "boxwright.prediction.tiling",
    "VideoOptions": "boxwright.prediction.video",
    "import_checkpoint": "boxwright.models.importing",
    "report": "boxwright.reporting.report",
    "serve": "boxwright.serving.serve",
    "runs": "boxwright.reporting.runs",
    "train": "boxwright.training.train",
    "out_of_fold": "boxwright.training.folds",
    "pretrain": "boxwright.training.pretraining",
    "sweep": "boxwright.training.sweep",
    "show_augmented": "boxwright.training.augmented",
    "average": "boxwright.training.averaging",
    "lr_find": "boxwright.training.range_test",
    "schedule": "boxwright.training.schedule",
    "summarize": "boxwright.training.inspection",
    "activations": "boxwright.training.inspection",
    "filters": "boxwright.training.inspection",
}
# Modules above that need an extra, by name.
_EXTRAS = {"sweep": "sweep", "serve": "serve", "predict_on_ray": "cluster"} | dict.fromkeys(
    (
        "average",
        "benchmark",
        "export",
        "lr_find",
        "open_predictor",
        "out_of_fold",
        "pseudo_label",
        "show_augmented",
        "predict",
        "Predictor",
        "TilingOptions",
        "VideoOptions",
        "import_checkpoint",
        "schedule",
        "show_assignment",
        "summarize",
        "activations",
        "filters",
    ),
    "train",
)
__all__ = [
    "Predictor",
    "TilingOptions",
    "TrackOptions",
    "VideoOptions",
    "activations",
    "audit",
    "average",
    "benchmark",
    "calibrate",
    "card",
    "check",
    "compare",
    "convert",
    "corrupt",
    "evaluate",
    "explore",
    "export",
    "filters",
    "fit_anchors",
    "import_checkpoint",
    "init",
    "lr_find",
    "make_traffic",
    "measure",
    "open_predictor",
    "out_of_fold",
    "predict",
    "predict_on_ray",
    "pretrain",
    "pseudo_label",
    "read",
    "repair",
    "report",
    "runs",
    "schedule",
    "serve",
    "show",
    "show_assignment",
    "show_augmented",
    "smooth_angles",
    "split",
    "stats",
    "summarize",
    "sweep",
    "threshold",
    "track",
    "train",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'boxwright' has no attribute '{name}'")
    if name in _EXTRAS:
        from boxwright.errors import import_extra

        return getattr(import_extra(_HOMES[name], _EXTRAS[name]), name)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
