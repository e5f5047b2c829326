"""Published checkpoints that training can start from: what they are, where they lie, and under which licence.

Nothing here imports torch: `boxwright zoo` shows it at once.
"""

from dataclasses import asdict, dataclass
from typing import Any

from boxwright.errors import ConfigError, nearest

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
# Places in torchvision's list of 90 that stand for no class.
GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)
_WITH_GAPS = iter(COCO)
COCO_WITH_GAPS = tuple("N/A" if n in GAPS else next(_WITH_GAPS) for n in range(90))

APACHE, BSD = "Apache-2.0", "BSD-3-Clause"
NOT_STATED = "not stated"  # torchvision: terms may follow from the data they were trained on
DFINE_PAPER = "Peng et al., ICLR 2025; github.com/Peterande/D-FINE"
RTDETR_PAPER = "Lv et al., RT-DETRv2, 2024; github.com/lyuwenyu/RT-DETR"
TORCHVISION = "torchvision's list of models"
LIVE = "every layer, losses, detections beside transformers"
BESIDE_TORCHVISION = "outputs, losses, detections beside torchvision"


@dataclass(frozen=True)
class Published:
    """A checkpoint that others have published.

    Attributes:
        place: `hf://owner/repo/file` or an address.
        toolbox: whose names its tensors have, as `boxwright import-checkpoint` knows it.
        model: the detector's config, as under `model` in a YAML file.
        classes: in the order of its classifier.
        parameters: millions.
        gflops: of an image of the size it was judged at, as published.
        ap: on COCO's val2017, as published.
        source: where these are published.
        code_licence, weights_licence: SPDX, or who states what.
        megabytes: of the file, as its place lists it; None: not known.
        proven: what was shown to agree with the original, on random weights.
    """

    place: str
    toolbox: str
    model: dict[str, Any]
    classes: tuple[str, ...]
    parameters: float
    gflops: float
    ap: float
    source: str
    code_licence: str
    weights_licence: str
    megabytes: float | None
    proven: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the number of classes in place of their names."""
        return asdict(self) | {"classes": len(self.classes)}


def _dfine(
    word: str, size: str, parameters: float, gflops: float, ap: float, megabytes: float | None
) -> Published:
    proven = LIVE if size in "ns" else f"{LIVE}, of sizes n and s"
    return Published(
        f"hf://ustc-community/dfine-{word}-coco/model.safetensors", "transformers",
        {"name": "dfine", "size": size}, COCO, parameters, gflops, ap, DFINE_PAPER, APACHE, APACHE, megabytes,
        proven,
    )  # fmt: skip


def _rtdetr(size: int, parameters: float, gflops: float, ap: float, megabytes: float | None) -> Published:
    proven = LIVE if size == 18 else f"{LIVE}, of size 18"
    return Published(
        f"hf://PekingU/rtdetr_v2_r{size}vd/model.safetensors", "transformers",
        {"name": "rtdetr", "size": size}, COCO, parameters, gflops, ap, RTDETR_PAPER, APACHE, APACHE,
        megabytes, proven,
    )  # fmt: skip


def _torchvision(file: str, model: dict[str, Any], *numbers: float) -> Published:
    parameters, gflops, ap, megabytes = numbers
    # One-stage classifiers have a row for the background too, the first, which is never learnt.
    one_stage = model["name"] in ("retinanet", "fcos")
    classes = ("__background__", *COCO_WITH_GAPS) if one_stage else COCO_WITH_GAPS
    return Published(
        f"https://download.pytorch.org/models/{file}", "torchvision", model, classes, parameters, gflops, ap,
        TORCHVISION, BSD, NOT_STATED, megabytes, BESIDE_TORCHVISION,
    )  # fmt: skip


_R50 = {"backbone": {"name": "resnet50"}}
ZOO = {
    "dfine_n_coco": _dfine("nano", "n", 4, 7, 42.8, 15.3),
    "dfine_s_coco": _dfine("small", "s", 10, 25, 48.5, 41.5),
    "dfine_m_coco": _dfine("medium", "m", 19, 57, 52.3, None),
    "dfine_l_coco": _dfine("large", "l", 31, 91, 54.0, 126),
    "dfine_x_coco": _dfine("xlarge", "x", 62, 202, 55.8, 252),
    "rtdetr_r18_coco": _rtdetr(18, 20, 60, 48.1, None),
    "rtdetr_r34_coco": _rtdetr(34, 31, 92, 49.9, 126),
    "rtdetr_r50_coco": _rtdetr(50, 42, 136, 53.4, 172),
    "rtdetr_r101_coco": _rtdetr(101, 76, 259, 54.3, None),
    "faster_rcnn_r50_coco": _torchvision(
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        {
            "name": "faster_rcnn", **_R50, "anchors": {"rounded": True},
            "regions": {"sampling_ratio": 2, "aligned": False},
        },
        41.8, 134.4, 37.0, 159.7,
    ),
    "retinanet_r50_coco": _torchvision(
        "retinanet_resnet50_fpn_coco-eeacb38b.pth",
        {
            "name": "retinanet", **_R50, "neck": {"extra_from": "output"}, "anchors": {"rounded": True},
            "assigner": {"peak_to": "best"},
        },
        34.0, 151.5, 36.4, 130.3,
    ),
    "fcos_r50_coco": _torchvision(
        "fcos_resnet50_fpn_coco-99b0c9b7.pth",
        {
            "name": "fcos", **_R50, "neck": {"extra_from": "output"}, "tower_bias": True, "distances": "relu",
            "point_offset": 0.0, "box_average": "plain",
        },
        32.3, 128.2, 39.2, 123.6,
    ),
    "ssd300_coco": _torchvision(
        "ssd300_vgg16_coco-b556d3b4.pth",
        {"name": "ssd", "clip_anchors": True, "mean": [123, 117, 104]},
        35.6, 34.9, 25.1, 136.0,
    ),
}  # fmt: skip


def published(name: str) -> Published:
    """What the zoo says of a checkpoint.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in ZOO:
        raise ConfigError(f"'{name}' isn't in the zoo. {nearest(name, ZOO)}")
    return ZOO[name]
