"""Packages that are not on every machine, and the extras of this one that bring them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from .errors import MissingPackageError

__all__ = ["EXTRAS", "check_installed", "from_extra", "missing_package"]

EXTRAS = {
    "write": ("awkward", "bluesky_tiled_plugins", "dask", "pandas", "pyarrow", "ragged", "tiled", "websockets"),
    "serve": ("adbc_driver_manager", "alembic", "fastapi", "redis", "sqlalchemy", "starlette", "uvicorn", "zarr"),
    "sim": ("caproto",),
    "zmq": ("zmq",),
    "kafka": ("confluent_kafka",),
    "mongo": ("bson", "pymongo"),
    "databroker": ("area_detector_handlers", "databroker"),
}
"""What this package imports of what each extra brings; what two of them bring stands with the first."""


def check_installed(extra: str, *packages: str) -> None:
    """Make sure, before there is something to lose, that packages can be imported later.

    Raises
    ------
    MissingPackageError
        If one is not there, with the extra that brings it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise missing_package(ModuleNotFoundError(name=package), extra)


@contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Imports of what an extra brings: what is missing is an error that says so.

    Raises
    ------
    MissingPackageError
        If a package is not there.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error, extra) from error


def missing_package(error: ModuleNotFoundError, extra: str = "") -> MissingPackageError:
    """What to say of an import that failed.

    Parameters
    ----------
    error : ModuleNotFoundError
        As Python has it.
    extra : str
        What brings it; by default the first of `EXTRAS` that does, else all of them.

    Examples
    --------
    >>> print(missing_package(ModuleNotFoundError(name="zmq.auth")))
    the package 'zmq' is not installed; expected what the extra 'zmq' brings: pip install 'bluesky_filestore[zmq]'
    """
    package = str(error.name or error).partition(".")[0]
    extra = extra or next((name for name, packages in EXTRAS.items() if package in packages), "all")
    return MissingPackageError(
        f"the package {package!r} is not installed; expected what the extra {extra!r} brings: "
        f"pip install 'bluesky_filestore[{extra}]'",
        name=error.name,
    )
