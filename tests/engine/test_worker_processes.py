"""Worker processes that do not inherit the state of the main process: forkserver, the default of
Python 3.14 on Linux, and spawn, the default on Windows and macOS."""

import argparse
import json
import os
import pickle
import subprocess
import sys

import pytest

from ccsa.data.loaders import build_test_mapper, build_train_mapper
from ccsa.engine import setup_cfg

PROGRAM = """
import argparse, json, multiprocessing, sys
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from ccsa.data.synthetic import digits
from ccsa.engine import Trainer, setup_cfg
from ccsa.engine.local_processes import launch

digits.COUNTS.update(train=4, val=2)

def load(config):
    options = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "2", "SOLVER.IMS_PER_BATCH", "2"]
    cfg = setup_cfg(argparse.Namespace(config_file=config, opts=options))
    return [sorted(sample) for sample in next(iter(Trainer.build_train_loader(cfg)))]

def registered():
    assert "ContextModel" in META_ARCH_REGISTRY and "digits_train" in DatasetCatalog

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    print(json.dumps(load(sys.argv[2])))
    words = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch(registered, (), words, "cpu")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no forkserver")
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_loaders_and_launched_processes_have_everything_registered(root, tmp_path, method):
    program = tmp_path / "load.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), method, str(root / "configs/digits/ccnet_mask_rcnn.yaml")],
        cwd=tmp_path,
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    batch = json.loads(done.stdout.splitlines()[-1])
    assert len(batch) == 2 and all({"image", "instances"} <= set(sample) for sample in batch)


@pytest.mark.parametrize(
    "config", ["digits/ccnet_mask_rcnn.yaml", "digits/ccnet.yaml", "moving_cue/T5.yaml"]
)
def test_mappers_can_be_sent_to_other_processes(root, config):
    args = argparse.Namespace(config_file=str(root / "configs" / config), opts=[])
    cfg = setup_cfg(args)
    for mapper in (build_train_mapper(cfg), build_test_mapper(cfg)):
        copy = pickle.loads(pickle.dumps(mapper))
        assert type(copy) is type(mapper) and copy.is_train == mapper.is_train
