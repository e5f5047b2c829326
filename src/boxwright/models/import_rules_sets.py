"""How the tensors of set predictors are called here: the originals' (D-FINE, RT-DETR) and transformers'.

Both call the same parts by names that differ little, so that one set of rules knows all of them.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from boxwright.models.import_patterns import Rules

_CONV, _NORM = r"(?:conv|convolution|0)", r"(?:norm|normalization|bn|1)"
_IN, _OUT = r"(?:mlp\.layers\.0|mlp\.fc1|fc1|linear1)", r"(?:mlp\.layers\.1|mlp\.fc2|fc2|linear2)"
IGNORED = (
    r".*\.num_batches_tracked",
    r".*\.n(?:um)?_points_scale",
    r"(?:decoder\.)*(?:anchors|valid_mask|up|reg_scale|integral\.project)",
)


def prepared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without their prefix; projections of queries, keys and values as one tensor."""
    state = {n.removeprefix("model.").removeprefix("transformer."): tensor for n, tensor in state.items()}
    joined: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, _, kind = name.rpartition(".")
        if not part.endswith(("q_proj", "k_proj", "v_proj")):
            joined[name.replace("self_attn.o_proj", "self_attn.out_proj")] = tensor
        elif part.endswith("q_proj"):
            attention = part.removesuffix("q_proj")
            others = [state.get(f"{attention}{other}_proj.{kind}") for other in "kv"]
            whole = [tensor, *(other for other in others if other is not None)]
            joined[f"{attention}in_proj_{kind}"] = torch.cat(whole)
    return joined


def _conv_norm(theirs: str, ours: str, norm: str = "1") -> Rules:
    rest = re.compile(theirs).groups + 1
    return (
        (rf"{theirs}\.{_CONV}\.(weight)", rf"{ours}.0.\{rest}"),
        (rf"{theirs}\.{_NORM}\.(\w+)", rf"{ours}.{norm}.\{rest}"),
    )


def _csp(theirs: str, ours: str) -> Rules:
    block = re.compile(theirs).groups + 1
    return (
        *_conv_norm(rf"{theirs}\.conv1", f"{ours}.main"),
        *_conv_norm(rf"{theirs}\.conv2", f"{ours}.past"),
        *_conv_norm(rf"{theirs}\.conv3", f"{ours}.join"),
        *_conv_norm(rf"{theirs}\.bottlenecks\.(\d)\.conv1", rf"{ours}.blocks.\{block}.wide"),
        *_conv_norm(rf"{theirs}\.bottlenecks\.(\d)\.conv2", rf"{ours}.blocks.\{block}.narrow"),
    )


