"""A device by the name that a user types on a command line."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import DeviceNotFoundError

__all__ = ["load_device"]


def load_device(where: str) -> Any:
    """Import ``module:name``; the module may lie in the current directory.

    Parameters
    ----------
    where : str
        E.g. ``"beamline.detectors:det"``; the name may have dots, for a component.

    Raises
    ------
    DeviceNotFoundError
        If there is no such module or name, or the module can't be imported.
    """
    module_name, colon, name = where.partition(":")
    if not (module_name and colon and name):
        raise DeviceNotFoundError(
            f"{where!r} does not say where the detector is; expected MODULE:DETECTOR, as in my_beamline:det."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
    except Exception as error:
        # A beamline's module may fail in any way, and its author needs the first line of it.
        raise DeviceNotFoundError(
            f"module {module_name!r} can't be imported: {type(error).__name__}: {error}. Expected one that Python "
            f"finds from {here}, and whose IOC runs."
        ) from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            names = sorted(key for key, value in vars(found).items() if _is_device(value))
            raise DeviceNotFoundError(
                f"{module_name!r} has no {name!r}; expected one of its devices: {', '.join(names) or 'it has none'}."
            ) from error
    return found


def _is_device(value: object) -> bool:
    return hasattr(value, "component_names") and not isinstance(value, type)
