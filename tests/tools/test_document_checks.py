"""tools/document_checks.py, which keeps the table in docs/OWN_DATA.md equal to KINDS."""

import sys

import document_checks
import pytest

from ccsa.data.problem_kinds import KINDS


def test_the_table_is_up_to_date():
    text = document_checks.TARGET.read_text("utf-8")
    assert document_checks.document(text) == text, "run python tools/document_checks.py"
    table = text.partition(document_checks.START)[2].partition(document_checks.END)[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == list(KINDS)
    assert all(len(row) == 5 for row in rows)


def test_a_table_that_is_out_of_date_is_reported(tmp_path, monkeypatch):
    file = tmp_path / "OWN_DATA.md"
    file.write_text(f"before\n{document_checks.START}\nobsolete\n{document_checks.END}\nafter\n")
    monkeypatch.setattr(document_checks, "TARGET", file)
    monkeypatch.setattr(sys, "argv", ["document_checks.py", "--check"])
    with pytest.raises(SystemExit, match=r"run python tools/document_checks\.py"):
        document_checks.main()
    monkeypatch.setattr(sys, "argv", ["document_checks.py"])
    document_checks.main()
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "obsolete" not in text
    monkeypatch.setattr(sys, "argv", ["document_checks.py", "--check"])
    document_checks.main()
    file.write_text("no table")
    with pytest.raises(SystemExit, match="lacks the lines"):
        document_checks.main()
