"""The packages core and histories: what they export exists, and settings are read without heavy imports."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from tests import ROOT


@pytest.mark.parametrize("name", ["core", "histories"])
def test_everything_that_a_package_exports_exists(name):
    package = importlib.import_module(f"crosschannel.{name}")
    assert package.__doc__
    for exported in package.__all__:
        assert getattr(package, exported) is not None


@pytest.mark.parametrize("name", ["Goal", "SlotGrid", "TableMapping", "StreamMapping", "ContextSpec", "Guardrails"])
def test_settings_are_imported_without_scipy_and_torch(name):
    code = f"from crosschannel.histories import {name}; import json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & {"torch", "scipy", "matplotlib"}
