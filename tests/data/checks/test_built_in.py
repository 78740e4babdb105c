"""The built-in datasets have no problems."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.checks.dataset import check_records
from ccsa.data.checks.registered import load_registered
from ccsa.data.problems import Problems
from ccsa.data.synthetic import digits, far_cue, moving_cue
from ccsa.data.synthetic.digits import register_digits
from ccsa.data.synthetic.far_cue import register_far_cue
from ccsa.data.synthetic.moving_cue import register_moving_cue

FAMILIES = {
    "digits": (digits, register_digits, digits.COUNTS),
    "far_cue": (far_cue, register_far_cue, far_cue.COUNTS),
    "moving_cue": (moving_cue, register_moving_cue, moving_cue.COUNTS),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a function that registers a family anew, with few images in a folder of its own."""
    replaced = {}

    def register(family):
        module, function, counts = FAMILIES[family]
        for name in [n for n in DatasetCatalog.list() if n.startswith(family)]:
            replaced[name] = DatasetCatalog.pop(name)
            replaced[name] = (replaced[name], MetadataCatalog.pop(name))
        monkeypatch.setattr(module, "COUNTS", counts)
        monkeypatch.setitem(counts, "train", 24)
        monkeypatch.setitem(counts, "val", 24)
        function(tmp_path)
        return [n for n in DatasetCatalog.list() if n.startswith(family)]

    yield register
    for name, (load, metadata) in replaced.items():
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(
            **{k: v for k, v in metadata.as_dict().items() if k != "name"}
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_built_in_datasets_have_no_problems(small, family):
    names = small(family)
    for name in [n for n in names if "train" in n]:
        problems = Problems()
        other = name.replace("train", "val")
        splits = {"train": load_registered(name, problems), "val": load_registered(other, problems)}
        metadata = MetadataCatalog.get(name)
        found = check_records(
            splits,
            things=metadata.get("thing_classes", ()),
            stuff=metadata.get("stuff_classes", ()),
            cache=False,
        )
        assert not list(problems) and not list(found.problems), list(found.problems)
        assert found.decoded == found.images >= 2 * len(splits["val"])
