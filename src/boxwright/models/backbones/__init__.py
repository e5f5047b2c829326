"""Backbones: images (B, 3, H, W) to maps of rising stride. Each states its `channels` and `strides`."""
