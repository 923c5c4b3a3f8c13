"""Text of others, as it may be shown and stored: no terminal obeys it, no address has its password, UTF-8 holds it."""

import re

__all__ = ["shown_address", "storable", "visible", "visible_json", "visible_line", "without_secrets"]

_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    # Lines end at these for some, and lone surrogates cannot be printed at all.
    | dict.fromkeys((*range(0x80, 0xA0), *_DIRECTIONS, 0x2028, 0x2029, *range(0xD800, 0xE000)), 0xFFFD)
)
"""Characters that a terminal obeys, and the one that is shown for each."""
_SHOWN_IN_LINE = _SHOWN | {0x0A: 0x240A}
# JSON leaves these as they are.
_ESCAPED = {code: f"\\u{code:04x}" for code in _SHOWN if code >= 0x7F}
# An address within a text: files are no addresses of anybody, and may have a "?" in their names.
_ADDRESS = re.compile(r"(?!file:)\b([a-zA-Z][a-zA-Z0-9+.-]*)://[^\s'\"<>]*")
_KEY = re.compile(r"(?i)\b(api_key|access_token|password|passwd|secret)=[^\s&'\"<>]+")


def visible(text: str) -> str:
    r"""The text with a sign for each character that a terminal would obey.

    Examples
    --------
    >>> visible("\x1b[2Jgone")
    '␛[2Jgone'
    """
    return text.translate(_SHOWN)


def storable(text: str) -> str:
    r"""The text as UTF-8 has it: what is no character, as in names of files in another encoding, is written out.

    Examples
    --------
    >>> storable("M\udcfcller")
    'M\\udcfcller'
    """
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def visible_line(text: str) -> str:
    r"""The same of what shall be one line, e.g. of a log, and cannot begin another.

    Examples
    --------
    >>> visible_line("a\nERROR b")
    'a␊ERROR b'
    """
    return text.translate(_SHOWN_IN_LINE)


def visible_json(line: str) -> str:
    r"""JSON that says the same, and that a terminal does not obey.

    Examples
    --------
    >>> visible_json('"a\x9b"') == r'"a\u009b"'
    True
    """
    return line.translate(_ESCAPED)


def shown_address(uri: object) -> str:
    """An address as it may be printed and stored: without its query and its user, where keys and passwords are.

    Examples
    --------
    >>> shown_address("http://user:password@localhost:8000/api/v1?api_key=secret")
    'http://localhost:8000/api/v1'
    """
    address = str(uri).partition("?")[0].partition("#")[0]
    scheme, separator, rest = address.partition("://")
    host, slash, path = (rest if separator else scheme).partition("/")
    host = host.rpartition("@")[2]
    return f"{scheme}://{host}{slash}{path}" if separator else f"{host}{slash}{path}"


def without_secrets(text: str) -> str:
    """A text, e.g. of another package's error, in which each address is as it may be shown.

    Examples
    --------
    >>> without_secrets("401 for 'mongodb://user:password@host/db?authSource=admin', connecting to it")
    "401 for 'mongodb://host/db', connecting to it"
    """
    if "://" in text:
        text = _ADDRESS.sub(lambda found: shown_address(found[0]), text)
    return _KEY.sub(r"\1=...", text) if "=" in text else text
