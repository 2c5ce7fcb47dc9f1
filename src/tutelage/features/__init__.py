"""What lies inside a network: its layers by path, and what they give while it runs."""

from __future__ import annotations

from tutelage.features._taps import Taps, find_layer, tapped

__all__ = ["Taps", "find_layer", "tapped"]
