"""Backbones: images (B, 3, H, W) to maps of rising stride. Each says its `channels` and `strides`."""
