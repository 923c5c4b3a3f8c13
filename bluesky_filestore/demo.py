"""``bluesky-filestore demo``: the whole way on a simulated detector, and proof that nothing was lost on it."""

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .catalog_writer import CatalogWriter
from .errors import CatalogError, IOCUnreachableError, OptionError
from .model.paths import join_resource
from .reading.contact_sheet import Section, check_picture, draw_sections, save_picture
from .serving import CatalogServer, serve_catalog
from .sim import SimulatedIOC, pattern, scene

if TYPE_CHECKING:
    from bluesky import RunEngine

__all__ = ["Comparison", "run_demo"]

_POINTS = 5
_PICTURE, _TITLE = "demo.png", "From the detector to the array and back"
_PATIENCE = 60.0
"""Seconds: a loaded machine is slow, and no less right."""
# Small frames: the picture shows their pixels, and the whole demo is quick.
_CAMERA = {"size.size_x": 160, "size.size_y": 120, "sim_mode": "Peaks"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One external array of one run, beside the files it was registered from."""

    run: str
    """The first letters of the run's uid."""
    plan: str
    """What took the data, e.g. ``count``."""
    stream: str
    """The name of the stream."""
    data_key: str
    """The key of the array in the stream."""
    array: NDArray[Any]
    """As the Tiled client returned it: (events, frames per point, y, x)."""
    in_files: NDArray[Any]
    """All frames of the files in the order of their writing: (frames, y, x)."""
    files: tuple[Path, ...]
    """The files, as the detector's documents name them."""
    positions: tuple[float, ...]
    """Where the motor was at each event."""

    @property
    def equal(self) -> bool:
        """Whether every frame is, bit by bit, in the same order and dtype, as in the files, and as it was taken."""
        flat = self.array.reshape(-1, *self.array.shape[-2:])
        if flat.dtype != self.in_files.dtype or not np.array_equal(flat, self.in_files):
            return False
        places = np.repeat(self.positions, self.array.shape[1])
        return all(
            np.array_equal(each, scene.frame(pattern.number(each), each.shape, each.dtype, place))
            for each, place in zip(flat, places, strict=True)
        )


def run_demo(
    console: Console,
    *,
    keep: Path | None,
    sheet: Path | None = None,
    then: Callable[[CatalogServer], None] | None = None,
) -> bool:
    """Take data, read it back, compare, and show what came out.

    Parameters
    ----------
    console : rich.console.Console
        Where the table goes.
    keep : Path or None
        Directory for files, catalog and contact sheet; None uses a temporary one.
    sheet : Path, optional
        Where the contact sheet goes; by default among what is kept, or where the user's programs keep such things.
    then : callable, optional
        Called with the running catalog at the end; it is stopped when the call returns.

    Returns
    -------
    bool
        Whether every frame was equal.

    Raises
    ------
    OptionError
        Before anything is done, if `keep` or `sheet` cannot be written to.
    KeyboardInterrupt
        At Ctrl-C, when the plan has been aborted, everything stopped and what was temporary removed.
    """
    if keep is not None:
        _check_directory(keep)
    picture = sheet or (_own_picture() if keep is None else keep / "frames.png")
    check_picture(picture)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_interrupts_restored())
        directory = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bluesky-filestore-")))
        (data := directory / "data").mkdir(parents=True, exist_ok=True)
        with _progress(console) as say:
            say("starting the simulated IOC")
            ioc = stack.enter_context(SimulatedIOC(data))
            say("starting the catalog")
            catalog = stack.enter_context(serve_catalog(directory / "catalog", readable=[data]))
            # From its end on, a further Ctrl-C does not keep the work from being tidied up.
            stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
            comparisons = list(_take_and_compare(ioc, catalog, say))
        save_picture(draw_sections(_TITLE, list(map(_section, comparisons)), _POINTS, beside=2), picture)
        _show(console, comparisons, picture, keep)
        if then is not None:
            then(catalog)
        return all(comparison.equal for comparison in comparisons)


