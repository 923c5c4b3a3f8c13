"""The processes of this machine, as its kernel tells of them: what `ps` prints depends on where it is printed."""

from collections.abc import Iterator
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended; one that nobody has waited for has ended."""
    status = _status(pid)
    return bool(status) and status[0] != "Z"


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that have ended as long as nobody has waited for them."""
    return [child for child in _pids() if (status := _status(child)) and int(status[1]) == pid]


def command_line(pid: int) -> str:
    """The words that a process was started with; none if there is no such process, or it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def command_lines() -> list[str]:
    """Those of all processes."""
    return [command_line(pid) for pid in _pids()]


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _status(pid: int) -> list[str]:
    """What is told of a process after its name, which may have blanks and brackets in it: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
