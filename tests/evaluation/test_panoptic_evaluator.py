"""The panoptic evaluator of models, from outputs to results, in one process and in two."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from support import panoptic_files as files

from ccsa.errors import UserError
from ccsa.evaluation import PanopticQualityEvaluator, evaluate_files, main_metric
from ccsa.evaluation.panoptic_tables import as_json

NAME = "panoptic_pair"
THINGS, STUFF = {1: 0, 3: 1}, {0: 0, 7: 1, 9: 2}  # as in Panoptic FPN, stuff 0 is all things
IMAGES = 7


def register(folder: Path) -> None:
    MetadataCatalog.pop(NAME, None)
    MetadataCatalog.get(NAME).set(
        panoptic_json=str(folder / "gt.json"),
        panoptic_root=str(folder / "gt"),
        thing_dataset_id_to_contiguous_id=THINGS,
        stuff_dataset_id_to_contiguous_id=STUFF,
        label_divisor=1000,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return files.write_pair(tmp_path_factory.mktemp("panoptic"), IMAGES)


@pytest.fixture(autouse=True)
def registered(pair):
    register(pair)
    yield
    MetadataCatalog.pop(NAME)


def outputs_of(folder: Path, name: str = "pred"):
    """Return (input, output) of each image, as if a model had predicted the files."""
    from ccsa.data.panoptic import read_segment_ids

    for entry in json.loads((folder / f"{name}.json").read_text())["annotations"]:
        ids = read_segment_ids(folder / name / entry["file_name"]).astype(np.int32)
        infos = []
        for segment in entry["segments_info"]:
            number = segment["category_id"]
            isthing = number in THINGS
            number = (THINGS if isthing else STUFF)[number]
            infos.append({"id": segment["id"], "category_id": number, "isthing": isthing})
        output = {"panoptic_seg": (torch.from_numpy(ids), infos)}
        yield {"image_id": entry["image_id"]}, output


def evaluated(pairs, evaluator=None):
    evaluator = evaluator or PanopticQualityEvaluator(NAME)
    evaluator.reset()
    for item, output in pairs:
        evaluator.process([item], [output])
    return evaluator.evaluate()["panoptic_seg"]


def of_files(folder, pred_json, pred_dir):
    quality, _ = evaluate_files(folder / "gt.json", folder / "gt", pred_json, pred_dir)
    return quality.results()


def test_it_agrees_with_the_files(pair):
    results = evaluated(outputs_of(pair))
    expected = of_files(pair, pair / "pred.json", pair / "pred")
    for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for key in ("pq", "sq", "rq"):
            assert results[key.upper() + suffix] == 100 * expected[group][key] > 10
    assert results["PQ-cat"] == 100 * expected["per_class"][1]["pq"]
    assert results["RQ-sea"] == 100 * expected["per_class"][9]["rq"]
    assert len(results) == 9 + 3 * 4
    assert main_metric({"panoptic_seg": results}) == ("panoptic quality", results["PQ"])


def test_a_second_evaluation_begins_anew(pair):
    evaluator = PanopticQualityEvaluator(NAME)
    first = evaluated(outputs_of(pair), evaluator)
    assert evaluated(outputs_of(pair), evaluator) == first


def test_files_are_written_on_request_and_give_the_same(pair, tmp_path):
    evaluator = PanopticQualityEvaluator(NAME, tmp_path, write_files=True)
    results = evaluated(outputs_of(pair), evaluator)
    written = tmp_path / "panoptic_predictions.json"
    expected = of_files(pair, written, tmp_path / "panoptic_predictions")
    assert results["PQ"] == 100 * expected["All"]["pq"]
    content = json.loads(written.read_text())
    assert content["categories"] == files.CATEGORIES
    assert [image["id"] for image in content["images"]] == list(range(1, IMAGES + 1))
    assert len(list((tmp_path / "panoptic_predictions").iterdir())) == IMAGES


def test_no_files_are_written_unasked(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    evaluated(outputs_of(pair), PanopticQualityEvaluator(NAME, tmp_path / "out"))
    assert [file.name for file in tmp_path.rglob("*.*")] == ["panoptic_counts.json"]
    with pytest.raises(ValueError, match="output_dir"):
        PanopticQualityEvaluator(NAME, write_files=True)


def test_tables_are_logged(pair, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccsa"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="ccsa"):
        results = evaluated(outputs_of(pair))
    for line in (f"{results['PQ']:.3f}", f"{results['SQ_st']:.3f}", "Things", "cat", "sea"):
        assert line in caplog.text


def test_a_map_of_labels_without_segments(pair):
    """Labels are class * label_divisor + instance, -1 for void; things and stuff share one range of
    classes, as in Detectron2's Cityscapes."""
    metadata = MetadataCatalog.get(NAME)
    MetadataCatalog.pop(NAME)
    rows = {key: metadata.get(key) for key in ("panoptic_json", "panoptic_root", "label_divisor")}
    MetadataCatalog.get(NAME).set(
        thing_dataset_id_to_contiguous_id={1: 0, 3: 1},
        stuff_dataset_id_to_contiguous_id={7: 2, 9: 3},
        **rows,
    )
    labelled = []
    for item, output in outputs_of(pair):
        ids, infos = output["panoptic_seg"]
        labels = torch.full_like(ids, -1)
        for number, info in enumerate(infos):
            row = info["category_id"] if info["isthing"] else info["category_id"] + 1
            labels[ids == info["id"]] = row * 1000 + number
        labelled.append((item, {"panoptic_seg": (labels, None)}))
    before = [output["panoptic_seg"][0].clone() for _, output in labelled]
    results = evaluated(labelled)
    expected = of_files(pair, pair / "pred.json", pair / "pred")
    assert results["PQ"] == pytest.approx(100 * expected["All"]["pq"], abs=1e-9)
    for (_, output), labels in zip(labelled, before, strict=True):
        assert torch.equal(output["panoptic_seg"][0], labels)  # the model's output is not modified


