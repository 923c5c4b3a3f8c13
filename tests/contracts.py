"""What every implementation of an interface must do; its test class derives from the contract's."""

import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import event_model
import httpx
import numpy as np
import pytest
from small_runs import SmallRun

from bluesky_filestore.spool.spooled_run import find_run


@dataclass
class WrittenFiles:
    """Files of a resource, and what a handler must get from them."""

    path: Path
    """What the handler is given."""
    kwargs: dict[str, Any]
    """The ``resource_kwargs``."""
    datums: list[dict[str, Any]]
    """The ``datum_kwargs`` of each datum."""
    arrays: list[np.ndarray]
    """What each stands for."""
    files: list[list[Path]]
    """The files that it lies in."""
    cut: Callable[[], str] | None = None
    """Takes away the last frame of the last datum; returns the words in which an error counts what is left."""
    also: dict[str, Any] = field(default_factory=dict)
    """What a test of one format needs besides."""

    @property
    def all_files(self) -> list[Path]:
        """Each file once."""
        return sorted({file for files in self.files for file in files})


class HandlerContract:
    """What event-model, databroker, dask and `fill` rely on."""

    handler_class: ClassVar[Callable[..., Any]]
    spec: ClassVar[str]
    public: ClassVar[Callable[..., Any] | None] = None
    """The handler of the same spec that everybody has, where it can be asked."""
    frame_counts: ClassVar[tuple[int, ...]] = (1, 3)

    def write(self, directory: Path, frames: int) -> WrittenFiles:
        """Write files of four datums with so many frames each."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each test runs with each number of frames a datum."""
        if "written" in metafunc.fixturenames:
            metafunc.parametrize("written", self.frame_counts, indirect=True, ids="{} a datum".format)

    @pytest.fixture
    def written(self, tmp_path: Path, request: pytest.FixtureRequest) -> WrittenFiles:
        """Files with so many frames a datum."""
        (tmp_path / "data").mkdir()
        return self.write(tmp_path / "data", request.param)

    def make(self, written: WrittenFiles) -> Any:
        """The handler as the ecosystem makes it."""
        return type(self).handler_class(str(written.path), **written.kwargs)

    def check(self, handler: Any, written: WrittenFiles) -> None:
        """It reads every datum right, in any order."""
        for number in (1, 3, 0, 2, 2):
            values = handler(**written.datums[number])
            np.testing.assert_array_equal(values, written.arrays[number], strict=True)

    def test_is_discovered(self):
        """The registry reads the spec with it."""
        from bluesky_filestore import handler_registry

        assert handler_registry[self.spec] is type(self).handler_class
        assert self.spec in type(self).handler_class.specs

    def test_right_frames(self, written):
        """Each datum gives its own frames, whatever was read before."""
        self.check(self.make(written), written)

    def test_same_as_public_handler(self, written):
        """It answers as the public handler does."""
        if type(self).public is None:
            return
        ours, theirs = self.make(written), type(self).public(str(written.path), **written.kwargs)
        for datum in written.datums:
            np.testing.assert_array_equal(ours(**datum), np.asarray(theirs(**datum)), strict=True)
        assert ours.get_file_list(written.datums[:1]) == list(theirs.get_file_list(written.datums[:1]))

    def test_says_what_it_will_read(self, written):
        """Shape and dtype are known beforehand."""
        for datum, array in zip(written.datums, written.arrays, strict=True):
            said = self.make(written).format(**datum)
            assert (said.shape, said.dtype) == (array.shape, array.dtype)

    def test_truncated_last_datum(self, written):
        """A datum that lacks its last frame is an error that counts the frames; those before it are read."""
        if written.cut is None:
            return
        words = written.cut()
        handler = self.make(written)
        with pytest.raises(OSError, match=words):
            handler(**written.datums[-1])
        np.testing.assert_array_equal(handler(**written.datums[-2]), written.arrays[-2])

    def test_missing_file(self, written):
        """A file that is not there is a FileNotFoundError that names it; it is read when it is there."""
        away = written.path.parent.parent / "away"
        handler = self.make(written)
        shutil.move(written.path.parent, away)
        with pytest.raises(FileNotFoundError, match="is not there") as caught:
            handler(**written.datums[0])
        assert str(written.files[0][0]) in str(caught.value)
        shutil.move(away, written.path.parent)
        self.check(handler, written)

    def test_broken_file(self, written):
        """A file that is something else is an OSError that names it; it is read when it is whole."""
        file = written.files[0][0]
        whole = file.read_bytes()
        handler = self.make(written)
        for content in (b"", b"no such format" * 100, whole[: len(whole) // 3]):
            file.write_bytes(content)
            with pytest.raises(OSError, match=file.name):
                handler(**written.datums[0])
        file.write_bytes(whole)
        np.testing.assert_array_equal(handler(**written.datums[0]), written.arrays[0])

    def test_no_such_datum(self, written):
        """A negative number is refused; it is no way to count from the end."""
        datum = dict.fromkeys(written.datums[0], -1)
        with pytest.raises(ValueError, match="expected a whole number from 0 on"):
            self.make(written)(**datum)

    def test_file_list(self, written):
        """It names the files of the datums that it is asked for."""
        assert self.make(written).get_file_list(iter(written.datums[1:3])) in (
            [str(file) for files in written.files[1:3] for file in files],
            [str(written.path)],
        )

    def test_closing(self, written):
        """Closed, it has nothing open; called again, it opens what it needs; it is a context manager."""
        with self.make(written) as handler:
            self.check(handler, written)
        handler.close()
        self.check(handler, written)
        handler.close()

    def test_threads(self, written):
        """Threads share it, and one of them may close it while others read."""
        handler = self.make(written)

        def work(turn: int) -> None:
            number = turn % len(written.datums)
            np.testing.assert_array_equal(handler(**written.datums[number]), written.arrays[number])
            if turn % 10 == 0:
                handler.close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(100)))

    def test_pickling(self, written):
        """It is pickled without its open files, before and after use."""
        handler = self.make(written)
        self.check(pickle.loads(pickle.dumps(handler)), written)  # noqa: S301 - our own
        self.check(handler, written)
        self.check(pickle.loads(pickle.dumps(handler)), written)  # noqa: S301 - our own

    @pytest.mark.parametrize("coerce", ["as_is", "force_numpy"])
    def test_public_filler(self, written, coerce):
        """event-model's Filler takes it as it is, and from the registry."""
        from bluesky_filestore import handler_registry

        run = event_model.compose_run()
        array = written.arrays[0]
        key = {"source": "s", "dtype": "array", "shape": list(array.shape), "external": "FILESTORE:"}
        stream = run.compose_descriptor(name="primary", data_keys={"image": key})
        resource = run.compose_resource(
            spec=self.spec,
            root=str(written.path.parent),
            resource_path=written.path.name,
            resource_kwargs=written.kwargs,
        )
        filler = event_model.Filler(handler_registry, inplace=False, coerce=coerce, retry_intervals=[])
        filler("descriptor", stream.descriptor_doc)
        filler("resource", resource.resource_doc)
        for datum_kwargs, expected in zip(written.datums, written.arrays, strict=True):
            datum = resource.compose_datum(datum_kwargs)
            filler("datum", datum)
            event = stream.compose_event(
                data={"image": datum["datum_id"]}, timestamps={"image": 1.0}, filled={"image": False}
            )
            _, filled = filler("event", event)
            np.testing.assert_array_equal(filled["data"]["image"], expected, strict=True)


