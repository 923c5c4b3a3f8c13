"""The simulated IOC on Channel Access, by caproto's asyncio server, and the repeater of its beacons."""

import asyncio
import os
import socket
import struct
from contextvars import ContextVar
from typing import Any, cast

import caproto
from caproto.asyncio.server import Context, VirtualCircuit

from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger

from .records import Record, Value
from .simulator import Simulator

__all__ = ["LOOPBACK", "Repeater", "check_caproto", "serve"]

_log = get_logger(__name__)

LOOPBACK = "127.0.0.1"
"""The only address the server binds and sends its beacons to."""

_HEADER = struct.Struct(">HHHHII")
"""Command, payload size, data type, data count and two parameters, as in the Channel Access protocol."""

_BEACON, _CONFIRM, _REGISTER = 13, 17, 24

_log = get_logger(__name__)

_DRAIN_TURNS = 100
"""How many turns of the event loop a completion waits for the updates before it."""

_awaits_completion: ContextVar[VirtualCircuit | None] = ContextVar("_awaits_completion", default=None)
"""The circuit of the client that waits for the put being handled; None for a put without callback.

caproto's channel data is not told whether a client waits; each put runs in a task of its own, which
inherits this variable.
"""


def _run_now(coroutine: Any) -> None:
    """Run a coroutine that never has to wait, so that updates go out in the order they are made.

    caproto's publishing is written as coroutines, but its queue is unbounded: nothing in it waits.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("caproto's publishing waits for something; updates would get out of order")


class _RecordChannel:
    """Mixed into caproto's channel data: a client's write goes to the simulator, an update to the clients."""

    def attach(self, name: str, puts: "_Puts") -> None:
        """Say which record this is, and who handles its puts."""
        self._record_name = name
        self._puts = puts
        self._disabled = caproto.ChannelInteger(value=0)

    async def write(self, value: Any, *, flags: int = 0, **metadata: Any) -> None:
        """A client's put; returns when it is complete."""
        await self._puts.put(self._record_name, value)

    def show(self, value: Value) -> None:
        """Take a new value and send it to the clients that monitor the record."""
        shown = self._shown(value)
        _run_now(super().write(shown, verify_value=False, update_fields=False))  # type: ignore[misc]

    def get_field(self, name: str) -> Any:
        """One of the record's fields, by which caproto asks for ``cam1:DataType_RBV.DISA``.

        Raises
        ------
        KeyError
            For any field but DISA, the only one that ophyd's detectors read: 0, the record is in use.
        """
        return {"DISA": self._disabled}[name]

    def _shown(self, value: Value) -> Any:
        return value


class _Enum(_RecordChannel, caproto.ChannelEnum):  # type: ignore[misc]
    """An enum record."""


class _Long(_RecordChannel, caproto.ChannelInteger):  # type: ignore[misc]
    """A record of 32-bit integers."""


class _Double(_RecordChannel, caproto.ChannelDouble):  # type: ignore[misc]
    """A record of floating-point numbers."""


class _String(_RecordChannel, caproto.ChannelString):  # type: ignore[misc]
    """A record of up to 39 characters."""


class _Char(_RecordChannel, caproto.ChannelChar):  # type: ignore[misc]
    """A long string: a waveform of characters."""

    async def write_from_dbr(self, data: Any, data_type: Any, metadata: Any, *, flags: int = 0) -> None:
        # caproto takes a waveform of nothing but NUL, which is how clients write an empty string, for a number.
        if data_type == caproto.ChannelType.CHAR and not any(bytes(memoryview(data))):
            await self.write("")
        else:
            await super().write_from_dbr(data, data_type, metadata, flags=flags)


def _channel(record: Record, value: Value) -> Any:
    """Caproto's channel data for a record."""
    if record.kind == "enum":
        return _Enum(value=value, enum_strings=record.enum, reported_record_type="mbbi")
    if record.kind == "string":
        return _String(value=value, reported_record_type="stringin")
    if record.kind == "char":
        return _Char(value=value, max_length=record.count, reported_record_type="waveform")
    low, high = record.limits
    details = {"units": record.units, "lower_ctrl_limit": low, "upper_ctrl_limit": high}
    if record.kind == "double":
        return _Double(value=value, max_length=record.count, precision=record.precision, **details)
    return _Long(value=value, max_length=record.count, **details)


class _Puts:
    """Handles the puts of all clients.

    A put with put-callback to a busy record is complete when the record is 0 again. While one is under
    way, the next one to the same record waits for it; a put without callback does not, and ``Acquire=1``
    while the camera acquires has no effect and is complete with what was running. A client that
    disconnects takes its unfinished puts along.
    """

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._locks: dict[str, asyncio.Lock] = {}

    async def put(self, name: str, value: Any) -> None:
        """Put a value that came over the network."""
        circuit = _awaits_completion.get()
        plain = self._plain(name, value)
        if circuit is None:
            self._simulator.put(name, plain)
            return
        task = asyncio.current_task()
        circuit.unfinished_puts.add(task)
        try:
            if self._simulator.joins_running(name, plain):
                await self._simulator.until_done(name)
            else:
                async with self._locks.setdefault(name, asyncio.Lock()):
                    self._simulator.put(name, plain)
                    await self._simulator.until_done(name)
            await circuit.drain_updates()
        finally:
            circuit.unfinished_puts.discard(task)

    def _plain(self, name: str, value: Any) -> Any:
        """The value without caproto's and numpy's wrapping."""
        record = self._simulator.records.record(name)
        if record.is_array:
            return value
        if not isinstance(value, str | bytes) and hasattr(value, "__len__"):
            elements = list(value)
            is_text = record.kind != "char" or any(isinstance(element, str | bytes) for element in elements)
            value = elements[0] if is_text else bytes(int(element) for element in elements)
        return value.decode("latin-1") if isinstance(value, bytes) else value


