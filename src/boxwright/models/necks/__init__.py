"""Necks: from a backbone's maps to pyramids."""
