"""Clips of video datasets: the frames around each labeled frame, found by their file names.

The records of a video dataset name the folder with the frames of its sequences (``frames_root``).
The name of a frame ends in its number: ``0016E5_08640`` is frame 8640 of the sequence ``0016E5_``.
"""

import functools
import itertools
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.utils.logger import log_first_n

from ccsa.errors import UserError
from ccsa.modeling.clip import Clip

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_NAME = re.compile(r"(.*?)(\d+)")

Record = dict[str, Any]  # one image in Detectron2's dataset format
Frames = dict[int, str]  # a sequence: the file at each position in time


def with_clips(records: Sequence[Record], clip: Clip) -> list[Record]:
    """Return the records with ``clip_file_names``: T files in order of time, including the labeled
    frame.

    Beyond the ends of a sequence its first or last frame is repeated. The log reports how many
    clips have repeated frames, and how many clips of labeled frames have uneven steps in time.

    Args:
        records: records of one or several datasets in Detectron2's format. Datasets without video
            are accepted only if the clip has a single frame.
        clip: the number of frames, their distance and their source.

    Raises:
        UserError: a dataset has no video, raw frames are missing, or no clip has more than one
            distinct frame.
    """
    if clip.frames == 1:
        return [{**record, "clip_file_names": [record["file_name"]]} for record in records]
    without_video = next((r for r in records if "frames_root" not in r), None)
    if without_video:
        raise UserError(
            f"{without_video['file_name']} belongs to a dataset without video, so there are no "
            f"clips of {clip.frames} frames; set INPUT.CLIP.FRAMES 1, or use a video dataset such "
            "as camvid or moving_cue"
        )
    positions = _raw_positions(records) if clip.source == "raw" else _labeled_positions(records)
    result, repeated, single = [], 0, 0
    for record, (position, frames) in zip(records, positions, strict=True):
        first, last = min(frames), max(frames)
        wanted = [min(max(position + offset, first), last) for offset in clip.offsets]
        repeated += len(set(wanted)) < clip.frames
        single += len(set(wanted)) == 1
        missing = next((n for n in wanted if n not in frames), None)
        if missing is not None:
            raise UserError(
                f"frame {missing} of the sequence of {record['file_name']} is not in "
                f"{record['frames_root']}; extract all frames again, as docs/DATASETS.md shows"
            )
        files = [record["file_name"] if n == position else frames[n] for n in wanted]
        result.append({**record, "clip_file_names": files})
    if records and single == len(records):
        raise UserError(
            f"no labeled frame of {Path(records[0]['file_name']).parent} has a neighbor at the "
            f"distance that INPUT.CLIP asks for (SOURCE {clip.source}, offsets {clip.offsets}); "
            "change its keys, or set INPUT.CLIP.FRAMES 1"
        )
    if records:
        _log_summary(result, clip, repeated)
    return result


def _log_summary(records: Sequence[Record], clip: Clip, repeated: int) -> None:
    """Log what the clips are, once per process: checks, loaders and drawings all build them."""
    log = functools.partial(log_first_n, name=__name__, key="message")
    clips = f"{len(records)} clips of {Path(records[0]['file_name']).parent}"
    log(logging.INFO, f"{clips}: {clip.frames} {clip.source} frames each")
    if repeated:
        log(
            logging.WARNING,
            f"{repeated} of {clips} reach beyond their sequence: its first or last frame is "
            "repeated",
        )
    uneven = _count_uneven(records) if clip.source == "labelled" else 0
    if uneven:
        log(
            logging.WARNING,
            f"{uneven} of {clips} jump in time: the distance of their labeled frames differs from "
            "the most common distance in their sequence",
        )


def _count_uneven(records: Sequence[Record]) -> int:
    """Count the clips whose frames are not at the most common distance of their sequence."""
    sequences = defaultdict(list)  # the distances in each clip, without repeated frames
    for record in records:
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
    """Return the sequence and the number of a frame.

    Raises:
        UserError: the name of the file does not end in a number.

    Example:
        >>> frame_of("CamVid/train/0016E5_08640.png")
        ('0016E5_', 8640)
    """
    match = _NAME.fullmatch(Path(file).stem)
    if match is None:
        raise UserError(
            f"{file} has no number at the end of its name; name frames like 0016E5_08640.png"
        )
    return match[1], int(match[2])


def _raw_positions(records: Sequence[Record]) -> list[tuple[int, Frames]]:
    """Return, for each record, the number of its frame and all raw frames of its sequence."""
    folders = {root: _list_frames(Path(root)) for root in {r["frames_root"] for r in records}}
    positions = []
    for record in records:
        sequence, number = frame_of(record["file_name"])
        frames = folders[record["frames_root"]].get(sequence, {})
        if number not in frames:
            raise UserError(
                f"raw frame {sequence}* number {number} is not in {record['frames_root']}; extract "
                "the frames as docs/DATASETS.md shows, or use only labeled frames: "
                "INPUT.CLIP.SOURCE labelled"
            )
        positions.append((number, frames))
    return positions


def _list_frames(folder: Path) -> dict[str, Frames]:
    """Return the frames in a folder by sequence; an empty dict if it does not exist."""
    sequences: dict[str, Frames] = defaultdict(dict)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES and _NAME.fullmatch(path.stem):
            sequence, number = frame_of(path)
            sequences[sequence][number] = str(path)
    return sequences


def _labeled_positions(records: Sequence[Record]) -> list[tuple[int, Frames]]:
    """Return, for each record, its rank among the labeled frames of its folder and sequence, and
    all of these frames by rank."""
    files = [record["file_name"] for record in records]
    keys = [(Path(file).parent, frame_of(file)[0]) for file in files]
    groups = defaultdict(set)
    for key, file in zip(keys, files, strict=True):
        groups[key].add((frame_of(file)[1], file))
    ranked = {key: [file for _, file in sorted(group)] for key, group in groups.items()}
    ranks = {file: rank for group in ranked.values() for rank, file in enumerate(group)}
    frames = {key: dict(enumerate(group)) for key, group in ranked.items()}
    return [(ranks[file], frames[key]) for key, file in zip(keys, files, strict=True)]