def test_category_ids_of_the_dataset_are_taken_as_they_are(pair):
    def direct():
        for item, output in outputs_of(pair):
            ids, infos = output["panoptic_seg"]
            for info in infos:
                inverse = {v: k for k, v in (THINGS if info["isthing"] else STUFF).items()}
                info["category_id"] = inverse[info["category_id"]]
                del info["isthing"]
            yield item, {"panoptic_seg": (ids, infos)}

    assert evaluated(direct()) == evaluated(outputs_of(pair))


def nothing(item, output):
    return item, {"panoptic_seg": (torch.zeros_like(output["panoptic_seg"][0]), [])}


def test_nothing_found_is_zero_and_finite(pair):
    results = evaluated(nothing(*found) for found in outputs_of(pair))
    assert set(results.values()) == {0.0}


def test_images_that_did_not_come_count_as_missed(pair, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccsa"), "propagate", True)
    found = list(outputs_of(pair))
    expected = evaluated([found[0], *(nothing(*rest) for rest in found[1:])])
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert expected["PQ"] > 0 and not warnings
    with caplog.at_level(logging.WARNING, logger="ccsa"):
        assert evaluated(found[:1]) == expected
        assert f"{IMAGES - 1} of {IMAGES} images were not predicted" in caplog.text
        assert set(evaluated([]).values()) == {0.0}
    assert f"{IMAGES} of {IMAGES} images were not predicted" in caplog.text


def test_a_class_that_does_not_occur_is_nan(tmp_path):
    ids = np.array([[5, 5], [0, 0]])
    files.write_png(tmp_path / "gt" / "1.png", ids)
    entry = {"image_id": 1, "file_name": "1.png"}
    segment = {"id": 5, "category_id": 1, "area": 2, "iscrowd": 0}
    files.write_json(tmp_path / "gt.json", [{**entry, "segments_info": [segment]}])
    register(tmp_path)
    output = torch.tensor([[8, 8], [0, 0]]), [{"id": 8, "category_id": 0, "isthing": True}]
    results = evaluated([({"image_id": 1}, {"panoptic_seg": output})])
    assert results["PQ"] == results["PQ_th"] == results["PQ-cat"] == 100
    assert all(math.isnan(results[key]) for key in ("PQ_st", "PQ-dog", "SQ-sky", "RQ-sea"))


def spoilt(pair, change):
    item, output = next(iter(outputs_of(pair)))
    ids, infos = output["panoptic_seg"]
    ids = change(item, ids, infos)
    return [(item, {"panoptic_seg": (ids, infos)})]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda item, ids, infos: item.update(image_id=99) or ids, ["image 99", "gt.json"]),
        (
            lambda item, ids, infos: torch.where(ids == 0, -1, ids),
            [
                "the prediction for image 1",
                "is in the segmentation but not in the list of segments",
            ],
        ),
        (lambda item, ids, infos: ids[:-1], ["image 1", "40x29", "40x30"]),
        (
            lambda item, ids, infos: infos.pop() and ids,
            ["image 1", "in the segmentation but not in the list of segments"],
        ),
        (
            lambda item, ids, infos: (
                infos.append({"id": 2, "category_id": 0, "isthing": True}) or ids
            ),
            ["image 1", "segment 2 is in the list of segments but not in the segmentation"],
        ),
        (
            lambda item, ids, infos: infos[0].update(category_id=44, isthing=True) or ids,
            ["image 1", "class 44", "things", NAME],
        ),
        # Stuff 0 stands for all things, so a model must not return it as a segment.
        (
            lambda item, ids, infos: infos[0].update(category_id=0, isthing=False) or ids,
            ["image 1", "unknown category 0"],
        ),
    ],
)
def test_outputs_that_do_not_fit_are_named(pair, change, words):
    with pytest.raises(UserError) as error:
        evaluated(spoilt(pair, change))
    assert all(word in str(error.value) for word in words), error.value


