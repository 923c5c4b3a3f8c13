"""The reading side: which handler reads which spec, our handlers, and events filled with their frames."""

from .filling import fill, fill_event
from .registry import HandlerRegistry, deregister_handler, discover_handlers, handler_registry, register_handler

__all__ = [
    "HandlerRegistry",
    "deregister_handler",
    "discover_handlers",
    "fill",
    "fill_event",
    "handler_registry",
    "register_handler",
]
