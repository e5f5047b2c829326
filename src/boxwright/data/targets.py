"""What a batch carries: images, and padded targets with masks."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.data.tables import LANDMARKS
from boxwright.data.transforms import PAD_VALUE


@dataclass(frozen=True)
class Targets:
    """Truth of a batch of B images, padded to the G boxes of the fullest.

    Attributes:
        boxes: (B, G, 4) xyxy float32, pixels of the network's input; of oriented boxes the upright hulls of
            what is inside the image.
        labels: (B, G) int64.
        mask: (B, G) bool, objects to find; False for padding and for ignore regions.
        ignore: (B, G) bool, regions that are neither object nor background.
        rotated: (B, G, 5) cx, cy, w, h, angle float32; of boxes without an angle `boxes`, with angle 0.
        oriented: (B, G) bool, boxes that have an angle.
        landmarks: (B, G, LANDMARKS, 2) x, y float32, pixels; NaN where a box has none.
        any_ignored: False where `ignore` is known to be empty, which spares every step a search for them.
    """

    boxes: Tensor
    labels: Tensor
    mask: Tensor
    ignore: Tensor
    rotated: Tensor
    oriented: Tensor
    landmarks: Tensor
    any_ignored: bool = True

    @classmethod
    def upright(
        cls, boxes: Tensor, labels: Tensor, mask: Tensor, ignore: Tensor, any_ignored: bool = True
    ) -> "Targets":
        """Of boxes without angles or landmarks."""
        size = boxes[..., 2:] - boxes[..., :2]
        rotated = torch.cat([boxes[..., :2] + size / 2, size, torch.zeros_like(size[..., :1])], dim=-1)
        landmarks = boxes.new_full((*mask.shape, LANDMARKS, 2), torch.nan)
        return cls(boxes, labels, mask, ignore, rotated, torch.zeros_like(mask), landmarks, any_ignored)

    def to(self, device: torch.device) -> "Targets":
        """The same on another device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{n: t.to(device, non_blocking=True) for n, t in tensors.items()})

    def scaled(self, x: float, y: float) -> "Targets":
        """The truth of images that were resized by these factors, equal but for rounding to whole pixels."""
        point = self.boxes.new_tensor([x, y])
        mean = self.boxes.new_full((2,), (x * y) ** 0.5)  # an oriented box stays a rectangle
        sides = torch.where(self.oriented[..., None], mean, point)
        at, size, angle = self.rotated.split((2, 2, 1), dim=-1)
        return replace(
            self,
            boxes=self.boxes * point.repeat(2),
            rotated=torch.cat([at * point, size * sides, angle], dim=-1),
            landmarks=self.landmarks * point,
        )


@dataclass(frozen=True)
class Batch:
    """Images and targets of one step.

    Attributes:
        images: (B, 3, H, W) uint8 RGB, padded to the stride.
        sizes: (B, 2) float32, width and height of the content within the padding.
        targets: their truth.
        indices: (B,) int64, rows of the image table.
        matrices: (B, 2, 3) float64, original pixels to input pixels.
    """

    images: Tensor
    sizes: Tensor
    targets: Targets
    indices: Tensor
    matrices: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Images, sizes and targets on another device; indices and matrices stay."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
            targets=self.targets.to(device),
        )

    def scaled(self, factor: float, stride: int, least: int) -> "Batch":
        """The same in another size, padded to a multiple of `stride` from `least` on."""
        old = self.images.shape[-2:]
        new = [max(1, round(side * factor)) for side in old]
        y, x = (n / o for n, o in zip(new, old))
        # A processor resizes bytes ten times as fast as numbers, a GPU takes numbers alone.
        images = self.images if self.images.device.type == "cpu" else self.images.float()
        # Areas are averaged when shrinking, as where images are read.
        resized = F.interpolate(images, new, mode="bilinear", antialias=factor < 1)
        height, width = new
        right, bottom = (-(-max(side, least) // stride) * stride - side for side in (width, height))
        if resized.is_floating_point():
            resized = resized.round_().clamp_(0, 255).to(torch.uint8)
        padded = F.pad(resized, (0, right, 0, bottom), value=PAD_VALUE)
        matrices = self.matrices * self.matrices.new_tensor([[x], [y]])
        sizes = self.sizes * self.sizes.new_tensor([x, y])
        return Batch(padded, sizes, self.targets.scaled(x, y), self.indices, matrices)
