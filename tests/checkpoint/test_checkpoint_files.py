"""Checkpoints on disk: checksums, damaged files, full disks, and which files are kept."""

import builtins
import errno
import os
import subprocess
import time

import pytest
import torch
from support.small_nets import net, same, weights

from ccsa.checkpoint import Checkpointer, checkpoint_files
from ccsa.checkpoint.checkpoint_files import checksum_file, damage, newest_valid, resumable
from ccsa.errors import UserError


@pytest.fixture
def run(tmp_path):
    """A run folder with checkpoints of the iterations 9, 19 and 29."""
    checkpointer = Checkpointer(net(), str(tmp_path))
    for iteration in (9, 19, 29):
        with torch.no_grad():
            checkpointer.model[0].weight.fill_(iteration)
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return tmp_path


def resumed(folder):
    """Return the iteration and the first weight that a resumed run has."""
    model = net(seed=1)
    rest = Checkpointer(model, str(folder)).resume_or_load("", resume=True)
    return rest["iteration"], model[0].weight.flatten()[0].item()


def break_byte(path, position=-400):
    """Change one byte; the default is a byte of the data of the last tensor."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_every_checkpoint_has_a_checksum_that_sha256sum_verifies(run):
    files = sorted(path.name for path in run.glob("*.sha256"))
    assert files == [f"model_{i:07d}.pth.sha256" for i in (9, 19, 29)]
    subprocess.run(["sha256sum", "--check", "--strict", *files], cwd=run, check=True)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: break_byte(path, 3000),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["one bit", "half", "empty", "missing"],
)
@pytest.mark.parametrize("checksums", [True, False])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(run, logged, harm, checksums):
    if not checksums:
        for file in run.glob("*.sha256"):
            file.unlink()
    harm(run / "model_0000029.pth")
    assert resumed(run) == (19, 19)
    assert "model_0000029.pth: it" in logged.text or "model_0000029.pth: its" in logged.text
    assert f"The newest valid one is used: {run / 'model_0000019.pth'}" in logged.text
    harm(run / "model_0000019.pth")
    assert resumed(run) == (9, 9)
    harm(run / "model_0000009.pth")
    with pytest.raises(UserError, match="has no checkpoint that is complete") as error:
        resumed(run)
    present = list(run.glob("*.pth"))
    assert "model_0000029.pth: it" in str(error.value)
    assert all(f"{path.name}: it" in str(error.value) for path in present)


def test_checksums_inside_a_file_are_verified_if_it_has_no_other(run):
    path = run / "model_0000029.pth"
    checksum_file(path).write_text("not a checksum")
    assert damage(path) == ""
    with torch.no_grad():
        stored = torch.load(path, weights_only=True)["model"]["0.weight"]
    where = path.read_bytes().index(stored.numpy().tobytes())
    break_byte(path, where)
    assert "damaged" in damage(path)


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_last_checkpoint_the_newest_one_is_used(run, logged, content):
    (run / "last_checkpoint").unlink()
    if content is not None:
        (run / "last_checkpoint").write_text(content)
    assert resumed(run) == (29, 29)
    assert "has no last_checkpoint. The newest valid checkpoint is used" in logged.text


def test_the_order_is_that_of_iterations_and_not_of_the_clock(run, logged):
    for age, iteration in enumerate((29, 9, 19)):  # the newest file is that of iteration 29
        os.utime(run / f"model_{iteration:07d}.pth", (0, time.time() - age))
    os.utime(run / "model_0000009.pth", (0, time.time() + 3600))
    (run / "last_checkpoint").unlink()
    names = [f"model_{i:07d}.pth" for i in (29, 19, 9)]
    assert [path.name for path in resumable(run)] == names
    assert resumed(run) == (29, 29) and "clock" not in logged.text
    os.utime(run / "model_0000029.pth", (0, time.time() + 3600))
    assert resumed(run) == (29, 29)
    assert "The clock was set back: model_0000029.pth is 3600 s in the future" in logged.text


def test_the_final_and_the_best_checkpoint_have_their_place_in_the_order(run):
    checkpointer = Checkpointer(net(), str(run))
    checkpointer.save("model_best", is_last=False, iteration=24)
    checkpointer.save("model_ema", is_last=False, iteration=31)  # has no state of the optimizer
    checkpointer.save("model_final", iteration=31)
    (run / "last_checkpoint").write_text("model_0000019.pth")
    names = ["model_0000019", "model_final", "model_0000029", "model_best", "model_0000009"]
    assert [path.stem for path in resumable(run)] == names


def test_the_last_checkpoints_are_kept(tmp_path):
    checkpointer = Checkpointer(net(), str(tmp_path))
    checkpointer.keep = 2
    checkpointer.save("model_0000099", iteration=99)  # of a run that was set back by its user
    for iteration in (9, 19, 29, 39):
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        checkpointer.save("model_best", is_last=False, iteration=iteration)
    (tmp_path / "model_mine.pth").write_text("")
    checkpointer.save("model_final", iteration=40)
    kept = {"model_0000029", "model_0000039", "model_0000099", "model_best", "model_final"}
    assert {path.stem for path in tmp_path.glob("*.pth")} == kept | {"model_mine"}
    assert {path.name.split(".")[0] for path in tmp_path.glob("*.sha256")} == kept
    assert newest_valid(tmp_path).name == "model_final.pth"


def test_a_full_disk_is_one_sentence_and_no_checkpoint_is_lost(run, monkeypatch):
    """torch replaces the error of a write by a RuntimeError about positions in the file."""
    before = {path: path.read_bytes() for path in run.iterdir()}

    def full(name, *args, **kwargs):
        write = args and args[0] == "wb"
        return builtins.open("/dev/full" if write else name, *args, **kwargs)

    checkpointer = Checkpointer(net(width=64), str(run))
    checkpointer.keep = 2
    monkeypatch.setattr(checkpoint_files, "open", full, raising=False)
    for name in ("model_0000029", "model_0000039"):
        with pytest.raises(UserError, match=rf"cannot write .*{name}\.pth \(No space left"):
            checkpointer.save(name, iteration=39)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_an_error_of_torch_that_hides_the_reason_is_replaced(tmp_path, monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def save(content, file):
        file._file = Full()
        try:
            file.write(b"x")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:664] unexpected pos") from None

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError, match=r"cannot write .*\(No space left on device\); free"):
        Checkpointer(net(), str(tmp_path)).save("model", iteration=0)
    monkeypatch.setattr(torch, "save", lambda *_: exec("raise RuntimeError('another one')"))
    with pytest.raises(RuntimeError, match="another one"):
        Checkpointer(net(), str(tmp_path)).save("model", iteration=0)
    assert not list(tmp_path.iterdir())


def test_a_kill_at_any_file_operation_leaves_a_checkpoint(run, monkeypatch):
    """The new file replaces one of the same name. After a kill, it or the former one is valid."""

    class Kill(BaseException):
        pass

    operations = [(os, "replace"), (os, "fsync"), (type(run), "unlink")]
    outcomes = set()
    for count in range(20):
        folder, left = run, count

        def counted(call):
            def operation(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    raise Kill
                return call(*args, **kwargs)

            return operation

        model = net(seed=count)
        with monkeypatch.context() as patch:
            for owner, name in operations:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            killed = False
            try:
                Checkpointer(model, str(folder)).save("model_0000029", iteration=29)
            except Kill:
                killed = True
        assert damage(run / "model_0000029.pth") == ""
        other = net(seed=99)
        assert Checkpointer(other, str(folder)).resume_or_load("", resume=True)["iteration"] == 29
        outcomes.add((killed, same(weights(other), weights(model))))
    assert outcomes == {(True, False), (True, True), (False, True)}


def test_the_fix_for_a_checkpoint_that_does_not_fit_is_possible(run):
    with pytest.raises(UserError, match=r"and another OUTPUT_DIR, without --resume$"):
        Checkpointer(net(width=5), str(run), training=True).resume_or_load("", resume=True)
    with pytest.raises(UserError, match=r"name another file with MODEL\.WEIGHTS$"):
        Checkpointer(net(width=5)).load(str(run / "model_0000029.pth"))
