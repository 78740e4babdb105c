"""The digits dataset: scenes of handwritten digits in COCO's format, written on first use.

They are stored under ``$DETECTRON2_DATASETS`` (default ``./datasets``). The variable is read when
this module is imported, as Detectron2 does for its own datasets:

    digits/{train,val}/000001.jpg                    scenes, 160x160
    digits/annotations/instances_{train,val}.json    COCO instances, category ids 1..10
    digits/annotations/panoptic_{train,val}.json     COCO panoptic, category ids 1..13
    digits/panoptic_{train,val}/000001.png           segment id = R + 256 G + 256^2 B, 0 is void
    digits/panoptic_stuff_{train,val}/000001.png     0 all digits, 1..3 grounds
    digits/sem_seg_{train,val}/000001.png            0..9 the digits, 10..12 the grounds

The registered names are ``digits_{train,val}`` (instances),
``digits_{train,val}_panoptic_separated`` (with the ``panoptic_stuff`` labels that Panoptic FPN
needs) and ``digits_{train,val}_sem_seg``. Validation scenes use scans that no training scene uses.
"""

from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json, load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic

from ccsa.data.paths import datasets_root
from ccsa.data.synthetic.digit_files import KINDS, STUFF_IDS, THING_IDS, THINGS, write_split
from ccsa.data.synthetic.digit_scenes import GROUNDS
from ccsa.data.synthetic.storage import ensure_written, write_version

VERSION = 1  # of the files; if another version is on disk, it is replaced
COUNTS = {"train": 2000, "val": 300}
SEED = 2020
FOLDERS = {"annotations", *(f"{kind}{split}" for kind in KINDS for split in COUNTS)}

COLORS = [
    *([230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48]),
    *([145, 30, 180], [70, 240, 240], [240, 50, 230], [210, 245, 60], [250, 190, 212]),
]
GROUND_COLORS = [[190, 160, 110], [110, 120, 140], [120, 150, 110]]


def ensure_digits(root: Path | str | None = None) -> Path:
    """Return the folder ``root/digits``; write it if it is missing, incomplete or of another
    version, see :func:`ccsa.data.synthetic.storage.ensure_written`."""
    return ensure_written("digits", VERSION, FOLDERS, write_digits, root)


def write_digits(folder: Path, counts: dict[str, int] = COUNTS, seed: int = SEED) -> None:
    """Write the whole dataset into ``folder``, which must not exist; the version file is written
    last."""
    for split, count in counts.items():
        write_split(folder, split, count, seed)
    write_version(folder, VERSION, seed, counts)


def register_digits(root: Path) -> None:
    """Register the three forms of both splits, stored in ``root/digits``.

    The files are written when a split is first loaded; the metadata is available at once.
    """
    folder = root / "digits"
    for split in COUNTS:
        images = str(folder / split)
        instances = str(folder / "annotations" / f"instances_{split}.json")
        stuff = str(folder / f"panoptic_stuff_{split}")
        semantic = str(folder / f"sem_seg_{split}")
        things = {
            "thing_classes": THINGS,
            "thing_colors": COLORS,
            "thing_dataset_id_to_contiguous_id": THING_IDS,
        }

        def load_things(name, images=images, instances=instances):
            ensure_digits(root)
            return load_coco_json(instances, images, name)

        def load_semantic(labels, images=images):
            ensure_digits(root)
            return load_sem_seg(labels, images, image_ext="jpg")

        name = f"digits_{split}"
        DatasetCatalog.register(name, lambda n=name, load=load_things: load(n))
        MetadataCatalog.get(name).set(
            evaluator_type="coco", json_file=instances, image_root=images, built_in=True, **things
        )
        name = f"digits_{split}_panoptic_separated"
        DatasetCatalog.register(
            name,
            lambda n=name, t=load_things, s=load_semantic, labels=stuff: merge_to_panoptic(
                t(n), s(labels)
            ),
        )
        MetadataCatalog.get(name).set(
            evaluator_type="coco_panoptic_seg",
            json_file=instances,
            image_root=images,
            panoptic_root=str(folder / f"panoptic_{split}"),
            panoptic_json=str(folder / "annotations" / f"panoptic_{split}.json"),
            sem_seg_root=stuff,
            ignore_label=255,
            stuff_classes=["things", *GROUNDS],
            stuff_colors=[[128, 128, 128], *GROUND_COLORS],
            stuff_dataset_id_to_contiguous_id={0: 0, **{k: v + 1 for k, v in STUFF_IDS.items()}},
            built_in=True,
            **things,
        )
        name = f"digits_{split}_sem_seg"
        DatasetCatalog.register(name, lambda load=load_semantic, labels=semantic: load(labels))
        MetadataCatalog.get(name).set(
            evaluator_type="sem_seg",
            image_root=images,
            sem_seg_root=semantic,
            ignore_label=255,
            stuff_classes=[*THINGS, *GROUNDS],
            stuff_colors=[*COLORS, *GROUND_COLORS],
            built_in=True,
        )


register_digits(datasets_root())
