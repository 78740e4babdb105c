"""The checkpointer: the previous checkpoint stays valid until the new one is complete."""

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from support.small_nets import net, same, weights
from torch import nn

from ccsa.checkpoint import Checkpointer
from ccsa.errors import UserError


def test_save_and_resume(tmp_path):
    model, optimizer = net(), None
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    Checkpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000009", iteration=9)
    names = {"model_0000009.pth", "model_0000009.pth.sha256", "last_checkpoint"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"

    for cls in (Checkpointer, DetectionCheckpointer):  # Detectron2's checkpointer reads it as well
        other = net(seed=1)
        steps = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
        checkpointer = cls(other, str(tmp_path), optimizer=steps)
        rest = checkpointer.resume_or_load("not used", resume=True)
        assert rest["iteration"] == 9
        assert same(weights(other), weights(model))
        got, wanted = steps.state_dict()["state"], optimizer.state_dict()["state"]
        assert all(
            torch.equal(got[i]["momentum_buffer"], wanted[i]["momentum_buffer"]) for i in wanted
        )


def test_nothing_is_written_where_nothing_shall_be(tmp_path):
    Checkpointer(net(), "").save("model")
    Checkpointer(net(), str(tmp_path), save_to_disk=False).save("model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError("No space left on device"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_save_that_breaks_leaves_the_old_one_in_force(tmp_path, monkeypatch, error, raised):
    model = net()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_final", iteration=1)
    old, whole = weights(model), (tmp_path / "model_final.pth").read_bytes()
    nn.init.ones_(model[0].weight)

    def broken(content, file):
        file.write(whole[:100])
        raise error

    for name in ("model_final", "model_0000002"):  # an existing and a new name
        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", broken)
            with pytest.raises(raised):
                checkpointer.save(name, iteration=2)
        assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
        assert not (tmp_path / "model_0000002.pth").exists()
        other = net(seed=1)
        rest = Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)
        assert rest["iteration"] == 1 and same(weights(other), old)

    checkpointer.save("model_final", iteration=2)  # leftovers of the interrupted save do not matter
    other = net(seed=1)
    assert Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)["iteration"] == 2
    assert same(weights(other), weights(model))
    assert [p.name for p in tmp_path.glob("*.pth")] == ["model_final.pth"]


def test_the_tag_names_a_file_that_is_whole(tmp_path, monkeypatch):
    """The tag is written last: an interrupt before it leaves the previous tag and its file."""
    checkpointer = Checkpointer(net(), str(tmp_path))
    checkpointer.save("first")

    def stopped(self, name):
        assert torch.load(tmp_path / name, weights_only=True)["iteration"] == 7
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpointer, "tag_last_checkpoint", stopped)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("second", iteration=7)
    assert (tmp_path / "last_checkpoint").read_text() == "first.pth"
    assert (tmp_path / "first.pth").exists()
