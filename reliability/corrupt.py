"""A byte-level fuzzer: valid files, made wrong as bad disks, editors and hands make them."""

import random
from collections.abc import Callable

Mutation = Callable[[random.Random, bytearray], None]

# What parsers of JSON, YAML, CSV and dialogues stumble over.
_JSON = (
    "\\ud800",
    '"\\udc00"',
    "\\u0000",
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "null",
    "true",
    "{}",
    "[]",
    '""',
    "-0",
)
_DEEP = ("[" * 3000, "{" * 3000, '{"a":' * 2000, "[" * 900 + "]" * 900, "x" * 200_000)
_TEXT = (
    "\n\nHuman:",
    "\n\nAssistant:",
    "\\n\\nHuman: ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\0",
    "\x0b",
    "\x1e",
    "\u2028",
    "\ufeff",
)
_YAML = ("&a ", "*a", "&a [*a]", "!!binary x", "<<: ", "? ", "2026-13-45", "0o9", "0x", "1:99:99", ".inf", "1e400", "~")
_SIGNS = ('"', "'", ",", ";", ":", "{", "}", "[", "]", "=1+1", '"",', '{"label": ')
_BYTES = (b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\x1f\x8b\x08", b"PAR1")
TOKENS = (*(token.encode() for token in (*_JSON, *_DEEP, *_TEXT, *_YAML, *_SIGNS)), *_BYTES)
MOST_AT_ONCE = 4


def _flip(chance: random.Random, data: bytearray) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, data: bytearray) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 10, 34, 92, 123, 125, 127, 255, chance.randrange(256)))


def _insert(chance: random.Random, data: bytearray) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.choice(TOKENS)


def _overwrite(chance: random.Random, data: bytearray) -> None:
    token = chance.choice(TOKENS)
    at = chance.randint(0, len(data))
    data[at : at + len(token)] = token


def _delete(chance: random.Random, data: bytearray) -> None:
    start, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    del data[start : min(end, start + chance.choice((1, 2, 8, 64)))]


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randint(0, len(data)) :]


def _repeat(chance: random.Random, data: bytearray) -> None:
    start, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    data[end:end] = data[start:end]


def _swap_lines(chance: random.Random, data: bytearray) -> None:
    lines = bytes(data).splitlines(keepends=True)
    chance.shuffle(lines)
    data[:] = b"".join(lines)


def _zero(chance: random.Random, data: bytearray) -> None:
    """A block that was never written."""
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice((1, 16, 512)))
    data[start:end] = bytes(end - start)


MUTATIONS: tuple[Mutation, ...] = (_flip, _set, _insert, _overwrite, _delete, _cut, _repeat, _swap_lines, _zero)


def corrupted(chance: random.Random, valid: bytes) -> bytes:
    """`valid` after one to MOST_AT_ONCE mutations."""
    data = bytearray(valid)
    for _ in range(chance.randint(1, MOST_AT_ONCE)):
        chance.choice(MUTATIONS)(chance, data)
    return bytes(data)
