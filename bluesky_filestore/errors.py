"""One base error; each error also has the builtin parent that people would catch.

Every message says what was found, what was expected and what to do.
"""

__all__ = [
    "CatalogAccessError",
    "CatalogError",
    "CatalogUnreachableError",
    "DeviceNotFoundError",
    "DirectoryMissingError",
    "DocumentError",
    "ExtraFramesError",
    "FileStoreError",
    "IOCUnreachableError",
    "MissingFramesError",
    "PathError",
    "StageError",
    "StageTimeoutError",
    "TemplateError",
    "UnknownSpecError",
    "UnprimedPluginError",
]


class FileStoreError(Exception):
    """Base of all errors that this package raises on purpose."""


class PathError(FileStoreError, ValueError):
    """A path, root, URI or path_semantics that cannot mean what it would have to."""


class TemplateError(FileStoreError, ValueError):
    """A path or file-name template that is missing or cannot be filled in."""


class UnknownSpecError(FileStoreError, LookupError):
    """A Resource spec that nobody told us how to read."""


class StageError(FileStoreError, RuntimeError):
    """A detector that cannot be staged so that its frames will be safe."""


class StageTimeoutError(StageError, TimeoutError):
    """A record that did not take the value it was waited for."""


class DirectoryMissingError(StageError, FileNotFoundError):
    """The IOC does not see the directory it shall write to."""


class UnprimedPluginError(StageError):
    """A file plugin whose idea of the frames is missing or stale."""


class MissingFramesError(FileStoreError, RuntimeError):
    """Frames that were asked for or documented and are not in the file."""


class ExtraFramesError(FileStoreError, RuntimeError):
    """Frames in the file that nobody asked for, which move the others from their place."""


class DeviceNotFoundError(FileStoreError, LookupError):
    """No device under the name that was given."""


class IOCUnreachableError(FileStoreError, TimeoutError):
    """No IOC answers for the records that are needed."""


class DocumentError(FileStoreError, ValueError):
    """A document that breaks its schema, its references or the legal order."""


class CatalogError(FileStoreError, RuntimeError):
    """A catalog that did not do what was asked of it."""


class CatalogUnreachableError(CatalogError, ConnectionError):
    """No catalog answers at the address."""


class CatalogAccessError(CatalogError, PermissionError):
    """The catalog answers, but not to these credentials."""
