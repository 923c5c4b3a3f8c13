"""Text of documents and errors, for a terminal that shall show it and carry out nothing of it."""

__all__ = ["visible"]

_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    | dict.fromkeys((*range(0x80, 0xA0), *_DIRECTIONS), 0xFFFD)
)
"""Characters that a terminal obeys, and the one that is shown for each."""


def visible(text: str) -> str:
    r"""The text with a sign for each character that a terminal would obey.

    Examples
    --------
    >>> visible("\x1b[2Jgone")
    '␛[2Jgone'
    """
    return text.translate(_SHOWN)
