"""The stream of training samples: a function of the seed and of the number of batches before.

Detectron2's loader cannot be continued: its samplers start from the beginning, the batches of the
aspect ratios depend on the order in which workers deliver images, and the augmentation draws from
the state of the worker that happens to load an image. Here the order of the samples is a function
of the seed, and the augmentation of a sample one of the seed and its position in the stream.
Training that resumes at iteration i gets the batches that it would have got without the
interruption, with any number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import RandomSubsetTrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ccsa.data.records import image_header
from ccsa.utils.parent_process import end_worker_with_parent
from ccsa.utils.random_states import preserved_random_states, seed_random_states

Sample = tuple[int, int]  # position in the stream, index of the record
_MOST_REPLACEMENTS = 3


class TrainLoader(IterableDataset):
    """An endless stream of batches, lists of the model inputs of one image each.

    Every process of the job gets its own part of the stream.

    Args:
        records: in Detectron2's format, or a map-style dataset of them.
        mapper: from a record to the inputs of the model. Where it returns None, the next record
            takes its place.
        sampler: an endless one of Detectron2, which yields the indices of this process.
        batch_size: of this process.
        seed: of order and augmentation, the same in every process.
        group_shapes: put images that are wider than high, and others, into batches of their own.
        num_workers: processes that load; 0 loads in this process. It does not change the samples.

    Example:
        >>> from detectron2.data.samplers import TrainingSampler
        >>> records = [{"width": 2, "height": 1, "id": i} for i in range(3)]
        >>> loader = TrainLoader(records, dict, TrainingSampler(3), batch_size=2, seed=1)
        >>> batches = iter(loader)
        >>> first, second = next(batches), next(batches)
        >>> loader.resume(1)
        >>> next(iter(loader)) == second
        True
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]] | Dataset,
        mapper: Callable[[dict[str, Any]], Any],
        sampler: Sampler,
        batch_size: int,
        seed: int,
        *,
        group_shapes: bool = False,
        num_workers: int = 0,
    ):
        self.num_workers = num_workers
        wide = [is_wide(record) for record in records] if group_shapes else None  # type: ignore
        dataset = DatasetFromList(records, copy=False) if isinstance(records, list) else records
        self._samples = _SeededSamples(dataset, mapper)
        self._batches = _Batches(sampler, batch_size, wide)
        self.set_seed(seed)

    def set_seed(self, seed: int) -> None:
        """Set the seed; it counts from the next iterator on."""
        self.seed = self._samples.seed = seed
        reseed(self._batches.sampler, seed)

    def resume(self, batches: int) -> None:
        """Begin after a number of batches; the images before are not loaded."""
        self._batches.start = batches

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        # The base seed of workers would otherwise be drawn from the global random state.
        loader = DataLoader(
            self._samples,
            batch_sampler=self._batches,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            generator=torch.Generator().manual_seed(self.seed),
            worker_init_fn=end_worker_with_parent,
        )
        return iter(loader)


class _Batches:
    """The batches of this process as lists of samples; see :class:`TrainLoader`."""

    def __init__(self, sampler: Sampler, size: int, wide: Sequence[bool] | None):
        self.sampler, self.size, self.wide = sampler, size, wide
        self.start = 0
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[list[Sample]]:
        waiting: tuple[list[Sample], list[Sample]] = ([], [])
        count = 0
        for number, index in enumerate(self.sampler):
            batch = waiting[self.wide is not None and self.wide[index]]
            batch.append((number * self.world_size + self.rank, int(index)))
            if len(batch) == self.size:
                if count >= self.start:
                    yield list(batch)
                batch.clear()
                count += 1


class _SeededSamples(Dataset):
    """The samples of a stream: a mapper that draws from random states of each sample's own."""

    def __init__(self, records: Any, mapper: Callable[[dict[str, Any]], Any]):
        self.records, self.mapper = records, mapper
        self.seed = 0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, sample: Sample) -> Any:
        position, index = sample
        with preserved_random_states(devices=False):
            seed_random_states(self.seed, position, devices=False)
            for replacement in range(_MOST_REPLACEMENTS + 1):
                result = self.mapper(self.records[(index + replacement) % len(self.records)])
                if result is not None:
                    return result
        raise RuntimeError(
            f"the mapper returns None for record {index} and the {_MOST_REPLACEMENTS} after it"
        )


def reseed(sampler: Sampler, seed: int) -> None:
    """Set the seed of a training sampler of Detectron2, the order and the subset included."""
    if hasattr(sampler, "_seed"):
        sampler._seed = seed
    if isinstance(sampler, RandomSubsetTrainingSampler):
        generator = torch.Generator().manual_seed(seed)
        sampler._seed_subset = seed
        order = torch.randperm(sampler._size, generator=generator)
        sampler._indexes_subset = order[: sampler._size_subset]


def is_wide(record: dict[str, Any]) -> bool:
    """Return whether the image of a record is wider than high; from its header if necessary.

    An image that cannot be read counts as not wide: its error is reported when it is loaded.
    """
    if "width" in record and "height" in record:
        return record["width"] > record["height"]
    try:
        header = image_header(record["file_name"])
    except OSError:
        return False
    return header.width > header.height


def _unchanged(batch: list) -> list:
    return batch
