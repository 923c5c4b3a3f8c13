"""Where files shall go: a root, and templates of where they are written and read, or a provider that is asked.

A provider is asked at each stage: for visits, samples and scan numbers that change without a restart.
"""

import warnings
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

from bluesky_filestore.errors import TemplateError
from bluesky_filestore.model.paths import (
    FlavouredPath,
    PathSemantics,
    absolute_root,
    check_semantics,
    pure_path,
    semantics_of,
    under_root,
    with_trailing_separator,
)

__all__ = ["PathInfo", "PathProvider", "PathTemplates"]


class PathTemplates:
    """Root, write template and read template, checked against each other whenever they are read.

    They may be changed at any time; what they are at `stage()` counts.
    """

    _root: FlavouredPath
    _path_semantics: PathSemantics
    _write_path_template: str | PurePath | None = None
    _read_path_template: str | PurePath | None = None

    @property
    def path_semantics(self) -> PathSemantics:
        """The flavour of the write path, which is the IOC's; set to None for this machine's.

        Raises
        ------
        PathError
            When set to anything but ``"posix"``, ``"windows"`` and None.
        """
        return self._path_semantics

    @path_semantics.setter
    def path_semantics(self, value: str | None) -> None:
        self._path_semantics = check_semantics(value)

    @property
    def reg_root(self) -> FlavouredPath:
        """The part of the read path that is not 'semantic': where the disk is mounted. Set to None for ``/``.

        Raises
        ------
        PathError
            When set to a path that is not absolute.
        """
        return self._root

    @reg_root.setter
    def reg_root(self, value: str | PurePath | None) -> None:
        self._root = absolute_root(value)

    @property
    def fs_root(self) -> FlavouredPath:
        """The older name of `reg_root`."""
        warnings.warn("fs_root is deprecated, use reg_root instead", DeprecationWarning, stacklevel=2)
        return self.reg_root

    @fs_root.setter
    def fs_root(self, value: str | PurePath | None) -> None:
        warnings.warn("fs_root is deprecated, use reg_root instead", DeprecationWarning, stacklevel=2)
        self.reg_root = value

    @property
    def read_path_template(self) -> str:
        """Where the files are read, under the root, with a separator at the end; by default where they are written.

        Raises
        ------
        PathError
            If it is absolute and not under the root.
        """
        if self._read_path_template is None:
            path = self._ensure_absolute_under_root(pure_path(self._given_template(), self.path_semantics))
        else:
            path = self._ensure_absolute_under_root(self._read_path_template)
        return with_trailing_separator(path, semantics_of(path))

    @read_path_template.setter
    def read_path_template(self, value: str | PurePath | None) -> None:
        self._read_path_template = value

    @property
    def write_path_template(self) -> str:
        """Where the IOC writes the files, in its own flavour; with a read template of its own it is not checked.

        Raises
        ------
        PathError
            If it is absolute and not under the root, and there is no read template.
        """
        path = pure_path(self._given_template(), self.path_semantics)
        if self._read_path_template is None:
            path = self._ensure_absolute_under_root(path)
        return str(path)

    @write_path_template.setter
    def write_path_template(self, value: Any) -> None:
        self._write_path_template = value

    def _ensure_absolute_under_root(self, path: str | PurePath) -> FlavouredPath:
        """The path below the root: appended to it if relative, refused if elsewhere."""
        if isinstance(path, PureWindowsPath):
            return under_root(path, self.reg_root, "windows")
        return under_root(path, self.reg_root, "posix" if isinstance(path, PurePosixPath) else None)

    def _given_template(self) -> str | PurePath:
        if self._write_path_template is None or not str(self._write_path_template).strip():
            # An empty template is a variable that was not set, sooner than the root itself, which is '.'.
            raise TemplateError(
                f"write_path_template is {self._write_path_template!r}; expected a directory such as '/data/%Y/%m/%d', "
                "or a path_provider that names one at each stage."
            )
        return self._write_path_template


@dataclass(frozen=True, slots=True)
class PathInfo:
    """An answer of a path provider; but for `read_directory_path` its fields are called as in ophyd-async."""

    directory_path: str | PurePath
    """The directory as the IOC sees it: absolute and under the root, or relative to it. Taken as it is, no strftime."""
    filename: str | None = None
    """The beginning of the file's name; None for a new unique one."""
    read_directory_path: str | PurePath | None = None
    """The directory as its readers see it, if that is another; absolute and under the root, or relative to it."""
    create_dir_depth: int = 0
    """What ``CreateDirectory`` is set to, as in ophyd-async: -n lets the IOC make n levels. 0 leaves what
    ``stage_sigs`` says."""
    directory_uri: str | None = None
    """As in ophyd-async: the directory as its readers see it, as a ``file:`` URI."""


class PathProvider(Protocol):
    """What ``path_provider=`` takes: any callable that says where the files of the next stage go."""

    def __call__(self, device_name: str, /) -> PathInfo | str | PurePath:
        """Answer for the file plugin of this name; a bare path stands for ``PathInfo(path)``.

        ophyd-async's path providers fit, too.
        """
