"""A sample of the fuzz run (`python -m tests.fuzz` is the whole), and files that try to execute something."""

from __future__ import annotations

from pathlib import Path

import pytest

from crosschannel.core.errors import CrosschannelError
from tests.fuzz.harness import Prepared, fuzz
from tests.fuzz.malicious import MALICIOUS_YAML, MARK, malicious_archive
from tests.fuzz.targets import TARGETS

BY_NAME = {target.name: target for target in TARGETS}


@pytest.mark.parametrize("n", [240, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_inputs_are_refused_or_read(tmp_path: Path, n: int):
    out = fuzz(tmp_path, n, TARGETS, seed=1)
    assert not out.failures
    assert out.total == n
    # Every target refuses most of its inputs and not all are refused, or the damage would be too weak or too strong.
    for name in BY_NAME:
        assert out.refused[name] > n / len(TARGETS) / 4, name
    assert out.equal.total() + len(out.accepted) > n / 20


@pytest.mark.parametrize(("name", "file"), [("evaluate", "run/policy.pt"), ("resume", "run/checkpoint.pt")])
def test_an_archive_that_executes_something_is_refused(tmp_path: Path, name: str, file: str):
    prepared = Prepared(BY_NAME[name], tmp_path / "files")
    path = prepared.place / file
    path.write_bytes(malicious_archive(path.read_bytes()))
    with pytest.raises(CrosschannelError):
        prepared.read(file)
    assert not (prepared.place / MARK).exists()


@pytest.mark.parametrize("name", ["configurations", "folder", "evaluate"])
def test_yaml_that_executes_or_explodes_is_refused(tmp_path: Path, name: str):
    prepared = Prepared(BY_NAME[name], tmp_path / "files")
    file = next(file for file in prepared.contents if file.endswith(".yaml"))
    for content in MALICIOUS_YAML:
        (prepared.place / file).write_bytes(content)
        if content.startswith((b"agent", b"reward")) and name == "configurations":
            # The user's own configuration may name a class; reading it imports nothing.
            prepared.read(file)
        else:
            with pytest.raises(CrosschannelError):
                prepared.read(file)
        assert not (prepared.place / MARK).exists()
