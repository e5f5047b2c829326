"""Any timm backbone by name."""

import logging

import timm
from timm.models._features import FeatureInfo, FeatureListNet
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from boxwright.errors import ConfigError, nearest
from boxwright.models.backbones.affine import lighten
from boxwright.models.layers import make_norm

logger = logging.getLogger(__name__)


class TimmBackbone(nn.Module):
    """Maps of a timm model at the wanted strides.

    Args:
        name: of a timm model, "resnet18" for one.
        pretrained: load the hub's weights. Where the hub can't be reached a warning says so and the
            start is random.
        strides: of the maps wanted.
        frozen_stages: the stem (1) and this many maps' stages in all get no gradient; 0: none.
        norm: "batch" as built, or "group" to replace it.
        norm_eval: batch norms keep the statistics they came with.
        attention: "se" or "cbam" in every block of a ResNet (Hu et al., Squeeze-and-Excitation Networks, CVPR
            2018; Woo et al., CBAM, ECCV 2018); "none".
        output_stride: of the last stage; below 32 its convolutions are dilated instead.
        drop_path: share of residual branches left out in training, rising to it (stochastic depth).
        style: "caffe" halves a ResNet's maps in the first convolution of a bottleneck, as Detectron's weights
            want it, "pytorch" in the second; "paddle" is this with a convolution in the shortcut of the first
            block, as RT-DETR's weights want it.

    Raises:
        ConfigError: timm has no such model, or it has no maps of these strides, or no bottlenecks.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        strides: tuple[int, ...] = (8, 16, 32),
        frozen_stages: int = 0,
        norm: str = "batch",
        norm_eval: bool = False,
        style: str = "pytorch",
        attention: str = "none",
        drop_path: float = 0.0,
        output_stride: int = 32,
    ):
        super().__init__()
        if not timm.is_model(name):
            raise ConfigError(f"timm has no model '{name}'. {nearest(name, timm.list_models())[:300]}")
        options: dict = {"output_stride": output_stride} if output_stride != 32 else {}
        reductions = _feature_info(timm.create_model(name, features_only=True, **options)).reduction()
        missing = [s for s in strides if s not in reductions]
        if missing:
            raise ConfigError(f"{name} has maps of strides {reductions}, none of {missing}.")
        # The last map of each stride.
        options["out_indices"] = [len(reductions) - 1 - reductions[::-1].index(s) for s in strides]
        if attention != "none":
            if not name.startswith(("resnet", "resnext")):
                raise ConfigError(f"attention is '{attention}': only ResNets have it, not {name}.")
            options["block_args"] = {"attn_layer": attention}
        if drop_path:
            options["drop_path_rate"] = drop_path
        self.body = _create(name, pretrained, options)
        _pool_before_relu(self.body)
        lighten(self.body)
        self.channels = _feature_info(self.body).channels()
        self.strides = strides
        self.norm_eval = norm_eval
        if style == "caffe":
            _stride_first(self.body, name)
        if style == "paddle":
            _project_first(self.body)
        if norm == "group":
            _replace_batch_norms(self.body)
        self.frozen = _first_stages(self.body, frozen_stages)
        for module in self.frozen:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.body(images)

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Train, but for what is frozen and, with `norm_eval`, the batch norms."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def _create(name: str, pretrained: bool, options: dict) -> nn.Module:
    if pretrained:
        try:
            return timm.create_model(name, pretrained=True, features_only=True, **options)
        except (OSError, RuntimeError, ValueError) as error:
            # timm and the hub raise whatever their HTTP client does; these are their common parents.
            logger.warning("no pretrained weights for %s (%s); it starts from random ones.", name, error)
    return timm.create_model(name, features_only=True, **options)


def _pool_before_relu(body: nn.Module) -> None:
    """A ResNet's stem pools before its ReLU, which then sees a quarter: the same map and gradients."""
    if not isinstance(body, FeatureListNet) or "act1" in body.return_layers:
        return
    layers = dict(body.items())
    if isinstance(layers.get("act1"), nn.ReLU) and isinstance(layers.get("maxpool"), nn.MaxPool2d):
        names = [{"act1": "maxpool", "maxpool": "act1"}.get(name, name) for name in layers]
        body.clear()
        body.update({name: layers[name] for name in names})


def _stride_first(body: nn.Module, name: str) -> None:
    blocks = [m for m in body.modules() if isinstance(m, Bottleneck)]
    if not blocks:
        raise ConfigError(f"{name} has no bottlenecks, so there is no caffe style of it.")
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _project_first(body: nn.Module) -> None:
    block = body.get_submodule("layer1.0")
    if block.downsample is None:
        channels = body.get_submodule("layer1.0.conv1").in_channels
        assert isinstance(channels, int)
        # Its first layer would be the pooling of one that halves.
        conv = nn.Conv2d(channels, channels, 1, bias=False)
        block.downsample = nn.Sequential(nn.Identity(), conv, nn.BatchNorm2d(channels))


def _feature_info(body: nn.Module) -> FeatureInfo:
    info = body.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def _replace_batch_norms(root: nn.Module) -> None:
    for name, child in root.named_children():
        if isinstance(child, nn.BatchNorm2d):
            # timm's fused norms carry their activation along.
            activation = getattr(child, "act", None)
            group = make_norm("group", child.num_features)
            setattr(root, name, nn.Sequential(group, activation) if activation else group)
        else:
            _replace_batch_norms(child)


def _first_stages(body: nn.Module, count: int) -> list[nn.Module]:
    """Every layer up to the end of the `count`-th map, the stem's being the first."""
    if count == 0:
        return []
    ends = [info["module"].replace(".", "_") for info in _feature_info(body).info]
    if count > len(ends):
        raise ConfigError(f"frozen_stages is {count}, the backbone has {len(ends)} stages.")
    layers = [
        (name.replace(".", "_"), module)
        for name, module in body.named_modules()
        if not list(module.children())
    ]
    end = ends[count - 1]
    last = max(n for n, (name, _) in enumerate(layers) if f"{name}_".startswith(f"{end}_"))
    return [module for _, module in layers[: last + 1]]
