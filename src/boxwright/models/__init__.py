"""Detectors: one readable file each, found by name in the dict below and imported when it is built.

A detector has three verbs: `forward` (images to raw outputs), `loss` (outputs and targets to named
scalars), `decode` (outputs to detections).
"""

from importlib import import_module

from boxwright.config import ModelConfig
from boxwright.models.detector import Detector

# Name to module and class. Some need timm or torchvision, which take a second to import.
DETECTORS = {
    "compact": "compact.Compact",
    "compact_obb": "compact_obb.CompactOBB",
    "fcos": "fcos.FCOS",
    "nas_fcos": "nas_fcos.NASFCOS",
    "fcos_obb": "points_obb.PointsOBB",
    "retinanet": "retinanet.RetinaNet",
    "retinanet_obb": "retinanet_obb.RetinaNetOBB",
    "faster_rcnn": "faster_rcnn.FasterRCNN",
    "cascade_rcnn": "faster_rcnn.FasterRCNN",
    "faster_rcnn_obb": "faster_rcnn.FasterRCNN",
    "detr": "detr.DETR",
    "rtdetr": "rtdetr.RTDETR",
    "dfine": "dfine.DFINE",
    "dfine_obb": "dfine.DFINE",
    "retinaface": "retinaface.RetinaFace",
    "freeanchor": "freeanchor.FreeAnchor",
    "atss": "atss.ATSS",
    "atss_obb": "points_obb.PointsOBB",
    "gfl": "gfl.GFL",
    "vfnet": "vfnet.VFNet",
    "ssd": "ssd.SSD",
    "dssd": "dssd.DSSD",
    "yolov3": "yolov3.YOLOv3",
    "yolox": "yolox.YOLOX",
    "efficientdet": "efficientdet.EfficientDet",
    "classifier": "classifier.Classifier",
}


def build_detector(config: ModelConfig, num_classes: int) -> Detector:
    """The detector that a checked config names."""
    module, name = DETECTORS[config.name].split(".")
    return getattr(import_module(f"boxwright.models.{module}"), name).from_config(config, num_classes)
