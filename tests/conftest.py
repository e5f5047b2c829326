"""Settings of all tests."""

import os

# No test waits for a network that isn't there: the hub would be asked for weights again and again.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