class CatalogContract:
    """What delivery relies on, of any catalog; its test class says how to come by one, and what is in it."""

    lives: ClassVar[tuple[int, ...]] = (1, 5, 12)
    """After how many operations those are killed who deliver, one after the other."""

    def connect(self) -> Any:
        """A new `TiledCatalog`, that knows nothing, for a catalog that other tests may have written to."""
        raise NotImplementedError

    def compare(self, run: Any) -> None:
        """Assert that the catalog has a `SmallRun` as it was, each document once, in order."""
        raise NotImplementedError

    def deliver(self, catalog: Any, directory: Path) -> None:
        """Hand on all that waits in a spool."""
        from bluesky_filestore.delivery.conveyor import Conveyor
        from bluesky_filestore.delivery.problems import Problems
        from bluesky_filestore.spool import Ledger

        with closing(Ledger(directory)) as ledger:
            problems = Problems()
            conveyor = Conveyor(ledger, catalog, problems, since=0)
            for _ in range(50):
                conveyor.move()
                conveyor.try_again()
                if set(ledger.counts(1)) <= {"settling", "delivered"} and not conveyor.has_news:
                    break
            assert problems.all() == ()

    def spool(self, directory: Path, *runs: Any) -> None:
        """Put runs into a spool, one after the other."""
        from bluesky_filestore.spool.store import Store

        store = Store(directory)
        for run in runs:
            for name, doc in run.documents:
                store.append(name, doc)
        store.close()

    def test_a_run(self, tmp_path):
        """A run is there as it was, and delivering it again from its first document changes nothing."""
        run = SmallRun(tmp_path, 1)
        self.spool(tmp_path / "spool", run)
        catalog = self.connect()
        self.deliver(catalog, tmp_path / "spool")
        self.compare(run)
        for found in find_run([tmp_path / "spool"], run.uid):
            found.ask_again()
        self.deliver(catalog, tmp_path / "spool")
        self.compare(run)

    def test_killed_between_operations(self, tmp_path):
        """Whoever delivers is killed after some operations, and another one goes on: all is there once."""
        runs = [SmallRun(tmp_path, number, events=4) for number in range(2)]
        self.spool(tmp_path / "spool", *runs)
        for operations in self.lives:
            catalog = KilledAfter(self.connect(), operations)
            with suppress(Killed):
                self.deliver(catalog, tmp_path / "spool")
        self.deliver(self.connect(), tmp_path / "spool")
        for run in runs:
            self.compare(run)

    def test_answers_lost(self, tmp_path):
        """A request that was carried out, and of which no answer came, is not carried out twice."""
        run = SmallRun(tmp_path, 5, events=4)
        self.spool(tmp_path / "spool", run)
        catalog = self.connect()
        losing = LosesAnswers(catalog)
        self.deliver(losing, tmp_path / "spool")
        assert losing.lost > 1
        self.compare(run)

    def test_names(self):
        """It has one name, however often it is connected to."""
        assert self.connect().uri == self.connect().uri


class Killed(BaseException):
    """The process is gone."""


class KilledAfter:
    """A catalog whose user is killed after so many operations."""

    def __init__(self, catalog: Any, operations: int) -> None:
        self._catalog, self._left = catalog, operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def apply(self, operation: Any) -> None:
        """Carry one out; the last one, too, but nobody learns of it."""
        self._catalog.apply(operation)
        self._left -= 1
        if self._left <= 0:
            raise Killed


class LosesAnswers:
    """A catalog of which the answer to every third operation is lost, once each."""

    def __init__(self, catalog: Any) -> None:
        self._catalog, self._asked, self.lost = catalog, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def apply(self, operation: Any) -> None:
        """Carry one out."""
        self._asked += 1
        with self._catalog._noting_lost_answers(operation.run):
            self._catalog.apply(operation)
            if self._asked % 3 == 0 and self.lost < 4:
                self.lost += 1
                raise httpx.ReadError("the answer was lost")
