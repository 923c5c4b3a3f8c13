"""Running the simulated IOC: in the foreground, or in a child process for as long as a with-block lasts."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, ClassVar, Self

from bluesky_filestore.errors import IOCUnreachableError
from bluesky_filestore.extras import check_installed
from bluesky_filestore.logs import get_logger

__all__ = ["DEFAULT_PREFIX", "SimulatedIOC", "client_environment", "free_port", "run_ioc"]

DEFAULT_PREFIX = "13SIM1:"
"""What the records begin with, as those of the IOC that the simulation follows."""

_LOOPBACK = "127.0.0.1"

_MAX_ARRAY_BYTES = 20_000_000
"""Room for the 12 MB of ``image1:ArrayData``."""

_LAST_PORT = 65535
_log = get_logger(__name__)
_OURS = ("BLUESKY_FILESTORE_DATABASE", "BLUESKY_FILESTORE_STREAMS")
_SECRETS = ("TILED_API_KEY", "TILED_SINGLE_USER_API_KEY", *_OURS)


def client_environment(port: int) -> dict[str, str]:
    """The environment variables with which a Channel Access client finds the IOC on this port."""
    return {
        # With the port, since libca reads EPICS_CA_SERVER_PORT when ophyd is imported, but this at its first channel.
        "EPICS_CA_ADDR_LIST": f"{_LOOPBACK}:{port}",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(port),
        "EPICS_CA_REPEATER_PORT": str(_repeater_port(port)),
        "EPICS_CA_MAX_ARRAY_BYTES": str(_MAX_ARRAY_BYTES),
    }


def _repeater_port(port: int) -> int:
    """Where clients on this machine share the IOC's beacons: the port after the IOC's, as 5065 is after 5064."""
    return port + 1


def _port_is_free(port: int) -> bool:
    """Whether nobody has the port, for UDP and for TCP."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                # A port that an earlier IOC has just closed still counts as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_LOOPBACK, port))
            except OSError:
                return False
    return True


