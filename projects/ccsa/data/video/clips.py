"""Clips: the frames around each labelled one, found by their names, and augmented as one.

A dataset of video says in its records where the frames of its sequences lie (``frames_root``). The
name of a frame ends in its number: ``0016E5_08640`` is frame 8640 of the sequence ``0016E5_``.
"""

import functools
import itertools
import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.data import transforms as T
from detectron2.utils.logger import log_first_n
from fvcore.transforms.transform import Transform

from ccsa.errors import UserError
from ccsa.modeling.clip import Clip, takes_clips

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_NAME = re.compile(r"(.*?)(\d+)")

Frames = dict[int, str]  # of a sequence: files by their place in time


def clip_dataset(cfg: CfgNode, names: Sequence[str]) -> dict[str, list[dict]]:
    """For a video model ``{"dataset": records}``, an argument of Detectron2's loaders, with a clip
    in each record; for any other model nothing.

    Raises:
        UserError: see :func:`with_clips`.
    """
    if not takes_clips(cfg):
        return {}
    return {"dataset": with_clips(get_detection_dataset_dicts(list(names)), Clip.of(cfg))}


def with_clips(records: Sequence[dict], clip: Clip) -> list[dict]:
    """The records with ``clip_file_names``, T files in order of time, the labelled one among them.

    Beyond the ends of a sequence its first or last frame is repeated; how often is logged, and how
    many clips of labelled frames jump in time.

    Args:
        records: in Detectron2's format, of one or several datasets.
        clip: with one frame, any records will do.

    Raises:
        UserError: a dataset without video, raw frames that are not there, no clip with more than
            one frame in it.
    """
    if clip.frames == 1:
        return [{**record, "clip_file_names": [record["file_name"]]} for record in records]
    lacking = next((r for r in records if "frames_root" not in r), None)
    if lacking:
        raise UserError(
            f"{lacking['file_name']} is of a dataset without video, so that there are no clips of "
            f"{clip.frames} frames; set INPUT.CLIP.FRAMES 1, or train on camvid or moving_cue"
        )
    places = _raw(records) if clip.source == "raw" else _labelled(records)
    found, repeats, empty = [], 0, 0
    for record, (place, frames) in zip(records, places, strict=True):
        first, last = min(frames), max(frames)
        wanted = [min(max(place + offset, first), last) for offset in clip.offsets]
        repeats += len(set(wanted)) < clip.frames
        empty += len(set(wanted)) == 1
        absent = next((n for n in wanted if n not in frames), None)
        if absent is not None:
            raise UserError(
                f"frame {absent} of the sequence of {record['file_name']} is not in "
                f"{record['frames_root']}; extract all frames again, as docs/DATASETS.md shows"
            )
        files = [record["file_name"] if n == place else frames[n] for n in wanted]
        found.append({**record, "clip_file_names": files})
    if records and empty == len(records):
        raise UserError(
            f"no frame of {Path(records[0]['file_name']).parent} has a neighbour where INPUT.CLIP "
            f"looks (SOURCE {clip.source}, steps {clip.offsets}); change its keys, or set FRAMES 1"
        )
    if records:
        _log_counts(found, clip, repeats)
    return found


def _log_counts(found: Sequence[dict], clip: Clip, repeats: int) -> None:
    """Say what clips these are, once a process: checks, loaders and drawings all ask for them."""
    log = functools.partial(log_first_n, name=__name__, key="message")
    clips = f"{len(found)} clips of {Path(found[0]['file_name']).parent}"
    log(logging.INFO, f"{clips}: {clip.frames} {clip.source} frames each")
    if repeats:
        log(
            logging.WARNING,
            f"{repeats} of {clips} reach beyond their sequence: its first or last frame is "
            "repeated",
        )
    uneven = _uneven(found) if clip.source == "labelled" else 0
    if uneven:
        log(
            logging.WARNING,
            f"{uneven} of {clips} jump in time: labelled frames that are neighbours lie farther or "
            "less far apart there than mostly in their sequence",
        )


def _uneven(found: Sequence[dict]) -> int:
    """How many clips have frames that are not as far apart as most in their sequence."""
    sequences = defaultdict(list)  # for each clip its steps, but those of 0 at an end
    for record in found:
        numbers = [frame_of(file)[1] for file in record["clip_file_names"]]
        steps = {b - a for a, b in itertools.pairwise(numbers) if a != b}
        key = Path(record["file_name"]).parent, frame_of(record["file_name"])[0]
        sequences[key].append(steps)
    uneven = 0
    for clips in sequences.values():
        usual = {step for step, _ in Counter(itertools.chain(*clips)).most_common(1)}
        uneven += sum(not steps <= usual for steps in clips)
    return uneven


def frame_of(file: str | Path) -> tuple[str, int]:
    """Sequence and number of a frame.

    Raises:
        UserError: its name does not end in a number.
    """
    match = _NAME.fullmatch(Path(file).stem)
    if match is None:
        raise UserError(f"{file} has no number at the end of its name; name it as 0016E5_08640.png")
    return match[1], int(match[2])


def _raw(records: Sequence[dict]) -> list[tuple[int, Frames]]:
    """The number of each record's frame, and all frames of its sequence."""
    listed = {root: _sequences(Path(root)) for root in {r["frames_root"] for r in records}}
    places = []
    for record in records:
        sequence, number = frame_of(record["file_name"])
        frames = listed[record["frames_root"]].get(sequence, {})
        if number not in frames:
            raise UserError(
                f"raw frame {sequence}* number {number} is not in {record['frames_root']}; extract "
                "the frames as docs/DATASETS.md shows, or take labelled frames alone: "
                "INPUT.CLIP.SOURCE labelled"
            )
        places.append((number, frames))
    return places


def _sequences(root: Path) -> dict[str, Frames]:
    """The frames in a folder, by sequence; nothing if it is not there."""
    found: dict[str, Frames] = defaultdict(dict)
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.suffix.lower() in SUFFIXES and _NAME.fullmatch(path.stem):
            sequence, number = frame_of(path)
            found[sequence][number] = str(path)
    return found


def _labelled(records: Sequence[dict]) -> list[tuple[int, Frames]]:
    """The rank of each record among those of its folder and sequence, and all of these by rank."""
    files = [record["file_name"] for record in records]
    keys = [(Path(file).parent, frame_of(file)[0]) for file in files]
    groups = defaultdict(set)
    for key, file in zip(keys, files, strict=True):
        groups[key].add((frame_of(file)[1], file))
    ranked = {key: [file for _, file in sorted(group)] for key, group in groups.items()}
    ranks = {file: rank for group in ranked.values() for rank, file in enumerate(group)}
    frames = {key: dict(enumerate(group)) for key, group in ranked.items()}
    return [(ranks[file], frames[key]) for key, file in zip(keys, files, strict=True)]


class ClipInput(T.AugInput):
    """Augmentations look at the labelled frame and its labels; what they choose is done to every
    frame.

    Args:
        frames: (H, W, 3) each, of one size.
        labelled: index of the labelled one.
        sem_seg: (H, W) labels, or None.
    """

    def __init__(self, frames: Sequence[np.ndarray], labelled: int, sem_seg: np.ndarray | None):
        super().__init__(frames[labelled], sem_seg=sem_seg)
        self.frames, self.labelled = list(frames), labelled

    def transform(self, tfm: Transform) -> None:
        # Colour jitter draws when it is applied, from this generator: the same for each frame.
        state = random.getstate()
        for index, frame in enumerate(self.frames):
            random.setstate(state)
            self.frames[index] = tfm.apply_image(frame)
        self.image = self.frames[self.labelled]
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)
