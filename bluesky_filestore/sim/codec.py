"""The codec plugin, after which frames are compressed."""

from dataclasses import replace

from .frame import Frame
from .plugin import Plugin

__all__ = ["CodecPlugin"]

_CODECS = ("", "jpeg", "blosc", "lz4", "bslz4")
"""What ``Codec_RBV`` shows of frames, in the order of ``Compressor``."""

_COMPRESS = 0
"""Mode."""


class CodecPlugin(Plugin):
    """NDPluginCodec: it marks frames as compressed; their elements stay as they are."""

    def work(self, frame: Frame) -> Frame:
        """The frame with the codec that was chosen, or without one."""
        p = self.parameters
        return replace(frame, codec=_CODECS[p.integer("Compressor")] if p.integer("Mode") == _COMPRESS else "")
