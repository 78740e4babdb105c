"""Errors for users: suggestions for unknown names, and what a command line prints."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ccsa.errors import (
    MissingPackageError,
    UserError,
    at_least,
    missing_package,
    near_misses,
    one_of,
    out_of_memory,
    reports_user_errors,
    suggestion,
    true_or_false,
)


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)
    assert issubclass(MissingPackageError, UserError)
    assert issubclass(MissingPackageError, ImportError)
    error = missing_package("A timm backbone", "timm", "pip install timm")
    assert isinstance(error, MissingPackageError)
    for word in ("A timm backbone", "package timm", "pip install timm"):
        assert word in str(error)


RESNETS = ["stem", "res2", "res3", "res4", "res5"]


@pytest.mark.parametrize(
    ("name", "valid", "options", "text"),
    [
        ("stemm", RESNETS, {}, "; did you mean stem? Available: stem, res2, res3, res4, res5"),
        ("res6", RESNETS, {"limit": 2, "listed": 0}, "; did you mean res5 or res4?"),
        ("res6", RESNETS, {"listed": 0}, "; did you mean res5, res4 or res3?"),
        ("mask", RESNETS, {"listed": 2}, "; available: stem, res2, ..."),
        ("mask", RESNETS, {"listed": 0}, ""),
        ("mask", [], {}, ""),
    ],
)
def test_near_misses_come_before_the_valid_names(name, valid, options, text):
    assert suggestion(name, valid, **options) == text


def test_names_that_differ_more_are_near_with_a_lower_cutoff():
    assert near_misses("voc", ["pascal_voc", "lip"]) == []
    assert near_misses("voc", ["pascal_voc", "lip"], cutoff=0.4) == ["pascal_voc"]


def test_values_out_of_range_are_rejected():
    assert one_of({"a": 1}, "a", "key") == 1 and one_of(["a"], "a", "key") == "a"
    with pytest.raises(UserError, match=r"^key must be one of a, b, not \['a'\]$"):
        one_of(["a", "b"], ["a"], "key")
    at_least(1, size=1)
    for value in (0, True, 1.0, "1"):
        with pytest.raises(UserError, match=r"^size must be an integer of at least 1, not"):
            at_least(1, size=value)
    true_or_false(flag=False)
    with pytest.raises(UserError, match=r"^flag must be true or false, not 'false'$"):
        true_or_false(flag="false")


class Failing(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


MESSAGES = [
    "cannot read a.jpg; replace the file",
    "cannot read a.jpg (ValueError: no JPEG); replace the file",
    "two lines:\n  second",
]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [UserError, MissingPackageError])
def test_a_command_line_prints_the_message_only(capsys, message, workers, kind):
    loader = DataLoader(Failing(kind(message)), num_workers=workers)
    with pytest.raises(SystemExit) as exit:
        reports_user_errors(lambda: list(loader))()
    assert exit.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_other_errors_and_results_pass(capsys):
    assert reports_user_errors(lambda: 3)() == 3
    with pytest.raises(ZeroDivisionError):
        reports_user_errors(lambda: 1 // 0)()

    @reports_user_errors
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit:
        interrupted()
    assert exit.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 7.00 GiB for an array with shape (1, 2)"), "7.00 GiB"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
                "allocate memory: you tried to allocate 4000000000000 bytes. Error code 12"
            ),
            "4000000000000 bytes",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), ""),
        (OSError(12, "Cannot allocate memory"), ""),
    ],
)
def test_too_little_memory_is_one_sentence(capsys, error, more):
    @reports_user_errors
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        main()
    text = capsys.readouterr().err
    assert end.value.code == 2 and text.count("\n") == 1
    assert text.startswith("error: there is not enough memory")
    assert f"({more} more needed)" in text if more else "needed" not in text
    assert "INPUT.CROP.SIZE" in text and "SOLVER.IMS_PER_BATCH" in text


def test_the_allocator_of_torch_is_recognized():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert "1125899906842624 bytes more needed" in out_of_memory(error.value)


def test_other_errors_keep_their_traceback():
    @reports_user_errors
    def main():
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        main()


def test_long_names_are_cut_and_unusable_files_are_one_sentence(capsys, tmp_path):
    @reports_user_errors
    def main(action):
        action()

    def fail():
        raise UserError(f"there is no file {'x' * 5000}; name another")

    for action, expected in (
        (fail, f"error: there is no file {'x' * 300}... name another\n"),
        ((tmp_path / ("x" * 5000)).exists, "cannot be used (File name too long)"),
    ):
        with pytest.raises(SystemExit) as end:
            main(action)
        text = capsys.readouterr().err
        assert end.value.code == 2 and expected in text and len(text) < 450
