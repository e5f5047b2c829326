"""Heads: towers of convolutions that all levels of a pyramid share."""
