"""What an object finds out once and keeps, of which no other object has to wait for it."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["kept"]

_Value = TypeVar("_Value")


class kept(Generic[_Value]):  # noqa: N801 - it is a decorator
    """A property that is kept once it is known.

    `functools.cached_property` has, before Python 3.12, one lock for all objects of a class: a file that nobody can
    read would hold up all others. Two threads may find the same out at once.

    Parameters
    ----------
    find : callable
        Finds it out.
    """

    def __init__(self, find: Callable[[Any], _Value]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "kept[_Value]": ...

    @overload
    def __get__(self, instance: object, owner: type) -> _Value: ...

    def __get__(self, instance: object | None, owner: type) -> "kept[_Value] | _Value":
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._find(instance)
        return value
