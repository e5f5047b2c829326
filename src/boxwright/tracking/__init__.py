"""A box table of a video to the same table with track ids; no model inside, no torch."""
