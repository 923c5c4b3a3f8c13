"""What camera and plugins have in common: parameters, the records that show them, and what a put does.

The parameter library follows asyn's rule, from which the order and number of updates in the traces come: setting a
parameter marks it if the value changes; marked parameters reach their records all at once, at the next flush, with the
value they have by then. A parameter set to 1 and back to 0 between two flushes is marked, and shows 0.
"""

from collections.abc import Callable
from dataclasses import replace

from .frame import Frame
from .ndattributes import AttributesError, NDAttribute, read_attributes
from .records import Records, Value

__all__ = ["Parameters", "Port"]

_READ_BACK = frozenset({"Acquire", "Capture", "FileNumber", "ReadFile", "WriteFile"})
"""Setpoints that follow their parameter, too (``asyn:READBACK``), besides the ``_RBV`` record."""

_UNDEFINED_AT_BOOT = frozenset({"FullFileName", *(f"ArraySize{axis}" for axis in range(10))})
"""Parameters without a value after boot: the first one they get is shown even if it looks the same."""


class Parameters:
    """The parameters of one port, starting from the boot values of its records.

    Parameters
    ----------
    records : Records
        Where the parameters are shown.
    prefix : str
        What the port's records begin with: ``HDF1:``.
    """

    def __init__(self, records: Records, prefix: str) -> None:
        self._records = records
        self._prefix = prefix
        self._values: dict[str, Value] = {}
        self._marked: dict[str, None] = {}
        self._undefined = set(_UNDEFINED_AT_BOOT)

    def __getitem__(self, name: str) -> Value:
        """The value of a parameter; before it was first set, that of its records.

        Raises
        ------
        KeyError
            If the port has no such record.
        """
        if name not in self._values:
            readback = f"{self._prefix}{name}_RBV"
            self._values[name] = self._records[readback if readback in self._records else self._prefix + name]
        return self._values[name]

    def integer(self, name: str) -> int:
        """A parameter as a whole number: an enum's index, a count."""
        return int(self[name])

    def number(self, name: str) -> float:
        """A parameter as a number."""
        return float(self[name])

    def text(self, name: str) -> str:
        """A parameter as text."""
        return str(self[name])

    def set(self, name: str, value: Value) -> None:
        """Change a parameter, and mark it for the next flush if that makes a difference."""
        if name in self._undefined or self[name] != value:
            self._values[name] = value
            self._marked[name] = None

    def postpone(self, name: str) -> None:
        """Show a marked parameter after those that have been marked since."""
        if name in self._marked:
            del self._marked[name]
            self._marked[name] = None

    def flush(self, *, except_setpoint: str | None = None) -> None:
        """Show all marked parameters in their records, in the order they were first marked.

        Parameters
        ----------
        except_setpoint : str, optional
            A parameter whose setpoint is being put at the moment and is shown by the one who puts it.
        """
        marked, self._marked = self._marked, {}
        for name in marked:
            value, setpoint = self._values[name], self._prefix + name
            has_readback = f"{setpoint}_RBV" in self._records
            if has_readback:
                self._records.post(f"{setpoint}_RBV", value, always=name in self._undefined)
            self._undefined.discard(name)
            if name != except_setpoint and (name in _READ_BACK or not has_readback):
                self._records.post(setpoint, value)


class Port:
    """One asyn port of the IOC with its records.

    Parameters
    ----------
    records : Records
        All records of the IOC.
    prefix : str
        What this port's records begin with: ``cam1:``.
    """

    def __init__(self, records: Records, prefix: str) -> None:
        self.records = records
        self.prefix = prefix
        self.parameters = Parameters(records, prefix)
        self.writers: dict[str, Callable[[], None]] = {}
        """What to do, besides storing the value, when a client puts a parameter."""
        self.refusals: dict[str, Callable[[Value], bool]] = {}
        """Parameters of which the driver does not take every value: whether it refuses this one."""
        self._attributes: list[NDAttribute] = []
        self.writers["NDAttributesFile"] = self._write_attributes

    @property
    def port_name(self) -> str:
        """The name by which plugins ask for this port's frames."""
        return self.parameters.text("PortName")

    def _write_attributes(self) -> None:
        p, status = self.parameters, 0
        self._attributes = []
        try:
            self._attributes = read_attributes(p.text("NDAttributesFile"), self.prefix, self.records)
        except AttributesError as error:
            status = error.status
        p.set("NDAttributesStatus", status)

    def with_attributes(self, frame: Frame) -> Frame:
        """The frame with the attributes that this port adds; those without a value it does not."""
        if not self._attributes:
            return frame
        values = {each.name: (each.value(self.records), each.notes) for each in self._attributes}
        known = {name: entry for name, entry in values.items() if entry[0] is not None}
        return replace(frame, attributes={**frame.attributes, **known})

    def write(self, name: str, value: Value) -> None:
        """A client puts `value` to the setpoint `name` (without prefix).

        Everything the driver changes is shown first, then the setpoint itself, then what the driver made
        of it: a ``Capture`` that fails goes to 1 and back to 0 in the eyes of a client. Of a value that
        the driver refuses the setpoint alone shows something; such a put is complete as any other.
        """
        setpoint = self.prefix + name
        if name in self.refusals and self.refusals[name](value):
            self.records.post(setpoint, value)
            return
        self.parameters.set(name, value)
        if name in self.writers:
            self.writers[name]()
        self.parameters.flush(except_setpoint=name)
        self.records.post(setpoint, value)
        if name in _READ_BACK:
            self.records.post(setpoint, self.parameters[name])