class _Circuit(VirtualCircuit):  # type: ignore[misc]
    """One client's connection; it knows which puts are unfinished, and sends updates without lingering."""

    def __init__(self, circuit: Any, client: Any, context: Any) -> None:
        super().__init__(circuit, client, context)
        # asyncio leaves this out for sockets that were made without a protocol, as caproto's are; without it a get
        # that follows a put waits 40 ms for the client's acknowledgement.
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unfinished_puts: set[asyncio.Task[Any] | None] = set()

    async def get_from_sub_queue(self, timeout: float | None = None) -> Any:
        """The next update; None if there is none at the moment and the caller does not want to wait.

        caproto waits some milliseconds for more updates before it sends a batch. Here a batch is what is
        there already, so that a client sees an update no later than it would from a real IOC.
        """
        if timeout is None:
            return await self.subscription_queue.get()
        return None if self.subscription_queue.empty() else self.subscription_queue.get_nowait()

    async def drain_updates(self) -> None:
        """Let the updates that a put has made go out before its completion, unless the client is slow."""
        for _ in range(_DRAIN_TURNS):
            await asyncio.sleep(0)
            if self.context.subscription_queue.empty() and self.subscription_queue.empty():
                return

    async def _process_command(self, command: Any) -> Any:
        waits = isinstance(command, caproto.WriteNotifyRequest)
        _awaits_completion.set(self if waits else None)
        return await super()._process_command(command)

    async def _on_disconnect(self) -> None:
        for task in tuple(self.unfinished_puts):
            if task is not None:
                task.cancel()
        await super()._on_disconnect()


class _Context(Context):  # type: ignore[misc]
    """caproto's server with our circuits."""

    CircuitClass = _Circuit


def check_caproto() -> None:
    """Say so if caproto's server has not got any more what is overridden here: nobody would call it."""
    for name in ("_process_command", "_on_disconnect", "get_from_sub_queue"):
        if not hasattr(VirtualCircuit, name):
            log_once(_log, f"caproto has no {name} any more: puts may be complete, or updates come, at other times")


async def serve(simulator: Simulator, prefix: str, port: int, repeater_port: int, ready: asyncio.Event) -> None:
    """Serve a running simulator's records on loopback until cancelled.

    Parameters
    ----------
    simulator : Simulator
        What to serve.
    prefix : str
        What goes before each record's name: ``13SIM1:``.
    port : int
        Where clients search (UDP) and, if it is free, connect (TCP).
    repeater_port : int
        Where the beacons go, and where a repeater hands them on to the clients if nobody does so yet: a
        client that finds no repeater starts one, which outlives it.
    ready : asyncio.Event
        Set when clients can find the records.

    Raises
    ------
    OSError
        If the port can't be used.
    """
    check_caproto()
    os.environ["EPICS_CA_SERVER_PORT"] = str(port)
    os.environ["EPICS_CA_REPEATER_PORT"] = os.environ["EPICS_CAS_BEACON_PORT"] = str(repeater_port)
    os.environ["EPICS_CAS_BEACON_ADDR_LIST"] = LOOPBACK
    os.environ["EPICS_CAS_AUTO_BEACON_ADDR_LIST"] = "NO"
    puts = _Puts(simulator)
    channels = {}
    for name in simulator.records:
        channels[name] = _channel(simulator.records.record(name), simulator.records[name])
        channels[name].attach(name, puts)
    simulator.listener = lambda name, value: channels[name].show(value)
    context = _Context({prefix + name: channel for name, channel in channels.items()}, [LOOPBACK])

    async def announce(_: Any) -> None:
        ready.set()

    repeater = await Repeater.open(LOOPBACK, repeater_port)
    try:
        await context.run(startup_hook=announce)
    finally:
        if repeater is not None:
            repeater.close()


class Repeater(asyncio.DatagramProtocol):
    """A Channel Access repeater's UDP port: hands the beacons that reach this machine on to all clients on it.

    A client library that finds no repeater tries to start one as a daemon, which outlives everybody, and complains if
    it can't. caproto's repeater is not used: it does not confirm the empty datagrams with which libca registers, so
    that libca complains after a minute.
    """

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: set[tuple[str, int]] = set()

    @classmethod
    async def open(cls, host: str, port: int) -> asyncio.DatagramTransport | None:
        """Begin to repeat on this port; None if somebody, who then is the repeater, has it already."""
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                cls, (host, port), family=socket.AF_INET
            )
        except OSError as error:
            _log.info("no repeater on %s:%d, somebody else is there: %s", host, port, error)
            return None
        return transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The port is open."""
        # asyncio's own datagram transports are no subclass of DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Register a client, or hand a beacon on."""
        if self._transport is None:
            return
        if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] == _REGISTER:
            self._clients.add(address)
            confirm = _HEADER.pack(_CONFIRM, 0, 0, 0, 0, _number(address[0]))
            self._transport.sendto(confirm, address)
            return
        command, *fields, sender = _HEADER.unpack_from(data)
        if command == _BEACON and sender == 0:
            data = _HEADER.pack(command, *fields, _number(address[0])) + data[_HEADER.size :]
        for client in self._clients:
            self._transport.sendto(data, client)

    def error_received(self, error: Exception) -> None:
        """A client that has gone is no trouble to the others."""
        _log.debug("a client of the repeater has gone: %s", error)


def _number(host: str) -> int:
    """An IPv4 address as a number."""
    return int.from_bytes(socket.inet_aton(host), "big")