def free_port() -> int:
    """A port on loopback that is free for UDP and for TCP, with a free one after it for the repeater.

    Raises
    ------
    IOCUnreachableError
        If none was found.
    """
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((_LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port < _LAST_PORT and _port_is_free(port) and _port_is_free(_repeater_port(port)):
            return port
    raise IOCUnreachableError("no port on 127.0.0.1 is free for UDP and TCP; stop programs that hold ports")


async def _run(
    options: dict[str, Any], prefix: str, port: int, on_ready: Callable[[int], None], stop_at_end_of: BinaryIO | None
) -> None:
    """Serve a simulator with these options until a stream ends, if there is one."""
    from .server import serve
    from .simulator import Simulator

    stop = asyncio.Event()
    if stop_at_end_of is not None:
        loop = asyncio.get_running_loop()
        arguments = (stop_at_end_of, lambda: loop.call_soon_threadsafe(stop.set))
        threading.Thread(target=_call_at_end, args=arguments, daemon=True).start()
    async with Simulator(**options) as simulator:
        ready = asyncio.Event()
        server = asyncio.create_task(serve(simulator, prefix, port, _repeater_port(port), ready))
        waiting = [asyncio.create_task(ready.wait()), server]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not server.done():
            on_ready(port)
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([stopped, server], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        waiting[0].cancel()
        server.cancel()
        await asyncio.gather(server)


def run_ioc(
    directory: str | os.PathLike[str],
    prefix: str = DEFAULT_PREFIX,
    port: int | None = None,
    *,
    plugin_delay: float = 0.0,
    disk_space: int | None = None,
    on_ready: Callable[[int], None] = lambda port: None,
    stop_at_end_of: BinaryIO | None = None,
) -> None:
    """Run the simulated IOC in this process until it is interrupted.

    Parameters
    ----------
    directory : path
        The data directory: made if it is not there, and the working directory from then on, so that a
        relative ``FilePath`` lies in it.
    prefix : str
        What the records begin with.
    port : int, optional
        Where clients search for it on loopback; by default a free one.
    plugin_delay : float
        Seconds that each frame spends in a plugin on top of the work: a slow disk.
    disk_space : int, optional
        Bytes that the file plugins may write altogether; then the disk is full, until files are removed.
    on_ready : callable
        Called with the port as soon as clients can connect.
    stop_at_end_of : binary file, optional
        Stop when this file ends: the pipe to a parent process.

    Raises
    ------
    IOCUnreachableError
        If the port is taken.
    OSError
        If the directory can't be made.
    """
    check_installed("sim", "caproto")
    Path(directory).mkdir(parents=True, exist_ok=True)
    chosen = free_port() if port is None else port
    if not _port_is_free(chosen):
        raise IOCUnreachableError(
            f"port {chosen} on {_LOOPBACK} is taken, probably by another IOC; stop that or choose another port"
        )

    os.chdir(directory)
    options = {"plugin_delay": plugin_delay, "disk_space": disk_space}
    asyncio.run(_run(options, prefix, chosen, on_ready, stop_at_end_of))


def _call_at_end(stream: BinaryIO, callback: Callable[[], object]) -> None:
    """Read a stream to its end, then call back."""
    while os.read(stream.fileno(), 1024):
        pass
    callback()


class SimulatedIOC:
    """A simulated areaDetector IOC in a child process, for as long as a with-block lasts.

    On entry the IOC is started on loopback and the environment of this process is set so that Channel
    Access clients find it; on exit the IOC is stopped and the environment put back. The child ends with
    this process, however that ends.

    A Channel Access client library reads its environment once a process, when its first channel is made
    (libca under pyepics, and caproto's client as well). So make the IOC before the first signal, and
    note that every later SimulatedIOC of the same process takes the port of the first one, if that is
    free; two at the same time in one process can't both be reached.

    Parameters
    ----------
    directory : path, optional
        The data directory; by default a temporary one, which is removed on exit.
    prefix : str
        What the records begin with.
    port : int, optional
        Where clients search for it; by default the port this process used before, or a free one.
    plugin_delay : float
        Seconds that each frame spends in a plugin on top of the work: a slow disk.
    disk_space : int, optional
        Bytes that the file plugins may write altogether; then the disk is full, until files are removed.
    timeout : float
        Seconds for the IOC to come up.

    Attributes
    ----------
    directory : Path
        Where data can be written, absolute; a temporary one is known from entry on.
    prefix : str
        What the records begin with.
    port : int
        Where clients search for the IOC; known from entry on.

    Examples
    --------
    >>> with SimulatedIOC() as ioc:
    ...     ioc.prefix
    '13SIM1:'
    """

    _process_port: ClassVar[int | None] = None

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        prefix: str = DEFAULT_PREFIX,
        port: int | None = None,
        *,
        plugin_delay: float = 0.0,
        disk_space: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.prefix = prefix
        self.port = port or 0
        self.directory = Path() if directory is None else Path(directory).resolve()
        self._is_temporary = directory is None
        self._cleanup = ExitStack()
        room = [] if disk_space is None else ["--disk-space", str(disk_space)]
        self._options = ["--plugin-delay", str(plugin_delay), *room]
        self._timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None
        self._saved: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return f"<SimulatedIOC {self.prefix} on port {self.port or 'of its choice'}, writes to {self.directory}>"

    def __enter__(self) -> Self:
        """Start the IOC, wait until it is ready, and set the environment.

        Raises
        ------
        IOCUnreachableError
            If it does not come up; the error carries what the child wrote.
        MissingPackageError
            If caproto is not installed.
        """
        check_installed("sim", "caproto")
        self.port = self.port or self._choose_port()
        if self._is_temporary:
            temporary = tempfile.TemporaryDirectory(prefix="simulated-ioc-")
            self.directory = Path(self._cleanup.enter_context(temporary)).resolve()
        self._cleanup.callback(self._stop)
        with ExitStack() as at_failure:
            at_failure.callback(self._cleanup.close)
            self.reboot()
            at_failure.pop_all()
        type(self)._process_port = self._process_port or self.port
        self._set_environment(client_environment(self.port))
        return self

    def kill(self) -> None:
        """Let the IOC die at once, as in a power cut: puts are never completed, files stay as they are."""
        if self._child is not None:
            self._child.kill()
        self._stop()

    def reboot(self) -> None:
        """Start the IOC, after ending it if it runs; all records are as after boot then.

        Raises
        ------
        IOCUnreachableError
            If it does not come up; the error carries what the child wrote.
        """
        self._stop()
        with tempfile.TemporaryFile() as errors:
            self._child = self._start(errors)
            if not self._wait_until_ready(self._child):
                self._stop()
                errors.seek(0)
                written = errors.read().decode(errors="replace").strip() or "nothing"
                raise IOCUnreachableError(
                    f"the simulated IOC was not ready on {_LOOPBACK}:{self.port} within {self._timeout} s;"
                    f" it wrote:\n{written}"
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the IOC, put the environment back, and remove the data directory if it is a temporary one."""
        self._set_environment(self._saved)
        self._cleanup.close()

    def _choose_port(self) -> int:
        """The port that this process's client libraries know already, or else a free one."""
        known = self._process_port
        if known is not None and _port_is_free(known):
            return known
        if known is not None:
            _log.warning("port %d, where this process's clients search, is taken; using another", known)
        return free_port()

    def _start(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        options = ["--directory", str(self.directory), "--prefix", self.prefix, "--port", str(self.port)]
        return subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            [sys.executable, "-m", __package__, *options, *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C is for the plan, not for the IOC, and so are keys.
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in _SECRETS},
        )

    def _wait_until_ready(self, child: subprocess.Popen[bytes]) -> bool:
        """Whether the child says in time that it is ready."""
        said: list[bytes] = []
        if child.stdout is None:
            raise RuntimeError("the child was started without a pipe for its output")
        reader = threading.Thread(target=lambda out: said.append(out.readline()), args=(child.stdout,))
        reader.start()
        reader.join(self._timeout)
        if reader.is_alive():
            child.kill()
            reader.join()
        return said == [b"ready\n"]

    def _stop(self) -> None:
        """Close the pipe, at whose end the child closes its files and ends; kill it if it does not."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()

    def _set_environment(self, wanted: dict[str, str] | dict[str, str | None]) -> None:
        """Set, or remove where None, variables, and remember what they were."""
        self._saved = {name: os.environ.get(name) for name in wanted}
        for name, value in wanted.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
