"""Errors for users: suggestions for unknown names, and what a command line prints."""

import pytest
from torch.utils.data import DataLoader, Dataset

from ccsa.errors import (
    MissingPackageError,
    UserError,
    at_least,
    missing_package,
    near_misses,
    one_of,
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
