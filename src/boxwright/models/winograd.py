"""3 x 3 convolutions with a quarter of the products, for a runtime whose own have all of them.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016), section 4.3: F(4 x 4, 3 x 3). A
tile of 6 x 6 values and the kernel are each transformed, multiplied value by value and summed over channels,
36 products instead of 144, and transformed back to 4 x 4 values. All three transforms are products with small
matrices, and so is the sum, as long as the channels come last.
"""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

STEP, REACH = 4, 6  # values that a tile gives and reads along a side
LEAST_CHANNELS = 64  # with fewer the transforms cost more than the products spared
LEAST_SIDE = 16  # on smaller maps the transformed kernels, four times as large, do
# With fewer channels than these, and more places, tiles don't stay in a processor's cache.
MANY_CHANNELS, MANY_PLACES = 96, 80 * 80
OF_TILE = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
BACK = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def with_winograd(model: Model) -> Model:
    """A copy with the same weights, whose convolutions are `WinogradConv` where that takes less time."""
    faster = copy.deepcopy(
        model, {id(weight): weight for weight in model.state_dict(keep_vars=True).values()}
    )
    for parent in list(faster.modules()):
        for name, child in list(parent._modules.items()):  # one that has two names has them both
            if type(child) is nn.Conv2d and _pays(child):
                setattr(parent, name, WinogradConv(child))
    return faster


def _pays(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    plain = shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return plain and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS


class WinogradConv(nn.Conv2d):
    """What a 3 x 3 convolution of stride 1 with padding gives, to about 1e-5 of the greatest output.

    A graph is made for maps of one size. Those on which it wouldn't pay are convolved as usual.
    """

    of_kernel: Tensor  # (36, 9)
    of_tile: Tensor  # (36, 36)
    back: Tensor  # (16, 36)

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight = conv.weight
        self.bias = conv.bias
        for name, rows in (("of_kernel", OF_KERNEL), ("of_tile", OF_TILE), ("back", BACK)):
            side = torch.tensor(rows, dtype=torch.float64)
            self.register_buffer(name, torch.kron(side, side).to(conv.weight))

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        height, width = (int(side) for side in input.shape[2:])
        few = min(self.in_channels, self.out_channels) < MANY_CHANNELS
        if min(height, width) < LEAST_SIDE or (few and height * width > MANY_PLACES):
            return super().forward(input)
        down, across = -(-height // STEP), -(-width // STEP)
        pixels = input.permute(2, 3, 0, 1).reshape(height * width, -1, self.in_channels)
        # One more, of zeros, is what a tile reads beyond the border.
        tiles = F.pad(pixels, (0, 0, 0, 0, 0, 1))[_places(height, width).flatten()]
        tiles = (self.of_tile @ tiles.reshape(REACH**2, -1)).reshape(REACH**2, -1, self.in_channels)
        # Of weights alone, so that a runtime computes it once.
        kernels = self.of_kernel @ self.weight.permute(2, 3, 1, 0).reshape(9, -1)
        products = tiles @ kernels.reshape(REACH**2, self.in_channels, self.out_channels)
        found = self.back @ products.reshape(REACH**2, -1)
        found = found.reshape(STEP, STEP, down, across, -1, self.out_channels).permute(2, 0, 3, 1, 4, 5)
        found = found.reshape(STEP * down, STEP * across, -1, self.out_channels)[:height, :width]
        return (found if self.bias is None else found + self.bias).permute(2, 3, 0, 1)


def _places(height: int, width: int) -> Tensor:
    """(36, tiles) places in a map laid out row by row, H·W for those outside of it."""
    rows, columns = (
        torch.arange(REACH)[:, None] - 1 + STEP * torch.arange(-(-side // STEP)) for side in (height, width)
    )
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None]
    places = rows[:, None, :, None] * width + columns[:, None]
    return torch.where(inside, places, height * width).reshape(REACH**2, -1)
