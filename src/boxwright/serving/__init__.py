"""Detectors behind an address: batching across requests, limits, and a page to try them on."""
