"""A sample of the fuzz run (`python -m tests.fuzz` is the whole), and files that try to execute something."""

from __future__ import annotations

from pathlib import Path

import pytest

from crosschannel.core.errors import CrosschannelError
from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import MALICIOUS_YAML, MARK, malicious_archive
from tests.fuzz.targets import TARGETS

BY_NAME = {target.name: target for target in TARGETS}


@pytest.mark.parametrize("n", [450, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_inputs_are_refused_or_read(tmp_path: Path, n: int):
    out = fuzz(tmp_path, n, seed=1)
    assert not out.failures
    assert out.total == n
    # Every target reads and refuses something, or the mutations would be too weak or too strong.
    assert set(out.refused) == set(BY_NAME)
    assert out.equal.total() + len(out.accepted) > n / 50


@pytest.mark.parametrize("name", ["policy.pt", "checkpoint.pt"])
def test_an_archive_that_executes_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    target = BY_NAME["run" if name == "policy.pt" else "checkpoint"]
    (tmp_path / "files").mkdir()
    target.make(tmp_path / "files")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "files" / "run" / name
    path.write_bytes(malicious_archive(path.read_bytes()))
    with pytest.raises(CrosschannelError):
        target.read(tmp_path / "files")
    assert not Path(MARK).exists()


@pytest.mark.parametrize("place", ["configurations", "folder", "buckets", "run"])
@pytest.mark.parametrize("content", MALICIOUS_YAML)
def test_yaml_that_executes_or_explodes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, content: bytes
):
    (tmp_path / "files").mkdir()
    BY_NAME[place].make(tmp_path / "files")
    monkeypatch.chdir(tmp_path)
    name = next(name for name in BY_NAME[place].files if name.endswith(".yaml"))
    (tmp_path / "files" / name).write_bytes(content)
    named_class = content.startswith((b"agent", b"reward")) and place == "configurations"
    if named_class:  # the user's own configuration may name a class; reading it imports nothing
        BY_NAME[place].read(tmp_path / "files")
    else:
        with pytest.raises(CrosschannelError):
            BY_NAME[place].read(tmp_path / "files")
    assert not Path(MARK).exists()
