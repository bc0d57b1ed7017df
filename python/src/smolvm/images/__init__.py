"""Images."""

from .._sync.builder import ImageBuilder

__all__ = ["ImageBuilder"]
