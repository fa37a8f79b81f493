"""Tests, one folder a package. Helpers are imported as `tests.PACKAGE.samples`, so that two files may share a name."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
