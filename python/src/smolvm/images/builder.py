"""Where the upstream package has its image builder."""

from ..build import SSH_BOOT_ARGS, AsyncImageBuilder, ImageBuilder

__all__ = ["SSH_BOOT_ARGS", "AsyncImageBuilder", "ImageBuilder"]
