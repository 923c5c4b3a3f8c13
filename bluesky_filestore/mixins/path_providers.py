"""Where files shall go, asked at each stage: for visits, samples and scan numbers that change without a restart."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

__all__ = ["PathInfo", "PathProvider"]


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
