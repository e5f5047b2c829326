"""Classification and box losses: elementwise functions, summed and normalised by the detectors."""
