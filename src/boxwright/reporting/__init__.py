"""Tables to pictures: report, curves, galleries."""
