import json
import subprocess

import pytest

from theodolite.scripts.results import number, render, update


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def _entry(**fields):
    return {
        "id": "a", "metric": "test/overlap", "setting": "s", "published": 0.2, "published_error": 0.015,
        "measured": 0.25, "stderr": 0.01, "seeds": [0], "met": True, "seconds": 61.4, "threads": 2, "commit": "abc",
        "date": "2026-01-01", "target": "> 0.2", "verdict": "met", "title": "T", "source": "P",
    } | fields  # fmt: skip


def _same(old, new):
    return old["id"] == new["id"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1937.4, 40.317, "1937 +- 40"),
        (366.62, 20.317, "366.6 +- 20.3"),
        (0.2164, 0.005, "0.216 +- 0.005"),
        (0.0, 0.0, "0.000 +- 0.000"),
        (3.2e-11, 4e-12, "3.2e-11 +- 4.0e-12"),
        (2500, None, "2500"),
        ("on par", None, "on par"),
        (None, None, ""),
    ],
)
def test_numbers_keep_the_digits_that_say_something(value, error, text):
    assert number(value, error) == text


def test_written_results_keep_other_claims_and_replace_their_own(checkout):
    update(checkout, [_entry(id="b"), _entry(id="a"), _entry(id="bench", metric="ratio")], _same)
    nested = checkout / "scripts"
    nested.mkdir()
    text, data = update(nested, [_entry(id="b", measured=0.1, met=False, verdict="missed")], _same)
    assert text.parent == data.parent == checkout
    entries = json.loads(data.read_text())
    assert [(entry["id"], entry["measured"]) for entry in entries] == [("a", 0.25), ("b", 0.1), ("bench", 0.25)]
    page = text.read_text()
    assert page == render(entries)
    assert "| s | `test/overlap` | 0.200 +- 0.015 | 0.100 +- 0.010 | > 0.2 | missed | 61 |" in page
    assert page.index("## a") < page.index("## b") < page.index("## Speed")


def test_broken_results_are_not_overwritten(checkout):
    (checkout / "RESULTS.json").write_text("[")
    with pytest.raises(ValueError, match=r"RESULTS.json is no valid JSON"):
        update(checkout, [_entry()], _same)
    assert (checkout / "RESULTS.json").read_text() == "["


def test_write_outside_a_checkout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(FileNotFoundError, match="change into the repository"):
        update(tmp_path, [_entry()], _same)