def _take_and_compare(ioc: SimulatedIOC, catalog: CatalogServer, say: Callable[[str], None]) -> Iterator[Comparison]:
    from bluesky import RunEngine
    from bluesky.plans import count, scan
    from ophyd import EpicsSignal
    from tiled.client import from_uri

    from .sim import SimDetectorHDF5, SimDetectorTIFF

    run_engine = RunEngine(context_managers=[_aborted_by_interrupt])
    documents: list[tuple[str, dict[str, Any]]] = []
    run_engine.subscribe(lambda name, doc: documents.append((name, doc)))
    reader = from_uri(catalog.uri, api_key=catalog.api_key)
    # Moves the sample before the camera.
    motor = EpicsSignal(f"{ioc.prefix}cam1:Offset_RBV", write_pv=f"{ioc.prefix}cam1:Offset", name="motor")
    motor.wait_for_connection(timeout=_PATIENCE)
    template = f"{ioc.directory}/%Y/%m/%d"
    with contextlib.ExitStack() as stack:
        stack.callback(motor.destroy)
        writer = stack.enter_context(CatalogWriter(catalog.client, spool=catalog.directory / "spool"))
        run_engine.subscribe(writer)
        for detector_class, frames_per_point in ((SimDetectorHDF5, (1, 5)), (SimDetectorTIFF, (1, 3))):
            where: dict[str, Any] = {"name": "det", "write_path_template": template, "root": ioc.directory}
            detector = _patiently(partial(detector_class, ioc.prefix, **where))
            try:
                detector.wait_for_connection(timeout=_PATIENCE)
                detector.cam.stage_sigs.update(_CAMERA)
                for frames in frames_per_point:
                    detector.cam.stage_sigs["num_images"] = frames
                    say(f"count and scan with {detector_class.__name__}, {frames} frames a point")
                    for plan in (count([detector], num=_POINTS), scan([detector], motor, -1, 1, _POINTS)):
                        documents.clear()
                        stood = motor.get()
                        _run(run_engine, plan)
                        # The IOC may hold the file for a moment after the run's end.
                        writer.flush(_PATIENCE)
                        yield _compare(reader, documents, stood)
            finally:
                # The next detector asks for the same records: one client of each is enough.
                detector.destroy()


def _patiently(make: Callable[[], Any]) -> Any:
    """A detector, made again while its IOC is there and has no time: ophyd waits for one second."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return make()
        except IOCUnreachableError:
            if time.monotonic() > deadline:
                raise


def _run(run_engine: "RunEngine", plan: Any) -> None:
    """Run a plan; KeyboardInterrupt if Ctrl-C has aborted it."""
    from bluesky.utils import RunEngineInterrupted

    try:
        run_engine(plan)
    except RunEngineInterrupted:
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def _aborted_by_interrupt(run_engine: "RunEngine") -> Iterator[None]:
    """At Ctrl-C abort the plan, which nobody would resume; in place of the RunEngine's own way, a pause."""
    before, aborts = signal.getsignal(signal.SIGINT), list[threading.Thread]()

    def interrupted(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        # Not here, where the main thread may hold whatever it was holding.
        aborts.append(threading.Thread(target=_abort, args=(run_engine,), name="abort"))
        aborts[0].start()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if aborts:
        raise KeyboardInterrupt


def _abort(run_engine: "RunEngine") -> None:
    try:
        run_engine.abort("Ctrl-C")
    except RuntimeError:
        # The plan may have come to its end meanwhile.
        if run_engine.state != "idle":
            raise


@contextlib.contextmanager
def _interrupts_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OptionError(
            f"nothing can be kept in {str(directory)!r} ({error.strerror}); expected a directory that this user may "
            f"make or write to."
        ) from error


def _compare(reader: Any, documents: list[tuple[str, dict[str, Any]]], stood: float) -> Comparison:
    (start,) = (doc for name, doc in documents if name == "start")
    (resource,) = (doc for name, doc in documents if name == "resource")
    (descriptor,) = (doc for name, doc in documents if name == "descriptor")
    (data_key,) = (key for key, value in descriptor["data_keys"].items() if value.get("external"))
    files = _files(resource)
    run = reader[start["uid"]]
    stream = run[descriptor["name"]]
    if data_key not in stream:
        said = "; ".join(run.metadata.get("notes", ["nothing says why"]))
        raise CatalogError(f"{data_key} of run {start['uid']} is not in the catalog: {said}")
    return Comparison(
        run=start["uid"][:8],
        plan=start["plan_name"],
        stream=descriptor["name"],
        data_key=data_key,
        array=stream[data_key].read(),
        in_files=np.concatenate([_frames_in(path) for path in files]),
        files=files,
        positions=tuple(doc["data"].get("motor", stood) for name, doc in documents if name == "event"),
    )


def _files(resource: dict[str, Any]) -> tuple[Path, ...]:
    # Looks at what is on the disk, not at what was documented: this is the side that the catalog is checked against.
    path = Path(join_resource(resource["root"], resource["resource_path"]))
    if path.is_dir():
        return tuple(sorted(path.glob(f"{resource['resource_kwargs']['filename']}*")))
    return (path,)


def _frames_in(path: Path) -> NDArray[Any]:
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path) as file:
            return np.asarray(file["/entry/data/data"][:])
    import tifffile

    return np.asarray(tifffile.imread(path))[np.newaxis]


