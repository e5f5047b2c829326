"""VGG16 as SSD uses it: the fully connected layers made convolutions, one of them dilated."""

from torch import Tensor, nn

# Channels of the convolutions; "pool" halves. Simonyan and Zisserman, VGG, ICLR 2015, configuration D.
LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)
CONV4_3, FC7 = 22, 34  # layers whose outputs are the maps


class VGG16(nn.Module):
    """Maps of strides 8 (conv4_3) and 16 (fc7).

    Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, section 3. Layers are numbered as in the
    original, so that its weights fit.

    Args:
        width: factor on the channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.channels = [int(512 * width), int(1024 * width)]
        layers: list[nn.Module] = []
        channels = 3
        for layer in LAYERS:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            else:
                out = int(layer * width)
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
        last = self.channels[1]
        layers += [nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(channels, last, 3, padding=6, dilation=6)]
        layers += [nn.ReLU(inplace=True), nn.Conv2d(last, last, 1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for n, layer in enumerate(self.features):
            images = layer(images)
            if n in (CONV4_3, FC7):
                maps.append(images)
        return maps