def test_a_model_without_panoptic_output_is_named(pair):
    outputs = [(item, {"sem_seg": None, "instances": None}) for item, _ in outputs_of(pair)]
    with pytest.raises(UserError, match=r"has sem_seg, instances and no panoptic_seg: .*TILES"):
        evaluated(outputs)


def test_ground_truth_that_is_not_there_is_named(pair, tmp_path):
    MetadataCatalog.pop(NAME)
    register(tmp_path)
    with pytest.raises(UserError, match=r"gt\.json does not exist"):
        PanopticQualityEvaluator(NAME)


def in_one_of_two(rank: int, folder: Path) -> None:
    """Run one process of a group of two, each of which evaluates every second image."""
    from detectron2.utils import comm

    address = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    comm.create_local_process_group(2)
    register(folder)
    evaluator = PanopticQualityEvaluator(NAME, folder / "out", write_files=True)
    for item, output in list(outputs_of(folder))[rank::2]:
        evaluator.process([item], [output])
    results = evaluator.evaluate()
    (folder / f"results{rank}.json").write_text(json.dumps(results))
    comm.synchronize()
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    folder = files.write_pair(tmp_path, IMAGES)
    here = Path(__file__)
    code = (
        f"import sys; sys.path[:0] = [{str(here.parents[1])!r}, {str(here.parent)!r}]; "
        "from pathlib import Path; import test_panoptic_evaluator as test; "
        f"test.in_one_of_two(int(sys.argv[1]), Path({str(folder)!r}))"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors.decode()[-3000:]
    finally:
        for process in processes:
            process.kill()
    register(folder)
    expected = evaluated(outputs_of(folder))
    both = json.loads((folder / "results0.json").read_text())["panoptic_seg"]
    assert both == expected  # bitwise, because sums follow the order of the ground truth
    assert json.loads((folder / "results1.json").read_text()) is None
    written = folder / "out" / "panoptic_predictions"
    files_of_both = of_files(folder, written.with_suffix(".json"), written)
    assert as_json(files_of_both)["All"]["pq"] == expected["PQ"] / 100


def test_missing_metadata_are_named(pair):
    del MetadataCatalog.get(NAME).panoptic_root
    with pytest.raises(UserError, match=f"metadata of {NAME} have no panoptic_root"):
        PanopticQualityEvaluator(NAME)


def test_classes_of_one_name_are_told_apart_and_arrays_are_taken(pair, tmp_path):
    content = json.loads((pair / "gt.json").read_text())
    for category in content["categories"]:
        category["name"] = "thing"
    (tmp_path / "gt.json").write_text(json.dumps(content))
    expected = evaluated(outputs_of(pair))
    metadata = MetadataCatalog.get(NAME).as_dict() | {"panoptic_json": str(tmp_path / "gt.json")}
    MetadataCatalog.pop(NAME)
    MetadataCatalog.get(NAME).set(**{k: v for k, v in metadata.items() if k != "name"})
    arrays = [
        (item, {"panoptic_seg": (output["panoptic_seg"][0].numpy(), output["panoptic_seg"][1])})
        for item, output in outputs_of(pair)
    ]
    found = evaluated(arrays)
    assert found["PQ"] == expected["PQ"] and len(found) == len(expected)
    assert {"PQ-thing 1", "PQ-thing 9"} <= set(found)
