"""Damage the content of a file: its bits, lines and tokens, or the values inside of it."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import PurePath

from tests.fuzz.values import damaged_checkpoint, damaged_json, damaged_parquet, damaged_sealed_json, damaged_yaml

_NUMBERS = b"-1 0 1 0x1F 1_000 1e999 Infinity NaN .nan .inf 1709546400000 99999d".split()
_TIMES = (
    b"2031-01-01T00:00Z 1970-01-01 0001-01-01 9999-12-31T23:59:59Z 2024-03-04T10:00:00+99:99 10:00 Europe UTC".split()
)
_NAMES = b"none email anonymous null ~ true yes \\u0000 \\ud83d ../../etc /dev/zero =1+1 os:system".split()
_SYNTAX = b"\" ' , ; | {} [] *a &a ? - % \0 \xff \xef\xbb\xbf \xe2\x80\xa8".split(b" ")
TOKENS = [
    *(*_NUMBERS, *_TIMES, *_NAMES, *_SYNTAX, b"", b" ", b"\n", b"\r", b"\t"),
    *(b"2024-03-31 02:30", b"[1, 2]", b"{a: 1}", b'{"a":1}', b"&a [*a, *a]", b"- - - -"),
    *(b"9" * 400, b"1" + b"0" * 30, b"%" * 50, b"Email Sent", b"tests.fuzz.malicious:execute"),
]
#: For each ending, how to damage the values inside of a file, and how often that is done in place of its bytes.
_INSIDE: dict[str, tuple[Callable[[random.Random, bytes], bytes], float]] = {
    ".parquet": (damaged_parquet, 0.8),
    ".json": (damaged_json, 0.4),
    ".jsonl": (damaged_json, 0.4),
    ".yaml": (damaged_yaml, 0.3),
    ".pt": (damaged_checkpoint, 0.8),
}


def damaged(rng: random.Random, name: str, content: bytes) -> bytes:
    """Return the content of a file with one to ten mutations; half of those of a compressed file are inside of it."""
    path = PurePath(name)
    if path.suffix in (".gz", ".bz2", ".zip") and rng.random() < 0.7:
        return _damaged_inside(rng, path, content)
    inside, share = _INSIDE.get(path.suffix, (damaged_bytes, 0.0))
    if b'"checksum": ' in content and path.suffix == ".json":
        inside, share = damaged_sealed_json, 0.8
    return inside(rng, content) if rng.random() < share else damaged_bytes(rng, content)


def _damaged_inside(rng: random.Random, path: PurePath, content: bytes) -> bytes:
    if path.suffix == ".gz":
        return gzip.compress(damaged(rng, path.stem, gzip.decompress(content)), mtime=0)
    if path.suffix == ".bz2":
        return bz2.compress(damaged(rng, path.stem, bz2.decompress(content)))
    source, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, damaged(rng, name, source.read(name)))
    return out.getvalue()


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Return content with one to ten mutations of bits, bytes, lines or tokens."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 10])):
        kind, begin = rng.random(), rng.randrange(len(out) + 1)
        end = min(len(out), begin + rng.choice([0, 1, 2, 5, 20, 200]))
        if kind < 0.15:
            out[begin:end] = rng.choice(TOKENS)
        elif kind < 0.25 and begin < len(out):
            out[begin] ^= 1 << rng.randrange(8)
        elif kind < 0.3:
            del out[begin:end]
        elif kind < 0.35:
            out[begin:begin] = out[begin:end] * rng.choice([1, 2, 50])
        elif kind < 0.38:
            del out[begin:]
        elif kind < 0.5:
            _change_lines(rng, out)
        else:
            _change_token(rng, out)
    return bytes(out)


def _change_lines(rng: random.Random, out: bytearray) -> None:
    lines = bytes(out).split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif kind == 1:
        lines.insert(first, lines[second])
    elif kind == 2:
        del lines[first]
    else:
        lines[first] = b"  " + lines[first] if rng.random() < 0.5 else lines[first].lstrip()
    out[:] = b"\n".join(lines)


def _change_token(rng: random.Random, out: bytearray) -> None:
    window = rng.randrange(max(1, len(out)))
    tokens = [match.span() for match in re.finditer(rb'[^,\n":{}\[\] ]+', bytes(out[window : window + 2000]))]
    if tokens:
        first, last = rng.choice(tokens)
        if rng.random() < 0.3:
            begin, end = rng.choice(tokens)
            new = bytes(out[window + begin : window + end])
        else:
            new = rng.choice(TOKENS)
        out[window + first : window + last] = new
