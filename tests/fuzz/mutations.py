"""Mutations of the bytes of a file, and the archives and texts that try to execute something."""

from __future__ import annotations

import io
import random
import re
import zipfile
from pathlib import Path

TOKENS = [
    *(
        b"",
        b'"',
        b"'",
        b"\n",
        b",",
        b";",
        b"\t",
        b"\r",
        b"\0",
        b"\xff",
        b"null",
        b"~",
        b"NaN",
        b".nan",
        b".inf",
        b"1e999",
    ),
    *(
        b"-1",
        b"0",
        b"0x1F",
        b"1_000",
        b"{}",
        b"[]",
        b"true",
        b"yes",
        b"[1, 2]",
        b"{a: 1}",
        b"9" * 400,
        b"1" + b"0" * 30,
    ),
    *(b"2031-01-01T00:00Z", b"1970-01-01", b"0001-01-01", b"9999-12-31T23:59:59Z", b"2024-03-31 02:30", b"10:00"),
    *(b"2024-03-04T10:00:00+99:99", b"1709546400000", b"\\ud83d", b"anonymous", b'{"a":1}', b"Infinity", b"99999d"),
    *(
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"none",
        b"email",
        b"\\u0000",
        b"../../etc",
        b"/dev/zero",
        b"=1+1",
        b"|",
        b"*a",
    ),
    *(b"os:system", b"subprocess:Popen", b"tests.fuzz.mutations:execute", b"&a [*a, *a]", b"? ", b"- - - -", b"%" * 50),
]
MARK = "executed"


def execute(*_: object, **__: object) -> None:
    """What a damaged file must never reach: it leaves a mark in the working directory."""
    Path(MARK).touch()


class Malicious:
    """An object whose pickle executes something when it is read."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return execute, ()


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Content with one to ten mutations of bits, bytes, lines or tokens."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 10])):
        kind, begin = rng.random(), rng.randrange(len(out) + 1)
        end = min(len(out), begin + rng.choice([0, 1, 2, 5, 20, 200]))
        if kind < 0.15:
            out[begin:end] = rng.choice(TOKENS)
        elif kind < 0.3 and begin < len(out):
            out[begin] ^= 1 << rng.randrange(8)
        elif kind < 0.36:
            del out[begin:end]
        elif kind < 0.42:
            out[begin:begin] = out[begin:end] * rng.choice([1, 2, 50])
        elif kind < 0.45:
            del out[begin:]
        elif kind < 0.55:
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
            other = rng.choice(tokens)
            new = bytes(out[window + other[0] : window + other[1]])
        else:
            new = rng.choice(TOKENS)
        out[window + first : window + last] = new


def malicious_archive(content: bytes) -> bytes:
    """A PyTorch archive whose pickle is replaced by one that executes something."""
    import pickle

    source, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, pickle.dumps(Malicious()) if name.endswith("data.pkl") else data)
    return out.getvalue()


MALICIOUS_YAML = (
    b"!!python/object/apply:tests.fuzz.mutations.execute []\n",
    b"name: !!python/object/apply:tests.fuzz.mutations.execute []\n",
    b"a: &a [x]\nb: [*a, *a]\n",
    b"a: &a [l, l]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 123)),
    b"{" * 5000,
    b"- " * 5000,
    b"name: " + b"9" * 100_000 + b"\n",
    b"agent: {name: 'tests.fuzz.mutations:execute'}\n",
    b"reward: {kind: 'tests.fuzz.mutations:execute'}\n",
)
