"""Catalogs of datasets that tests leave as they were."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def separate_datasets():
    """Remove the datasets that a test has registered."""
    names = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
