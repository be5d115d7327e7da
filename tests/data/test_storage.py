from pathlib import Path

import pytest

from sslkit.data.storage import check_choice, data_root, one_line


def test_root_argument_then_environment_then_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("SSLKIT_DATA", raising=False)
    assert data_root() == Path("/home/me/.cache/sslkit/data")
    monkeypatch.setenv("SSLKIT_DATA", "~/sets")
    assert data_root() == Path("/home/me/sets")
    assert data_root("~/x") == Path("/home/me/x")
    monkeypatch.setenv("SSLKIT_DATA", "")
    assert data_root(None) == Path("/home/me/.cache/sslkit/data")


def test_choice():
    check_choice("colour", "red", ("red", "green"))
    with pytest.raises(ValueError, match=r"^unknown colour 'gren': choose from red, green; did"):
        check_choice("colour", "gren", ("red", "green"))
    with pytest.raises(ValueError, match=r"^unknown colour None: choose from red, green$"):
        check_choice("colour", None, ("red", "green"))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (EOFError(), "EOFError"),
        (KeyError("x"), "unknown 'x'"),
        (IndexError("x"), "x"),
    ],
)
def test_one_line(error, line):
    assert one_line(error) == line
