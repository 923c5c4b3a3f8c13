"""The file store of a Bluesky beamline: from ``det.trigger()`` to the array in the catalog.

The public names are loaded when they are first used, so that importing the package costs little and
pulls in neither ophyd, tiled, h5py nor tifffile.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "ADTriggerStatus",
    "CatalogWriter",
    "ContinuousAcquisitionTrigger",
    "FileStoreBase",
    "FileStoreHDF5",
    "FileStoreHDF5IterativeWrite",
    "FileStoreHDF5Single",
    "FileStoreHDF5SingleIterativeWrite",
    "FileStoreIterativeWrite",
    "FileStorePluginBase",
    "FileStoreTIFF",
    "FileStoreTIFFIterativeWrite",
    "FileStoreTIFFSquashing",
    "FlyableFileStore",
    "Limits",
    "MultiTrigger",
    "PathInfo",
    "PathProvider",
    "SingleTrigger",
    "SpoolWriter",
    "TriggerBase",
    "__version__",
    "copy_files",
    "deregister_handler",
    "describe_files",
    "discover_handlers",
    "doctor",
    "documents",
    "export_nexus",
    "fill",
    "fill_event",
    "follow",
    "handler_registry",
    "load_ipython_extension",
    "move_files",
    "new_short_uid",
    "new_uid",
    "open_array",
    "open_pack",
    "pack",
    "register_handler",
    "relocate",
    "resource_factory",
    "serve_catalog",
    "undo_relocation",
    "unpack",
    "verify_run",
]

if TYPE_CHECKING:
    from .bundles.manifests import describe_files
    from .bundles.moving import copy_files, move_files
    from .bundles.packing import pack
    from .bundles.packs import open_pack
    from .bundles.relocating import relocate, undo_relocation
    from .bundles.run_file import export_nexus
    from .bundles.unpacking import unpack
    from .catalog_writer import CatalogWriter
    from .checking import doctor
    from .checking.verify import verify_run
    from .handlers import (
        deregister_handler,
        discover_handlers,
        fill,
        fill_event,
        handler_registry,
        register_handler,
    )
    from .live.following import follow
    from .live.page_html import load_ipython_extension
    from .mixins import (
        ADTriggerStatus,
        ContinuousAcquisitionTrigger,
        FileStoreBase,
        FileStoreHDF5,
        FileStoreHDF5IterativeWrite,
        FileStoreHDF5Single,
        FileStoreHDF5SingleIterativeWrite,
        FileStoreIterativeWrite,
        FileStorePluginBase,
        FileStoreTIFF,
        FileStoreTIFFIterativeWrite,
        FileStoreTIFFSquashing,
        FlyableFileStore,
        MultiTrigger,
        PathInfo,
        PathProvider,
        SingleTrigger,
        TriggerBase,
        new_short_uid,
        new_uid,
        resource_factory,
    )
    from .reading import open_array
    from .reading.document_reader import documents
    from .serving import Limits, serve_catalog
    from .spool_writer import SpoolWriter


_HOMES = {
    "CatalogWriter": "catalog_writer",
    "SpoolWriter": "spool_writer",
    "copy_files": "bundles.moving",
    "deregister_handler": "handlers",
    "describe_files": "bundles.manifests",
    "discover_handlers": "handlers",
    "doctor": "checking",
    "documents": "reading.document_reader",
    "export_nexus": "bundles.run_file",
    "fill": "handlers",
    "fill_event": "handlers",
    "follow": "live.following",
    "handler_registry": "handlers",
    "load_ipython_extension": "live.page_html",
    "move_files": "bundles.moving",
    "open_array": "reading",
    "open_pack": "bundles.packs",
    "pack": "bundles.packing",
    "register_handler": "handlers",
    "relocate": "bundles.relocating",
    "Limits": "serving",
    "serve_catalog": "serving",
    "undo_relocation": "bundles.relocating",
    "unpack": "bundles.unpacking",
    "verify_run": "checking.verify",
}


def __getattr__(name: str) -> object:
    """Load a public name from the package it lives in, once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'mixins')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not, for tab completion."""
    return sorted({*globals(), *__all__})
