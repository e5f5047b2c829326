"""Boxes as numbers: NumPy and Numba here, their torch twins in `torch_boxes`."""
