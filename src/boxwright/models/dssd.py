"""DSSD: SSD on a residual network, with a way back up to the fine maps.

Fu et al., DSSD: Deconvolutional Single Shot Detector, 2017.
"""

import torch
from torch import Tensor, nn

from boxwright.config.models import DSSDConfig
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.detections import Selection
from boxwright.models.layers import ConvNorm, Normalize
from boxwright.models.necks.dssd import DSSDNeck
from boxwright.models.ssd import SSD, SSDHead, make_ssd_anchors

# By input size: (stride, padding) of the further maps, strides of all, and the first map's least and greatest
# side in hundredths of the input.
LAYOUTS = {
    320: (((2, 1), (2, 1), (2, 1), (1, 0)), (8, 16, 32, 64, 320 / 3, 320), (7, 15)),
    512: (((2, 1),) * 5, (8, 16, 32, 64, 128, 256, 512), (4, 10)),
}
RATIOS = (1.6, 2.0, 3.0)  # beside 1, of every map; section 3.2, table 2
WIDEN = 4  # times the channels after a prediction module


class DSSDHead(nn.Module):
    """A residual block before each map's predictions; figure 2, variant (c).

    Args:
        channels: of the pyramid.
        counts: anchors a location of each map.
        num_classes: categories.
    """

    def __init__(self, channels: int, counts: list[int], num_classes: int):
        super().__init__()
        wide = WIDEN * channels
        self.main = nn.ModuleList(
            nn.Sequential(
                ConvNorm(channels, channels, 1), ConvNorm(channels, channels, 1),
                ConvNorm(channels, wide, 1, activation=None),
            )
            for _ in counts
        )  # fmt: skip
        self.past = nn.ModuleList(ConvNorm(channels, wide, 1, activation=None) for _ in counts)
        self.predict = SSDHead([wide] * len(counts), counts, num_classes)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, A, C + 1) and deltas (B, A, 4)."""
        return self.predict(
            [torch.relu(main(f) + past(f)) for main, past, f in zip(self.main, self.past, pyramid)]
        )


class DSSD(SSD):
    """See the module's docstring; made by `from_config`, run, trained and decoded as SSD."""

    @classmethod
    def from_config(cls, config: DSSDConfig, num_classes: int) -> "DSSD":
        """Build the parts that a checked config describes."""
        extra, strides, first = LAYOUTS[config.input_size]
        base_anchors = make_ssd_anchors(config.input_size, strides, (RATIOS,) * len(strides), first)
        # The last stage keeps the resolution and widens the receptive field instead; section 3.1.
        backbone = TimmBackbone(**config.backbone.model_dump(), strides=(8, 16), output_stride=16)
        return cls(
            Normalize(),
            backbone,
            DSSDNeck(backbone.channels, config.channels, extra),
            DSSDHead(config.channels, [len(b) for b in base_anchors], num_classes),
            strides,
            base_anchors,
            config.negatives,
            Selection(**config.selection.model_dump()),
            config.input_size,
        )
