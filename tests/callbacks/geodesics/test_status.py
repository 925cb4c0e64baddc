"""The line that says what a long search is doing."""

import io

import pytest
from rich.console import Console

from theodolite.callbacks.geodesics import status


@pytest.mark.parametrize("show", [True, False])
def test_line_says_the_stage_and_how_far_it_is(monkeypatch, show):
    terminal = io.StringIO()
    monkeypatch.setattr(status, "Console", lambda **_: Console(file=terminal, force_terminal=True, width=80))
    status.stage("nobody listens")
    with status.status_line(show=show):
        status.stage("level 0.1.")
        status.detail("Step 5 of 9.")
    status.detail("nobody listens")
    assert ("level 0.1. Step 5 of 9." in terminal.getvalue()) == show
    assert "nobody" not in terminal.getvalue()