def _own_picture() -> Path:
    """Where the contact sheet goes if nobody says: not into whatever directory the user is in."""
    from platformdirs import user_cache_path

    directory = user_cache_path("bluesky-filestore")
    _check_directory(directory)
    return directory / _PICTURE


def _section(comparison: Comparison) -> Section:
    # An array as the catalog gave it: the first frame of each event, with the number that it carries.
    frames = [
        (f"frame {pattern.number(frames[0])}\nmotor {position:.2f}", frames[0])
        for frames, position in zip(comparison.array, comparison.positions, strict=True)
    ]
    events, each, height, width = comparison.array.shape
    size = f"{each} frame{'s' * (each != 1)}, {width} x {height}"
    about = f"run {comparison.run}, {comparison.files[0].suffix[1:]}, {events} events of {size}"
    return Section(f"{comparison.plan}, {comparison.data_key}", about, frames)


def _show(console: Console, comparisons: list[Comparison], picture: Path, keep: Path | None) -> None:
    table = Table(title=_TITLE, title_style="bold", box=None, padding=(0, 1, 0, 0))
    for heading in ("run", "plan", "stream", "data key", "shape", "dtype", "file", "frames", "equal?"):
        justify: Literal["left", "right"] = "right" if heading == "frames" else "left"
        table.add_column(Text(heading, "underline"), no_wrap=True, justify=justify)
    for row in comparisons:
        name = row.files[0].name
        file = f"{name[:4]}…{name[-7:]}" if len(row.files) == 1 else f"{len(row.files)} x {row.files[0].suffix}"
        table.add_row(
            row.run,
            row.plan,
            row.stream,
            row.data_key,
            "x".join(map(str, row.array.shape)),
            str(row.array.dtype),
            file,
            str(len(row.in_files)),
            Text("yes", "green") if row.equal else Text("NO", "bold red"),
        )
    console.print(table)
    frames = sum(len(row.in_files) for row in comparisons)
    different = [row for row in comparisons if not row.equal]
    if different:
        console.print(f"{len(different)} of {len(comparisons)} arrays differ from their files.", style="bold red")
    else:
        console.print(f"All {frames} frames are equal to the files, bit by bit.", style="green")
    console.print(f"Contact sheet: {picture}", soft_wrap=True, markup=False)
    if keep:
        console.print(f"Files and catalog: {keep}", soft_wrap=True, markup=False)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def say(text: str) -> None:
            progress.update(task, description=text)

        yield say