def _resnet() -> Iterator[tuple[str, str]]:
    """A ResNet-vd as timm has it."""
    body = "backbone.body"
    for n, (conv, norm) in enumerate((("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))):
        theirs = rf"backbone\.(?:model\.embedder\.embedder\.{n}|conv1\.conv1_{n + 1})"
        yield rf"{theirs}\.{_CONV}\.(weight)", rf"{body}.{conv}.\1"
        yield rf"{theirs}\.{_NORM}\.(\w+)", rf"{body}.{norm}.\1"
    for stage in range(4):
        block = rf"backbone\.(?:model\.encoder\.stages\.{stage}\.layers|res_layers\.{stage}\.blocks)\.(\d+)"
        ours = rf"{body}.layer{stage + 1}.\1"
        for n, letter in enumerate("abc"):
            theirs = rf"{block}\.(?:layer\.{n}|branch2{letter})"
            yield rf"{theirs}\.{_CONV}\.(weight)", rf"{ours}.conv{n + 1}.\2"
            yield rf"{theirs}\.{_NORM}\.(\w+)", rf"{ours}.bn{n + 1}.\2"
        shortcut = rf"{block}\.(?:shortcut(?:\.1)?|short(?:\.conv)?)"
        yield rf"{shortcut}\.{_CONV}\.(weight)", rf"{ours}.downsample.1.\2"
        yield rf"{shortcut}\.{_NORM}\.(\w+)", rf"{ours}.downsample.2.\2"


def _hgnet() -> Iterator[tuple[str, str]]:
    """An HGNetV2 as timm has it."""
    stem, stage = (
        r"backbone\.(?:model\.embedder|stem)\.(\w+)",
        r"backbone\.(?:model\.encoder\.)?stages\.(\d)\.(.+)",
    )
    for theirs, ours in ((_CONV, "conv"), (_NORM, "bn"), ("lab", "lab")):
        yield rf"{stem}\.{theirs}\.(\w+)", rf"backbone.body.stem.\1.{ours}.\2"
        yield rf"{stage}\.{theirs}\.(\w+)", rf"backbone.body.stages_\1.\2.{ours}.\3"


def _encoder() -> Iterator[tuple[str, str]]:
    """What RT-DETR's and D-FINE's hybrid encoders have in common."""
    yield from _conv_norm(r"encoder[._]input_proj\.(\d)", r"neck.project.\1")
    layer = r"encoder\.(?:aifi|encoder)\.0\.layers\.0"
    yield rf"{layer}\.self_attn\.(.+)", r"neck.attention.attention.\1"
    yield rf"{layer}\.{_IN}\.(\w+)", r"neck.attention.mlp.layers.0.\1"
    yield rf"{layer}\.{_OUT}\.(\w+)", r"neck.attention.mlp.layers.1.\1"
    yield rf"{layer}\.(?:self_attn_layer_norm|norm1)\.(\w+)", r"neck.attention.norm1.\1"
    yield rf"{layer}\.(?:final_layer_norm|norm2)\.(\w+)", r"neck.attention.norm2.\1"
    yield from _conv_norm(r"encoder\.lateral_convs\.(\d)", r"neck.laterals.\1")


def _decoder(boxes: str) -> Iterator[tuple[str, str]]:
    """What their decoders have in common; `boxes` is our name of the heads that predict boxes."""
    yield from _conv_norm(r"decoder[._]input_proj\.(\d)", r"project.\1")
    yield r"(?:decoder\.)?denoising_class_embed\.(weight)", r"noisy.embed.\1"
    yield r"(?:decoder\.)?enc_output\.(?:0|proj)\.(\w+)", r"select.project.\1"
    yield r"(?:decoder\.)?enc_output\.(?:1|norm)\.(\w+)", r"select.norm.\1"
    yield r"(?:decoder\.)?enc_score_head\.(\w+)", r"select.cls.\1"
    yield r"(?:decoder\.)?enc_bbox_head\.(.+)", r"select.box.\1"
    yield r"decoder\.query_pos_head\.(.+)", r"decoder.positions.\1"
    yield r"(?:decoder\.)?(?:class_embed|dec_score_head)\.(.+)", r"decoder.cls.\1"
    yield r"(?:decoder\.)?(?:bbox_embed|dec_bbox_head)\.(.+)", rf"decoder.{boxes}.\1"
    layer, ours = r"decoder\.(?:decoder\.)?layers\.(\d)", r"decoder.layers.\1"
    attention = rf"{layer}\.(?:encoder_attn|cross_attn)"
    yield rf"{layer}\.self_attn\.(.+)", rf"{ours}.self_attention.\2"
    yield rf"{attention}\.sampling_offsets\.(\w+)", rf"{ours}.cross_attention.offsets.\2"
    yield rf"{attention}\.attention_weights\.(\w+)", rf"{ours}.cross_attention.weights.\2"
    yield rf"{attention}\.value_proj\.(\w+)", rf"{ours}.value.\2"
    yield rf"{attention}\.output_proj\.(\w+)", rf"{ours}.read.\2"
    yield rf"{layer}\.gateway\.gate\.(\w+)", rf"{ours}.gate.\2"
    yield rf"{layer}\.{_IN}\.(\w+)", rf"{ours}.mlp.layers.0.\2"
    yield rf"{layer}\.{_OUT}\.(\w+)", rf"{ours}.mlp.layers.1.\2"
    yield rf"{layer}\.(?:self_attn_layer_norm|norm1)\.(\w+)", rf"{ours}.norm1.\2"
    yield rf"{layer}\.(?:encoder_attn_layer_norm|gateway\.norm|norm2)\.(\w+)", rf"{ours}.norm2.\2"
    yield rf"{layer}\.(?:final_layer_norm|norm3)\.(\w+)", rf"{ours}.norm3.\2"


def _rtdetr() -> Iterator[tuple[str, str]]:
    yield from _resnet()
    yield from _encoder()
    yield from _conv_norm(r"encoder\.downsample_convs\.(\d)", r"neck.halves.\1")
    for theirs, ours in (("fpn_blocks", "down"), ("pan_blocks", "up")):
        yield from _csp(rf"encoder\.{theirs}\.(\d)", rf"neck.{ours}.\1")
    yield from _decoder("box")


def _dfine() -> Iterator[tuple[str, str]]:
    yield from _hgnet()
    yield from _encoder()
    halves = r"encoder\.downsample_convs\.(\d)(?:\.0)?"
    yield from _conv_norm(rf"{halves}\.(?:conv1|cv1)", r"neck.halves.\1.0")
    yield rf"{halves}\.(?:conv2|cv2)\.conv\.(weight)", r"neck.halves.\1.1.\2"
    yield rf"{halves}\.(?:conv2|cv2)\.norm\.(\w+)", r"neck.halves.\1.2.\2"
    for theirs, ours in (("fpn_blocks", "down"), ("pan_blocks", "up")):
        block, mine = rf"encoder\.{theirs}\.(\d)", rf"neck.{ours}.\1"
        yield from _conv_norm(rf"{block}\.(?:conv1|cv1)", f"{mine}.split")
        yield from _csp(rf"{block}\.(?:csp_rep1|cv2\.0)", f"{mine}.chains.0.0")
        yield from _conv_norm(rf"{block}\.(?:conv2|cv2\.1)", f"{mine}.chains.0.1")
        yield from _csp(rf"{block}\.(?:csp_rep2|cv3\.0)", f"{mine}.chains.1.0")
        yield from _conv_norm(rf"{block}\.(?:conv3|cv3\.1)", f"{mine}.chains.1.1")
        yield from _conv_norm(rf"{block}\.(?:conv4|cv4)", f"{mine}.join")
    yield r"decoder\.pre_bbox_head\.(.+)", r"decoder.first_box.\1"
    yield r"decoder\.(?:decoder\.)?lqe_layers\.(\d)\.reg_conf\.(.+)", r"decoder.quality.\1.\2"
    yield from _decoder("sides")


def _detr() -> Iterator[tuple[str, str]]:
    """DETR's own names, transformers' and those that transformers had before version 5."""
    yield r"backbone\.(?:0\.body|model|conv_encoder\.model)\.(.+)", r"backbone.body.\1"
    yield r"(?:input_projection|input_proj)\.(.+)", r"project.\1"
    yield r"(?:query_position_embeddings|query_embed)\.weight", "queries.weight"
    yield r"(?:class_labels_classifier|class_embed)\.(.+)", r"cls.\1"
    yield r"(?:bbox_predictor|bbox_embed)\.layers\.(\d)\.(.+)", r"box.layers.\1.\2"
    yield r"decoder\.(?:layernorm|norm)\.(.+)", r"norm.\1"
    first, second = r"(?:self_attn_layer_norm|norm1)", r"(?:encoder_attn_layer_norm|norm2)"
    crossing = r"(?:encoder_attn|multihead_attn)"
    for part, attention, last, norm in (
        ("encoder", "attention", r"(?:final_layer_norm|norm2)", "norm2"),
        ("decoder", "self_attention", r"(?:final_layer_norm|norm3)", "norm3"),
    ):
        theirs, ours = rf"{part}\.layers\.(\d+)", rf"{part}.\1"
        yield rf"{theirs}\.self_attn\.(?:o_proj|out_proj)\.(.+)", rf"{ours}.{attention}.out_proj.\2"
        yield rf"{theirs}\.self_attn\.(in_proj_.+)", rf"{ours}.{attention}.\2"
        yield rf"{theirs}\.{crossing}\.(?:o_proj|out_proj)\.(.+)", rf"{ours}.cross_attention.out_proj.\2"
        yield rf"{theirs}\.{crossing}\.(in_proj_.+)", rf"{ours}.cross_attention.\2"
        yield rf"{theirs}\.{_IN}\.(.+)", rf"{ours}.mlp.layers.0.\2"
        yield rf"{theirs}\.{_OUT}\.(.+)", rf"{ours}.mlp.layers.1.\2"
        yield rf"{theirs}\.{first}\.(.+)", rf"{ours}.norm1.\2"
        yield rf"{theirs}\.{last}\.(.+)", rf"{ours}.{norm}.\2"
        if part == "decoder":
            yield rf"{theirs}\.{second}\.(.+)", rf"{ours}.norm2.\2"


RTDETR, DFINE, DETR = tuple(_rtdetr()), tuple(_dfine()), tuple(_detr())
