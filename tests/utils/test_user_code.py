"""``--import``: the user's code runs once, in every process, and its mistakes are named."""

import multiprocessing
import pickle
import sys

import pytest

from ccsa.errors import UserError
from ccsa.utils import user_code
from ccsa.utils.user_code import import_user_code, imported_user_code


@pytest.fixture(autouse=True)
def separate(monkeypatch):
    monkeypatch.setattr(user_code, "_imported", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        sys.modules.pop(name)


def write(folder, name, text):
    file = folder / name
    file.write_text(text)
    return file


def test_files_and_modules_are_imported_once(tmp_path, monkeypatch):
    file = write(tmp_path, "my_block_code.py", "import sys\nsys.counted = sys.counted + 1\n")
    monkeypatch.setattr(sys, "counted", 0, raising=False)
    monkeypatch.chdir(tmp_path)
    names = import_user_code(["my_block_code.py", "json"])
    assert names == (str(file), "json") == imported_user_code()
    import_user_code(names)
    assert sys.counted == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1 / 0\n", r"ZeroDivisionError: division by zero \(line 1\)"),
        ("\n\ndef broken(:\n", r"SyntaxError.*\(line 3\)"),
        ("import no_such_module_at_all\n", "ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_errors_of_the_code_are_one_sentence(tmp_path, text, expected):
    file = write(tmp_path, "my_failing_code.py", text)
    with pytest.raises(UserError, match=expected) as error:
        import_user_code([str(file)])
    assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_names_that_cannot_be_imported_are_rejected(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        import_user_code([str(tmp_path / "gone.py")])
    with pytest.raises(UserError, match="is not a module name; rename the file"):
        import_user_code([str(write(tmp_path, "my-blocks.py", ""))])
    with pytest.raises(UserError, match=r"module named 'json'.*rename the file"):
        import_user_code([str(write(tmp_path, "json.py", ""))])
    with pytest.raises(UserError, match="no_such_module_at_all"):
        import_user_code(["no_such_module_at_all"])


class Importing:
    """Imports code when it is unpickled, as dataset mappers do."""

    def __init__(self, names):
        self.names = names

    def __setstate__(self, state):
        import_user_code(state["names"])
        self.__dict__.update(state)


def look_up(_):
    from ccsa.blocks import CONTEXT_BLOCK_REGISTRY

    return "BlockOfATest" in CONTEXT_BLOCK_REGISTRY


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_code_runs_in_processes_that_are_started_anew(tmp_path, method):
    file = write(
        tmp_path,
        "my_registering_code.py",
        "from torch import nn\nfrom ccsa.blocks import CONTEXT_BLOCK_REGISTRY\n"
        "@CONTEXT_BLOCK_REGISTRY.register()\nclass BlockOfATest(nn.Module): pass\n",
    )
    state = pickle.dumps(Importing((str(file),)))
    with multiprocessing.get_context(method).Pool(1, pickle.loads, (state,)) as pool:
        assert pool.apply(look_up, (0,))
