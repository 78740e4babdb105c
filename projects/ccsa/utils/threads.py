"""Work on many files in threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], description: str
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, computed in threads under a progress bar.

    If an error or the caller ends the iteration early, items that have not been started are
    dropped.

    Args:
        function: is called in up to 8 threads at the same time.
        items: the arguments, one per call.
        description: the text of the progress bar.

    Example:
        >>> list(map_in_threads(abs, [-1, 2, -3], "example"))
        [1, 2, 3]
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in tqdm(futures, desc=description, unit="file", leave=False):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
