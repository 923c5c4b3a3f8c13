"""Threads that may read what is served and nothing else, and adapters that do all their reading in them.

What a file of somebody else's names, and a parser or a handler opens, is refused by the system, however it came to be
opened. No other thread of the process is confined: a server lives in the process of its user.

A thread is confined when it starts, for good, and so is what it starts itself. What it may read is known by device and
inode: a directory that was mounted anew since is another one, and a package of handlers may have been imported since.
When something fails, and what would be allowed now is something else, it is done again by new threads.
"""

import asyncio
import inspect
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import HTTPException
from tiled.adapters.core import Adapter
from tiled.structures.data_source import Management

from bluesky_filestore.files.hdf5_apart import set_apart
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger

from .landlock import confine, landlock_version
from .readers import ReaderProcesses

__all__ = ["ConfinedAdapters", "ConfinedThreads", "allowed", "unconfined"]

_logger = get_logger(__name__)
_Result = TypeVar("_Result")

_MOST_THREADS = 40
# What libraries, and the loader of libraries, look into beside the files of Python.
_SYSTEM: tuple[str, ...] = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/hdf5/lib/plugin")
_SYSTEM += ("/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache", "/etc/mime.types")
_SYSTEM += ("/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
_SYSTEM += ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu")
_SEARCH_PATHS = ("HDF5_PLUGIN_PATH", "LD_LIBRARY_PATH")


def allowed(roots: Roots) -> dict[str, tuple[int, int]]:
    """What those who read files below some roots may read, by path, with device and inode as they are now.

    Beside the roots these are what Python imports when it is needed, and the system's libraries. It looks for modules
    in the working directory, and perhaps at home, too; what else is there is not for others.
    """
    paths = [*(roots.directories or ()), *_SYSTEM, sys.prefix, sys.base_prefix]
    private = [Path.cwd(), Path.home().resolve()]
    paths += [
        path for path in map(os.path.realpath, sys.path) if not any(each.is_relative_to(path) for each in private)
    ]
    paths += [path for name in _SEARCH_PATHS for path in os.environ.get(name, "").split(os.pathsep) if path]
    # Packages that are installed in their own place: their modules may be imported late.
    paths += [
        os.path.dirname(module.__file__)  # noqa: PTH120 - a Path costs more than the call
        for name, module in list(sys.modules.items())
        if "." not in name and hasattr(module, "__path__") and module.__file__
    ]
    found = {}
    for path in dict.fromkeys(paths):
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
            found[path] = (status.st_dev, status.st_ino)
    return found


class _ChangedError(Exception):
    """What failed was not allowed, and may be by now."""


class ConfinedThreads:
    """Threads that may read what lies below some roots, what Python needs, and nothing else.

    Where the system has no Landlock they may read what everybody may.

    Parameters
    ----------
    roots : Roots
        Where files may lie.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots, self._lock, self._here = roots, threading.Lock(), threading.local()
        self._pool: ThreadPoolExecutor | None = None
        self._allowed: dict[str, tuple[int, int]] = {}
        """What the threads of the pool were allowed."""
        self._readers: ReaderProcesses | None = None
        """Theirs."""
        if not landlock_version():
            log_once(_logger, "This system has no Landlock: what readers open is checked by its path only.")

    def run(self, call: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> _Result:
        """What something gives that is done by one of the threads; at once, where this is one of them."""
        if getattr(self._here, "is_confined", False):
            return call(*args, **kwargs)
        pool = self._threads()
        try:
            return pool.submit(self._done, call, *args, **kwargs).result()
        except _ChangedError:
            self._leave(pool)
        return self._threads().submit(call, *args, **kwargs).result()

    async def run_beside(self, call: Callable[..., _Result], /, *args: Any) -> _Result:
        """The same, while the loop goes on."""
        # A quicker way to another thread than anyio's: 30 us and 44, measured on an idle loop.
        loop, pool = asyncio.get_running_loop(), self._threads()
        try:
            return await loop.run_in_executor(pool, self._done, call, *args)
        except _ChangedError:
            self._leave(pool)
        return await loop.run_in_executor(self._threads(), call, *args)

    def close(self) -> None:
        """End the threads when they have done what they are about."""
        with self._lock:
            if self._pool is not None and self._readers is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._readers.close()

    def _threads(self) -> ThreadPoolExecutor:
        """Those that there are. It starts more from the thread that asks it, which must not be one of them."""
        with self._lock:
            if self._pool is None:
                self._allowed = allowed(self._roots)
                self._readers = ReaderProcesses(self._roots, list(self._allowed))
                confine_this = partial(self._confine, list(self._allowed), self._readers)
                self._pool = ThreadPoolExecutor(_MOST_THREADS, "confined", confine_this)
            return self._pool

    def _leave(self, pool: ThreadPoolExecutor) -> None:
        """Have other threads do what is done from now on."""
        with self._lock:
            if self._pool is pool and self._readers is not None:
                pool.shutdown(wait=False)
                self._readers.close()
                self._pool = None

    def _confine(self, readable: list[str], readers: ReaderProcesses) -> None:
        self._here.is_confined = True
        set_apart(readers)
        if landlock_version():
            try:
                # Whoever finds a directory of modules empty remembers that for the whole process.
                confine(readable, [path or os.curdir for path in sys.path])
            except OSError as error:
                log_once(_logger, "Threads cannot be confined: what they open is checked by its path only", error)

    def _done(self, call: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> _Result:
        before = self._allowed
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if landlock_version() and allowed(self._roots) != before:
                raise _ChangedError from error
            raise


class ConfinedAdapters(Mapping[str, Any]):
    """Tiled's adapters by mimetype, of which some do all their reading of other people's files in confined threads.

    Parameters
    ----------
    makers : mapping
        Those that there are: classes, or objects with ``from_catalog``.
    confined : collection of str
        The mimetypes of those that read in the thread that calls them. What reads by threads of the whole process, as
        pyarrow and zarr do, would leave these confined for everybody.
    threads : ConfinedThreads
        Where they read.
    """

    def __init__(self, makers: Mapping[str, Any], confined: Collection[str], threads: ConfinedThreads) -> None:
        self._makers, self._confined, self.threads = makers, confined, threads

    def __getitem__(self, mimetype: str) -> Any:
        maker = self._makers[mimetype]
        return _ConfinedMaker(maker, self.threads) if mimetype in self._confined else maker

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def unconfined(thing: Any) -> Any:
    """What makes adapters, or an adapter, as it is for those who are in a confined thread themselves."""
    return thing._value if isinstance(thing, _Confined) else thing


class _Confined:
    """Something whose methods and attributes are of confined threads."""

    def __init__(self, value: Any, threads: ConfinedThreads) -> None:
        self._value, self._threads = value, threads

    def __getattr__(self, name: str) -> Any:
        # That it is a method is known without asking the object.
        if inspect.isfunction(getattr(type(self._value), name, None)):
            return partial(self._call, name)
        return self._kept(self._threads.run(getattr, self._value, name))

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._kept(self._threads.run(_called, self._value, name, *args, **kwargs))
        except PermissionError as error:
            raise HTTPException(
                403,
                f"{error}: it is outside the directories that may be read, or its user may not; expected a file below "
                f"one of those that the server was started with.",
            ) from error

    def _kept(self, found: Any) -> Any:
        if isinstance(found, list | tuple):
            return type(found)(map(self._kept, found)) if type(found) in (list, tuple) else found
        return _ConfinedAdapter(found, self._threads) if isinstance(found, Adapter) else found


class _ConfinedMaker(_Confined):
    """Makes adapters that read in confined threads only."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)

    def from_catalog(self, data_source: Any, node: Any, /, **parameters: Any) -> Any:
        """The adapter of a data source; that of what Tiled keeps itself, and writes to, is as it is."""
        if data_source.management != Management.external:
            return self._value.from_catalog(data_source, node, **parameters)
        for spec in _specs(parameters):
            # What importing a package does besides is its user's, and a handler that fails to be imported is never one.
            handler_registry.get(spec)
        return self._call("from_catalog", data_source, node, **parameters)

    def from_uris(self, *data_uris: str, **parameters: Any) -> Any:
        """The adapter of what some files hold."""
        return self._call("from_uris", *data_uris, **parameters)


class _ConfinedAdapter(_Confined):
    """An adapter that reads in confined threads only."""

    def __getitem__(self, key: Any) -> Any:
        return self._call("__getitem__", key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call("__iter__"))

    def __len__(self) -> int:
        return int(self._call("__len__"))


def _specs(parameters: Any) -> Iterator[str]:
    """The specs that a data source has handlers for."""
    if isinstance(parameters, Mapping):
        if isinstance(parameters.get("spec"), str):
            yield parameters["spec"]
        for part in parameters["parts"] if isinstance(parameters.get("parts"), list) else ():
            yield from _specs(part.get("parameters") if isinstance(part, Mapping) else None)


def _called(value: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    found = getattr(value, name)(*args, **kwargs)
    # What is looked up piece by piece later would be so by another thread.
    return list(found) if name in ("items", "keys", "values", "__iter__") else found
