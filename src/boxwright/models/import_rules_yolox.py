"""How the tensors of YOLOX are called, by its authors and by MMDetection, and here."""

import re

from boxwright.models.import_patterns import Rules, conv_norm

# Their names of what is called here: both have the same parts in the same order.
Names = tuple[str, ...]
MMDET_CSP: Names = ("main_conv", "short_conv", "final_conv", "blocks")
OWN_CSP: Names = ("conv1", "conv2", "conv3", "m")


def _separable(theirs: str, ours: str) -> Rules:
    """Rules of a convolution that is one of each channel by itself, then one across them, in YOLOX-Nano."""
    return (
        *conv_norm(theirs, ours),
        *conv_norm(rf"{theirs}\.(?:depthwise_conv|dconv)", f"{ours}.0"),
        *conv_norm(rf"{theirs}\.(?:pointwise_conv|pconv)", f"{ours}.1"),
    )


def _csp(theirs: str, ours: str, names: Names) -> Rules:
    """Rules of a CSP layer."""
    block = re.compile(theirs).groups + 1  # its number's place among the groups
    main, past, join, blocks = (rf"{theirs}\.{name}" for name in names)
    return (
        *conv_norm(main, f"{ours}.main"),
        *conv_norm(past, f"{ours}.past"),
        *conv_norm(join, f"{ours}.join"),
        *conv_norm(rf"{blocks}\.(\d)\.conv1", rf"{ours}.blocks.\{block}.reduce"),
        *_separable(rf"{blocks}\.(\d)\.conv2", rf"{ours}.blocks.\{block}.conv"),
    )


def _stages(stage: str, number: int, names: Names) -> Rules:
    """Rules of the backbone, whose stages are called `stage` and a number; the last has its pooling between
    convolution and CSP layer.
    """
    first, second, third, last = stages = [f"{stage}{number + n}" for n in range(4)]
    return (
        *(
            rule
            for n, own in enumerate(stages)
            for rule in _separable(rf"{own}\.0", f"backbone.stages.{n}.0")
        ),
        *_csp(rf"{first}\.1", "backbone.stages.0.1", names),
        *_csp(rf"{second}\.1", "backbone.stages.1.1", names),
        *_csp(rf"{third}\.1", "backbone.stages.2.1", names),
        *conv_norm(rf"{last}\.1\.conv1", "backbone.stages.3.1.reduce"),
        *conv_norm(rf"{last}\.1\.conv2", "backbone.stages.3.1.join"),
        *_csp(rf"{last}\.2", "backbone.stages.3.2", names),
    )


MMDET_YOLOX: Rules = (
    *conv_norm(r"backbone\.stem\.conv", "backbone.stem"),
    *_stages(r"backbone\.stage", 1, MMDET_CSP),
    *conv_norm(r"neck\.reduce_layers\.(\d)", r"neck.reduce.\1"),
    *_csp(r"neck\.top_down_blocks\.(\d)", r"neck.down.\1", MMDET_CSP),
    *_separable(r"neck\.downsamples\.(\d)", r"neck.halve.\1"),
    *_csp(r"neck\.bottom_up_blocks\.(\d)", r"neck.up.\1", MMDET_CSP),
    *conv_norm(r"neck\.out_convs\.(\d)", r"neck.outputs.\1"),
    *_separable(r"bbox_head\.multi_level_cls_convs\.(\d)\.(\d)", r"head.cls_towers.\1.\2"),
    *_separable(r"bbox_head\.multi_level_reg_convs\.(\d)\.(\d)", r"head.box_towers.\1.\2"),
    (r"bbox_head\.multi_level_conv_cls\.(\d)\.(.+)", r"head.cls.\1.\2"),
    (r"bbox_head\.multi_level_conv_reg\.(\d)\.(.+)", r"head.box.\1.\2"),
    (r"bbox_head\.multi_level_conv_obj\.(\d)\.(.+)", r"head.objectness.\1.\2"),
)
# Its backbone and neck are one module.
YOLOX: Rules = (
    *conv_norm(r"backbone\.backbone\.stem\.conv", "backbone.stem"),
    *_stages(r"backbone\.backbone\.dark", 2, OWN_CSP),
    *conv_norm(r"backbone\.lateral_conv0", "neck.reduce.0"),
    *conv_norm(r"backbone\.reduce_conv1", "neck.reduce.1"),
    *_csp(r"backbone\.C3_p4", "neck.down.0", OWN_CSP),
    *_csp(r"backbone\.C3_p3", "neck.down.1", OWN_CSP),
    *_separable(r"backbone\.bu_conv2", "neck.halve.0"),
    *_separable(r"backbone\.bu_conv1", "neck.halve.1"),
    *_csp(r"backbone\.C3_n3", "neck.up.0", OWN_CSP),
    *_csp(r"backbone\.C3_n4", "neck.up.1", OWN_CSP),
    *conv_norm(r"head\.stems\.(\d)", r"neck.outputs.\1"),
    *_separable(r"head\.cls_convs\.(\d)\.(\d)", r"head.cls_towers.\1.\2"),
    *_separable(r"head\.reg_convs\.(\d)\.(\d)", r"head.box_towers.\1.\2"),
    (r"head\.cls_preds\.(\d)\.(.+)", r"head.cls.\1.\2"),
    (r"head\.reg_preds\.(\d)\.(.+)", r"head.box.\1.\2"),
    (r"head\.obj_preds\.(\d)\.(.+)", r"head.objectness.\1.\2"),
)
