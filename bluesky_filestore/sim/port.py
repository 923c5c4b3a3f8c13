"""What camera and plugins have in common: parameters, records, and what a put does."""

from collections.abc import Callable

from .parameters import READ_BACK, Parameters
from .records import Records, Value

__all__ = ["Port"]


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

    @property
    def port_name(self) -> str:
        """The name by which plugins ask for this port's frames."""
        return self.parameters.text("PortName")

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
        if name in READ_BACK:
            self.records.post(setpoint, self.parameters[name])
