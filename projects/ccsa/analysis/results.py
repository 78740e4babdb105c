"""Reading of the results.json of a run, which another program may have written or damaged."""

import contextlib
import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccsa.errors import UserError, shown

MOST_BYTES = 64 << 20
_FIX = "evaluate the run again"

Tasks = dict[str, dict[str, float]]


class Results(NamedTuple):
    """The results of a run.

    Attributes:
        tasks: {task: {metric: value}} of the first test dataset; a value that the file gives as
            null, because the class never occurs, is nan.
        memory: the peak in bytes that the run recorded; None if it did not.
    """

    tasks: Tasks
    memory: int | None


def read_results(file: Path, datasets: Sequence[str] = ()) -> Results:
    """Read the results of a run.

    Args:
        file: the path of results.json.
        datasets: the test datasets of the run. If there are several, the file has the tasks of
            each.

    Raises:
        UserError: the file cannot be read or is not JSON, or a value is not what it must be.
    """
    record = _mapping(_read_json(file), file, "its content")
    content = record.get("results")
    if len(datasets) > 1:
        content = _mapping(content, file, "results").get(datasets[0])
        if content is None:
            raise UserError(
                f"{file} has no results on {datasets[0]}, the first test dataset of its run; {_FIX}"
            )
    tasks = {
        task: {
            metric: _number(value, file, f"{task}/{metric}")
            for metric, value in _mapping(values, file, task).items()
        }
        for task, values in _mapping(content, file, "results").items()
    }
    if not any(tasks.values()):
        raise UserError(
            f"run {file.parent} has evaluated nothing: its {file.name} contains no metric; "
            "evaluate it with a test dataset (DATASETS.TEST)"
        )
    empty = [task for task, values in tasks.items() if not values]
    if empty:
        raise UserError(f"{file} has no metric for the task {shown(empty[0])}; {_FIX}")
    memory = record.get("peak_memory_bytes")
    if memory is not None and not (type(memory) is int and 0 <= memory < 2**63):
        raise UserError(
            f"{file}: peak_memory_bytes must be a number of bytes, not {shown(memory)}; {_FIX}"
        )
    return Results(tasks, memory)


def _read_json(file: Path) -> Any:
    """Return the content of a JSON file, in which no key is given twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{file} gives the key {shown(twice)} twice; {_FIX}")
        return found

    try:
        mode = os.stat(file).st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f"{file} is not a file; {_FIX}")
        with open(file, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UserError(f"{file} is larger than {MOST_BYTES >> 20} MiB; {_FIX}")
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique)
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply to be read; {_FIX}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text; {_FIX}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"{file} is not a record of a run ({reason.partition(';')[0][:200]}); {_FIX}"
        ) from error


def _mapping(value: Any, file: Path, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{file} is not a record of a run: {name} must be a mapping of names, not "
            f"{shown(value)}; {_FIX}"
        )
    return value


def _number(value: Any, file: Path, name: str) -> float:
    """Return a metric; null and NaN become nan."""
    if value is None:
        return math.nan
    number = math.inf
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if math.isinf(number):
        raise UserError(
            f"{file}: the metric {shown(name)} must be a finite number or null, not "
            f"{shown(value)}; {_FIX}"
        )
    return number
