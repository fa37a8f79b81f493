"""Files that try to execute something, or that explode when they are read."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

from tests.fuzz.values import sealed

MARK = "executed"
MALICIOUS_YAML = (
    b"!!python/object/apply:tests.fuzz.malicious.execute []\n",
    b"name: !!python/object/apply:tests.fuzz.malicious.execute []\n",
    b"a: &a [x]\nb: [*a, *a]\n",
    b"a: &a [l, l]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 123)),
    b"{" * 5000,
    b"- " * 5000,
    b"name: " + b"9" * 100_000 + b"\n",
    b"agent: {name: 'tests.fuzz.malicious:execute'}\n",
    b"reward: {kind: 'tests.fuzz.malicious:execute'}\n",
)


def execute(*_: object, **__: object) -> None:
    """Leave a mark in the working directory: no file that is read may get this called."""
    Path(MARK).touch()


class Malicious:
    """An object whose pickle executes something when it is read."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return execute, ()


def malicious_archive(content: bytes) -> bytes:
    """Return a PyTorch archive whose pickle executes something, with a checksum that fits it."""
    source, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, pickle.dumps(Malicious()) if name.endswith("data.pkl") else data)
    return sealed(out.getvalue())
