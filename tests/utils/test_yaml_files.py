"""Reading of YAML files that are damaged or hostile."""

import os
import re

import pytest
from support.refusals import message

from ccsa.utils import yaml_files
from ccsa.utils.yaml_files import read_yaml


@pytest.fixture
def file(tmp_path):
    return tmp_path / "x.yaml"


def test_plain_values_are_read(file):
    file.write_text("a: 1\nb: [x, 2.5, null]\nc: &c {d: true}\ne: *c\n")
    assert read_yaml(file) == {"a": 1, "b": ["x", 2.5, None], "c": {"d": True}, "e": {"d": True}}
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\n")  # as editors on Windows write it
    assert read_yaml(file) == {"a": "é"}
    file.write_text("# only a comment\n")
    assert read_yaml(file) is None


def test_a_merge_key_may_be_overridden(file):
    file.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert read_yaml(file)["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: 1\na: 2\n", r"line 2, column 1: the key a is given twice"),
        (b"a:\n  b: 1\n  b: 1\n", r"line 3, column 3: the key b is given twice"),
        (b"a: [1\n", r"not valid YAML \(line 2, column 1: "),
        (b"a:\n\tb: 1\n", r"line 2, column 1: found character '\\t' that cannot start any token"),
        (b"a: 1\x00\n", "character #x0000"),
        (b"a: !!python/object/apply:os.system ['true']", "tag of Python, .* write the value out"),
        (b"a: !mine 3", "could not determine a constructor for the tag '!mine'"),
        (b"a: 1\n---\nb: 2\n", "expected a single document in the stream but found another"),
        (b"a: 2001-99-99\n", "has a value that cannot be read .*month"),
        (b"a: " + b"9" * 5000, "has a value that cannot be read .*limit"),
        (b"[" * 20000, "nested too deeply"),
        (b"&a [*a]", "aliases refers to itself"),
        (b"a: &a {b: [*a]}", "aliases refers to itself"),
        ("a: 1".encode("utf-16"), "not UTF-8 text .* save it as text in the encoding UTF-8"),
        ("a: é".encode("latin-1"), "not UTF-8 text"),
        (b"#" * (yaml_files.MOST_BYTES + 1), "larger than 1 MiB"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_read_is_named_in_one_sentence(file, content, words):
    file.write_bytes(content)
    text = message(read_yaml, file)
    assert text.startswith(str(file)) and len(text) < 400
    assert re.search(words, text), text


def test_aliases_that_multiply_do_not_take_memory(file):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 100))]
    file.write_text("\n".join(lines))
    assert "stand for more than 100000 values" in message(read_yaml, file)
    file.write_text("\n".join(lines[:10]))
    assert len(read_yaml(file)) == 10


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    assert "is not a regular file" in message(read_yaml, tmp_path / "pipe")
    assert "is a folder" in message(read_yaml, tmp_path)
    assert "cannot be read (No such file or directory)" in message(read_yaml, tmp_path / "x")
    assert "is not a regular file" in message(read_yaml, "/dev/zero")
