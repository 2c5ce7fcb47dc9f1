"""What lies inside a network: its layers by path, and what they give while it runs."""

from __future__ import annotations

from tutelage.features._taps import Taps, bare_name, find_layer, tapped

__all__ = ["Taps", "bare_name", "find_layer", "tapped"]
