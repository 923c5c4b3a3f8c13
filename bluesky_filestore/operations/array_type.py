"""What an array whose values come in events is made of, and how it becomes wider."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayType"]

_EXACT_IN_FLOAT = 2**53


@dataclass(frozen=True, slots=True)
class ArrayType:
    """The type of an array that holds every value so far just as it came.

    Examples
    --------
    >>> numbers = ArrayType.of(np.array([[1, 2]]))
    >>> numbers.joined(ArrayType.of(np.array([[0.5, 1.5]]))).dtype
    dtype('float64')
    >>> numbers.joined(ArrayType.of(np.array([[0.5, 1.5, 2.5]])))
    """

    shape: tuple[int, ...]
    """Of one event."""
    dtype: np.dtype[Any]
    """Of the values."""
    exact_in_float: bool
    """Whether every value can be told apart from all others as a float."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> "ArrayType":
        """The type of some events' values: (events, *shape of one)."""
        exact = (
            array.dtype.kind not in "iu" or -_EXACT_IN_FLOAT <= int(array.min()) <= int(array.max()) <= _EXACT_IN_FLOAT
        )
        return cls(array.shape[1:], array.dtype, exact)

    def joined(self, other: "ArrayType") -> "ArrayType | None":
        """The type that holds the values of both as they came; None if there is none."""
        if self.shape != other.shape:
            return None
        kinds = {self.dtype.kind, other.dtype.kind}
        if "b" in kinds and len(kinds) > 1:
            return None
        dtype = self.dtype if self.dtype == other.dtype else np.result_type(self.dtype, other.dtype)
        exact = self.exact_in_float and other.exact_in_float
        if dtype.kind in "fc" and not exact:
            return None
        return ArrayType(self.shape, dtype, exact)
