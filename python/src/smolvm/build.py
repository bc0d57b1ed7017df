"""Where the upstream package once had its image builder."""

from ._async.builder import AsyncImageBuilder
from ._sync.builder import ImageBuilder
from .models import SSH_BOOT_ARGS

__all__ = ["SSH_BOOT_ARGS", "AsyncImageBuilder", "ImageBuilder"]
