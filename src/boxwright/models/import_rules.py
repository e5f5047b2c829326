"""How the tensors of other toolboxes are called here."""

import re
from collections.abc import Iterator

from torch import Tensor, nn

from boxwright.models import DETECTORS
from boxwright.models import import_rules_sets as sets
from boxwright.models.import_patterns import Rules, conv_norm, numbered
from boxwright.models.import_rules_yolox import MMDET_YOLOX, YOLOX

# MMDetection 2 and 3. The pyramid's fourth and fifth convolutions are its extra levels.
_MMDET_BODY: Rules = (
    (r"backbone\.(.+)", r"backbone.body.\1"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(.+)", r"neck.laterals.\1.0.\2"),
    (r"neck\.fpn_convs\.([012])\.conv\.(.+)", r"neck.outputs.\1.0.\2"),
    (r"neck\.fpn_convs\.3\.conv\.(.+)", r"neck.extras.0.0.\1"),
    (r"neck\.fpn_convs\.4\.conv\.(.+)", r"neck.extras.1.0.\1"),
    (r"bbox_head\.cls_convs\.(\d+)\.conv\.(.+)", r"head.cls_tower.\1.0.\2"),
    (r"bbox_head\.cls_convs\.(\d+)\.gn\.(.+)", r"head.cls_tower.\1.1.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.conv\.(.+)", r"head.box_tower.\1.0.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.gn\.(.+)", r"head.box_tower.\1.1.\2"),
    (r"bbox_head\.scales\.(\d)\.scale", r"head.scales.\1.scale"),
)


def _outputs(cls: str, box: str, quality: str = "") -> Rules:
    named = (("cls", cls), ("box", box), ("quality", quality))
    return tuple((rf"bbox_head\.{theirs}\.(.+)", rf"head.{ours}.\1") for ours, theirs in named if theirs)


# Levels that aren't made by convolutions, and the heads of proposals and of regions.
_MMDET_REGIONS: Rules = (
    (r"neck\.fpn_convs\.(\d)\.conv\.(.+)", r"neck.outputs.\1.0.\2"),
    *_MMDET_BODY,
    (r"rpn_head\.rpn_conv\.(.+)", r"rpn_head.conv.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"rpn_head.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"rpn_head.box.\1"),
)


def _region_head(theirs: str, ours: str) -> Rules:
    """Rules of a head on regions; a group of the pattern is the stage."""
    rest = re.compile(theirs).groups + 1
    return (
        (rf"{theirs}\.shared_fcs\.0\.(.+)", rf"{ours}.fc1.\{rest}"),
        (rf"{theirs}\.shared_fcs\.1\.(.+)", rf"{ours}.fc2.\{rest}"),
        (rf"{theirs}\.fc_cls\.(.+)", rf"{ours}.cls.\{rest}"),
        (rf"{theirs}\.fc_reg\.(.+)", rf"{ours}.box.\{rest}"),
    )


def _mmdet_layers(part: str, *attentions: tuple[str, str]) -> Rules:
    """Rules of a transformer's layers."""
    theirs, ours = rf"{part}\.layers\.(\d+)", rf"{part}.\1"
    return (
        *((rf"{theirs}\.{their}\.attn\.(.+)", rf"{ours}.{our}.\2") for their, our in attentions),
        (rf"{theirs}\.ffn\.layers\.0\.0\.(.+)", rf"{ours}.mlp.layers.0.\2"),
        (rf"{theirs}\.ffn\.layers\.1\.(.+)", rf"{ours}.mlp.layers.1.\2"),
        *((rf"{theirs}\.norms\.{n}\.(.+)", rf"{ours}.norm{n + 1}.\2") for n in range(3)),
    )


def _effdet_rules() -> Iterator[tuple[str, str]]:
    """Nodes are numbered from 0 down, then up: node n of four down is level 3 - n, the rest levels 1 to 4."""
    yield r"backbone\.(.+)", r"backbone.body.\1"
    yield from conv_norm(r"fpn\.resample\.3\.conv", "neck.extra")
    for node in range(8):
        way, place = ("down", 3 - node) if node < 4 else ("up", node - 4)
        theirs, ours = rf"fpn\.cell\.(\d)\.fnode\.{node}", rf"neck.cells.\1.{way}.{place}"
        yield rf"{theirs}\.combine\.edge_weights", f"{ours}.weights"
        yield rf"{theirs}\.after_combine\.conv\.conv_dw\.(.+)", rf"{ours}.conv.0.\2"
        yield rf"{theirs}\.after_combine\.conv\.conv_pw\.(.+)", rf"{ours}.conv.1.\2"
        yield rf"{theirs}\.after_combine\.conv\.bn\.(.+)", rf"{ours}.norm.\2"
        own = f"neck.cells.\\1.{way}_inputs.{place}"
        level = place if way == "down" else place + 1
        yield from conv_norm(rf"{theirs}\.combine\.resample\.{level}\.conv", own)
    for theirs, ours in (("class_net", "head.cls"), ("box_net", "head.box")):
        yield rf"{theirs}\.conv_rep\.(\d)\.conv_dw\.(.+)", rf"{ours}.convs.\1.0.\2"
        yield rf"{theirs}\.conv_rep\.(\d)\.conv_pw\.(.+)", rf"{ours}.convs.\1.1.\2"
        yield rf"{theirs}\.bn_rep\.(\d)\.(\d)\.bn\.(.+)", rf"{ours}.norms.\1.\2.\3"
        yield rf"{theirs}\.predict\.conv_dw\.(.+)", rf"{ours}.predict.0.\1"
        yield rf"{theirs}\.predict\.conv_pw\.(.+)", rf"{ours}.predict.1.\1"


def _mmdet_nas() -> Iterator[tuple[str, str]]:
    """Cells are called by the two maps that they join; deformable convolutions hold their offsets."""
    yield r"backbone\.(.+)", r"backbone.body.\1"
    yield from conv_norm(r"neck\.adapt_convs\.(\d)", r"neck.adapt.\1")
    for n, cell in enumerate(("c22_1", "c22_2", "c32", "c02", "c42", "c36", "c61")):
        theirs, ours = rf"neck\.fpn\.{cell}", f"neck.cells.{n}"
        for conv, place in (("input1_conv", "first"), ("input2_conv", "second")):
            yield rf"{theirs}\.{conv}\.conv\.conv_offset\.(.+)", rf"{ours}.{place}.0.offset.\1"
            yield rf"{theirs}\.{conv}\.conv\.(.+)", rf"{ours}.{place}.0.conv.\1"
            yield rf"{theirs}\.{conv}\.bn\.(.+)", rf"{ours}.{place}.1.\1"
        yield rf"{theirs}\.out_conv\.conv\.(.+)", rf"{ours}.join.\1"
        yield rf"{theirs}\.out_conv\.bn\.(.+)", rf"{ours}.norm.\1"
    yield r"neck\.extra_downsamples\.(\d)\.conv\.(.+)", r"neck.extras.\1.\2"
    for theirs, ours in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        for n in (0, 2):
            conv = rf"bbox_head\.{theirs}\.{n}\.conv"
            yield rf"{conv}\.conv_offset\.(.+)", rf"head.{ours}.{n}.0.offset.\1"
            yield rf"{conv}\.(.+)", rf"head.{ours}.{n}.0.conv.\1"
    yield from _MMDET_BODY
    yield from _outputs("conv_cls", "conv_reg", "conv_centerness")


RULES: dict[str, dict[str, Rules]] = {
    "mmdet": {
        "retinanet": _MMDET_BODY + _outputs("retina_cls", "retina_reg"),
        "freeanchor": _MMDET_BODY + _outputs("retina_cls", "retina_reg"),
        "fcos": _MMDET_BODY + _outputs("conv_cls", "conv_reg", "conv_centerness"),
        "atss": _MMDET_BODY + _outputs("atss_cls", "atss_reg", "atss_centerness"),
        "gfl": _MMDET_BODY + _outputs("gfl_cls", "gfl_reg"),
        "vfnet": (
            *_MMDET_BODY,
            (r"bbox_head\.vfnet_reg_conv\.conv\.(.+)", r"head.box_conv.0.\1"),
            (r"bbox_head\.vfnet_reg_conv\.gn\.(.+)", r"head.box_conv.1.\1"),
            (r"bbox_head\.vfnet_reg\.(.+)", r"head.box.\1"),
            (r"bbox_head\.vfnet_reg_refine_dconv\.(.+)", r"head.refine_star.\1"),
            (r"bbox_head\.vfnet_reg_refine\.(.+)", r"head.refine.\1"),
            (r"bbox_head\.scales_refine\.(\d)\.scale", r"head.refine_scales.\1.scale"),
            (r"bbox_head\.vfnet_cls_dconv\.(.+)", r"head.cls_star.\1"),
            (r"bbox_head\.vfnet_cls\.(.+)", r"head.cls.\1"),
        ),
        "nas_fcos": tuple(_mmdet_nas()),
        "faster_rcnn": _MMDET_REGIONS + _region_head(r"roi_head\.bbox_head", "roi_heads.0"),
        "cascade_rcnn": _MMDET_REGIONS + _region_head(r"roi_head\.bbox_head\.(\d)", r"roi_heads.\1"),
        "detr": (
            (r"backbone\.(.+)", r"backbone.body.\1"),
            (r"neck\.convs\.0\.conv\.(.+)", r"project.\1"),
            *_mmdet_layers("encoder", ("self_attn", "attention")),
            *_mmdet_layers("decoder", ("self_attn", "self_attention"), ("cross_attn", "cross_attention")),
            (r"decoder\.post_norm\.(.+)", r"norm.\1"),
            (r"query_embedding\.weight", r"queries.weight"),
            (r"bbox_head\.fc_cls\.(.+)", r"cls.\1"),
            (r"bbox_head\.reg_ffn\.layers\.0\.0\.(.+)", r"box.layers.0.\1"),
            (r"bbox_head\.reg_ffn\.layers\.1\.(.+)", r"box.layers.1.\1"),
            (r"bbox_head\.fc_reg\.(.+)", r"box.layers.2.\1"),
        ),
        "ssd": (
            (r"backbone\.features\.(.+)", r"backbone.features.\1"),
            (r"neck\.l2_norm\.weight", r"neck.l2_norm.weight"),
            (r"neck\.extra_layers\.(\d)\.([01])\.conv\.(.+)", r"neck.extras.\1.\2.0.\3"),
            (r"bbox_head\.cls_convs\.(\d)\.0\.(.+)", r"head.cls.\1.\2"),
            (r"bbox_head\.reg_convs\.(\d)\.0\.(.+)", r"head.box.\1.\2"),
        ),
        "yolov3": (
            *conv_norm(r"backbone\.conv1", "backbone.stem"),
            *numbered(r"backbone\.conv_res_block#\.conv", "backbone.stages.#.0", 5),
            *numbered(r"backbone\.conv_res_block#\.res(\d)\.conv1", r"backbone.stages.#.1.\1.reduce", 5),
            *numbered(r"backbone\.conv_res_block#\.res(\d)\.conv2", r"backbone.stages.#.1.\1.conv", 5),
            *numbered(r"neck\.conv#", "neck.reduce.#", 2),
            *(
                rule
                for n in range(3)
                for rule in numbered(rf"neck\.detect{n + 1}\.conv#", f"neck.levels.{n}.#", 5)
            ),
            *conv_norm(r"bbox_head\.convs_bridge\.(\d)", r"head.bridge.\1"),
            (r"bbox_head\.convs_pred\.(\d)\.(.+)", r"head.predict.\1.\2"),
        ),
        "yolox": MMDET_YOLOX,
    },
}
_TORCHVISION_BODY: Rules = (
    (r"backbone\.body\.(.+)", r"backbone.body.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.(.+)", r"neck.laterals.\1.0.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.(.+)", r"neck.outputs.\1.0.\2"),
    (r"backbone\.fpn\.extra_blocks\.p6\.(.+)", r"neck.extras.0.0.\1"),
    (r"backbone\.fpn\.extra_blocks\.p7\.(.+)", r"neck.extras.1.0.\1"),
    (r"head\.classification_head\.cls_logits\.(.+)", r"head.cls.\1"),
    (r"head\.regression_head\.bbox_reg\.(.+)", r"head.box.\1"),
)
_TORCHVISION_TOWERS = (("classification_head", "cls_tower"), ("regression_head", "box_tower"))
RULES["torchvision"] = {
    "retinanet": (
        *_TORCHVISION_BODY,
        *(
            (rf"head\.{theirs}\.conv\.(\d)\.([01])\.(.+)", rf"head.{ours}.\1.\2.\3")
            for theirs, ours in _TORCHVISION_TOWERS
        ),
    ),
    "fcos": (
        *_TORCHVISION_BODY,
        # Convolution, norm and activation of each step stand in one row there.
        *(
            (rf"head\.{theirs}\.conv\.{3 * n + k}\.(.+)", rf"head.{ours}.{n}.{k}.\1")
            for theirs, ours in _TORCHVISION_TOWERS
            for n in range(4)
            for k in range(2)
        ),
        (r"head\.regression_head\.bbox_ctrness\.(.+)", r"head.quality.\1"),
    ),
    "faster_rcnn": (
        *_TORCHVISION_BODY,
        (r"rpn\.head\.conv\.0\.0\.(.+)", r"rpn_head.conv.\1"),
        (r"rpn\.head\.cls_logits\.(.+)", r"rpn_head.objectness.\1"),
        (r"rpn\.head\.bbox_pred\.(.+)", r"rpn_head.box.\1"),
        (r"roi_heads\.box_head\.fc6\.(.+)", r"roi_heads.0.fc1.\1"),
        (r"roi_heads\.box_head\.fc7\.(.+)", r"roi_heads.0.fc2.\1"),
        (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"roi_heads.0.cls.\1"),
        (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"roi_heads.0.box.\1"),
    ),
    "ssd": (
        (r"backbone\.scale_weight", r"neck.l2_norm.weight"),
        (r"backbone\.features\.(.+)", r"backbone.features.\1"),
        # conv5 after the pooling, then the two convolutions that were fully connected.
        *((rf"backbone\.extra\.0\.{n}\.(.+)", rf"backbone.features.{n + 23}.\1") for n in (1, 3, 5)),
        *((rf"backbone\.extra\.0\.7\.{n}\.(.+)", rf"backbone.features.{n + 30}.\1") for n in (1, 3)),
        *(
            (rf"backbone\.extra\.{n + 1}\.{2 * k}\.(.+)", rf"neck.extras.{n}.{k}.0.\1")
            for n in range(4)
            for k in range(2)
        ),
        (r"head\.classification_head\.module_list\.(\d)\.(.+)", r"head.cls.\1.\2"),
        (r"head\.regression_head\.module_list\.(\d)\.(.+)", r"head.box.\1.\2"),
    ),
}
RULES["effdet"] = {"efficientdet": tuple(_effdet_rules())}
RULES["transformers"] = {"rtdetr": sets.RTDETR, "dfine": sets.DFINE, "detr": sets.DETR}
RULES["detr"] = {"detr": sets.DETR}
RULES["rtdetr"], RULES["dfine"] = {"rtdetr": sets.RTDETR}, {"dfine": sets.DFINE}
RULES["yolox"] = {"yolox": YOLOX}
# A classifier: its body alone. Stages in a list have an underscore where maps are taken of them.
_TIMM: Rules = (
    (r"(stem|stages|features|layers)\.(\d+)\.(.+)", r"backbone.body.\1_\2.\3"),
    (r"(.+)", r"backbone.body.\1"),
)
RULES["timm"] = dict.fromkeys(DETECTORS, _TIMM)  # those with a backbone of their own have no place for it
# Constants that a model makes itself.
IGNORED = {
    "mmdet": (r"bbox_head\.integral\.project", r".*\.num_batches_tracked"),
    "torchvision": (r".*\.num_batches_tracked",),
    "effdet": (r".*\.num_batches_tracked", r"anchors\.boxes"),
    "transformers": sets.IGNORED,
    "rtdetr": sets.IGNORED,
    "dfine": sets.IGNORED,
    "detr": sets.IGNORED,
    "yolox": (r".*\.num_batches_tracked",),
    "timm": (r".*\.num_batches_tracked", r"(fc|classifier|head|conv_head|norm_head)\..+"),
}
# What is done to all tensors before they are renamed.
PREPARED = {"transformers": sets.prepared, "detr": sets.prepared}


def _background_last(name: str, tensor: Tensor, model: nn.Module) -> Tensor:
    """torchvision's background is the first class of each anchor, ours the last."""
    if not name.startswith("head.cls."):
        return tensor
    classes = int(model.get_submodule("head").num_classes) + 1  # pyright: ignore[reportArgumentType]
    return tensor.unflatten(0, (-1, classes)).roll(-1, dims=1).flatten(0, 1)


def _regions_background_last(name: str, tensor: Tensor, model: nn.Module) -> Tensor:
    """torchvision's background is a region's first class, with a box; ours the last, without."""
    if name.startswith("roi_heads.0.cls."):
        return tensor.roll(-1, dims=0)
    return tensor[4:] if name.startswith("roi_heads.0.box.") else tensor


def _x_first(name: str, tensor: Tensor, model: nn.Module) -> Tensor:
    """effdet's boxes are y, x, height, width; ours x, y, width, height."""
    if not name.startswith("head.box.predict.1."):
        return tensor
    return tensor.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


# What is done to a tensor of our name beside the renaming.
RESHAPED = {
    ("torchvision", "ssd"): _background_last,
    ("torchvision", "faster_rcnn"): _regions_background_last,
    ("effdet", "efficientdet"): _x_first,
}
