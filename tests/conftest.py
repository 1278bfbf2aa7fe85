"""Fixtures shared by the tests."""

import sys

import pytest

from pipeline.cli import main


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process; gives (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maskstream", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return int(code or 0), out, err

    return call


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium, for the tests of the page."""
    from tests.browser import browser

    with browser() as found:
        yield found
