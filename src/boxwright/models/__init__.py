"""Detectors: one readable file each, found by name in the dict below.

A detector has three verbs: `forward` (images to raw outputs), `loss` (outputs and targets to named
scalars), `decode` (outputs to detections).
"""

from boxwright.config import ModelConfig
from boxwright.models.atss import ATSS
from boxwright.models.compact import Compact
from boxwright.models.compact_obb import CompactOBB
from boxwright.models.detector import Detector
from boxwright.models.dssd import DSSD
from boxwright.models.efficientdet import EfficientDet
from boxwright.models.fcos import FCOS
from boxwright.models.freeanchor import FreeAnchor
from boxwright.models.gfl import GFL
from boxwright.models.points_obb import PointsOBB
from boxwright.models.retinanet import RetinaNet
from boxwright.models.retinanet_obb import RetinaNetOBB
from boxwright.models.ssd import SSD
from boxwright.models.vfnet import VFNet
from boxwright.models.yolov3 import YOLOv3
from boxwright.models.yolox import YOLOX

DETECTORS = {
    "compact": Compact,
    "compact_obb": CompactOBB,
    "fcos": FCOS,
    "fcos_obb": PointsOBB,
    "retinanet": RetinaNet,
    "retinanet_obb": RetinaNetOBB,
    "freeanchor": FreeAnchor,
    "atss": ATSS,
    "atss_obb": PointsOBB,
    "gfl": GFL,
    "vfnet": VFNet,
    "ssd": SSD,
    "dssd": DSSD,
    "yolov3": YOLOv3,
    "yolox": YOLOX,
    "efficientdet": EfficientDet,
}


def build_detector(config: ModelConfig, num_classes: int) -> Detector:
    """The detector that a checked config names."""
    return DETECTORS[config.name].from_config(config, num_classes)
