"""A simulated areaDetector IOC that writes real files over real Channel Access, and detectors for it."""

from importlib import import_module
from typing import TYPE_CHECKING

from .ioc import DEFAULT_PREFIX, SimulatedIOC, client_environment, run_ioc

if TYPE_CHECKING:
    from .detectors import SimDetectorHDF5, SimDetectorTIFF

__all__ = [
    "DEFAULT_PREFIX",
    "SimDetectorHDF5",
    "SimDetectorTIFF",
    "SimulatedIOC",
    "client_environment",
    "run_ioc",
]


def __getattr__(name: str) -> object:
    """Load the detectors, which need ophyd, when they are first used."""
    if name not in ("SimDetectorHDF5", "SimDetectorTIFF"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.detectors"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """With the detectors, so that they are offered before they are used."""
    return sorted({*globals(), *__all__})
