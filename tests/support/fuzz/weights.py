"""Damages of checkpoints: of their bytes, their tensors, their keys, and their pickles."""

import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from support.fuzz.settings import ANY, REJECT, damaged

State = dict[str, torch.Tensor]
Change = Callable[[dict, State, str, random.Random], object]


def _value(number: complex) -> Change:
    """Return a change of a random element of a tensor."""

    def change(content: dict, state: State, key: str, rng: random.Random) -> None:
        tensor = state[key].clone(memory_format=torch.contiguous_format)
        tensor.view(-1)[rng.randrange(tensor.numel())] = number
        state[key] = tensor

    return change


def _tensor(make: Callable[[torch.Tensor], object]) -> Change:
    def change(content: dict, state: State, key: str, rng: random.Random) -> None:
        state[key] = make(state[key])

    return change


def _rename(content: dict, state: State, key: str, rng: random.Random) -> None:
    state[rng.choice((key + "x", "", key.replace(".", "/"), "module." + key, "x" * 500))] = (
        state.pop(key)
    )


def _negative_variance(content: dict, state: State, key: str, rng: random.Random) -> None:
    name = rng.choice([k for k in state if k.endswith("running_var")])
    state[name] = -state[name] - 1


def _cycle(content: dict, state: State, key: str, rng: random.Random) -> None:
    content["more"] = content


def _deep(content: dict, state: State, key: str, rng: random.Random) -> None:
    nested: list = []
    for _ in range(100):
        nested = [nested]
    content["more"] = nested


# Changes of floating-point tensors that the model uses: (change, what must happen).
CHANGES: dict[str, tuple[Change, str]] = {
    "NaN": (_value(float("nan")), REJECT),
    "infinity": (_value(float("-inf")), REJECT),
    "complex": (_tensor(lambda t: t.to(torch.complex64)), REJECT),
    "sparse": (_tensor(lambda t: t.to_sparse()), REJECT),
    "quantized": (_tensor(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)), REJECT),
    "text": (_tensor(lambda t: "weights"), REJECT),
    "a number": (_tensor(lambda t: 3), REJECT),
    "null": (_tensor(lambda t: None), REJECT),
    "a list": (_tensor(lambda t: [1, 2]), REJECT),
    "nested": (_tensor(lambda t: {"a": t}), REJECT),
    "no elements": (_tensor(lambda t: t[:0]), REJECT),
    "a scalar": (_tensor(lambda t: t.reshape(-1)[0]), ANY),
    "one more dimension": (_tensor(lambda t: t[None]), ANY),
    "half of the rows": (_tensor(lambda t: t[: max(1, len(t) // 2)].clone()), ANY),
    "another order": (_tensor(lambda t: t.flip(0) if t.dim() else t), ANY),
    "8-bit": (_tensor(lambda t: t.to(torch.uint8)), ANY),
    "boolean": (_tensor(lambda t: t > 0), ANY),
    "bfloat16": (_tensor(lambda t: t.to(torch.bfloat16)), ANY),
    "float64": (_tensor(lambda t: t.double()), ANY),
    "float64 beyond float32": (_tensor(lambda t: t.double() * 1e300 + 1e300), REJECT),
    "float8": (_tensor(lambda t: t.to(torch.float8_e5m2)), ANY),
    "expanded": (_tensor(lambda t: t.reshape(-1)[:1].expand(1 << 40)), REJECT),
    "on another device": (_tensor(lambda t: t.to("meta")), REJECT),
    "removed": (lambda content, state, key, rng: state.pop(key), ANY),
    "renamed": (_rename, ANY),
    "a negative variance": (_negative_variance, REJECT),
    "a key that is a number": (lambda content, state, key, rng: state.update({3: state[key]}), ANY),
    "no state": (lambda content, state, key, rng: state.clear(), REJECT),
    "a cycle": (_cycle, REJECT),
    "deep lists": (_deep, ANY),
    "an unknown entry": (lambda content, state, key, rng: content.update(more={1: {2: "x"}}), ANY),
    "classes that are numbers": (lambda content, state, key, rng: content.update(classes=3), ANY),
}


def _zip_flip(data: bytes, rng: random.Random) -> bytes:
    """Change one bit of the content of a tensor, which the archive's checksum covers."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = rng.choice([e for e in archive.infolist() if "/data/" in e.filename])
    header = data[entry.header_offset : entry.header_offset + 30]
    names, extra = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + names + extra
    changed = bytearray(data)
    changed[start + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
    return bytes(changed)


BYTES: dict[str, tuple[Callable[[bytes, random.Random], bytes], str]] = {
    "a bit of a tensor": (_zip_flip, REJECT),
    "random damage": (damaged, ANY),
    "cut off": (lambda b, r: b[: r.randrange(len(b) - 1)], REJECT),
    "empty": (lambda b, r: b"", REJECT),
    "noise": (lambda b, r: r.randbytes(5000), REJECT),
    "a web page": (lambda b, r: b"<!DOCTYPE html><html>404</html>", REJECT),
    "twice": (lambda b, r: b + b, ANY),
    "a tail": (lambda b, r: b + r.randbytes(70_000), ANY),
    "a number": (lambda b, r: pickle.dumps(3), REJECT),
}


def _pickle(data: bytes, rng: random.Random) -> bytes:
    """Return an archive of torch whose pickle is damaged, with a checksum that fits."""
    source, target = io.BytesIO(data), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                for _ in range(rng.choice((1, 3, 10))):
                    content = damaged(content, rng)
            new.writestr(entry.filename, content)
    return target.getvalue()


BYTES["a damaged pickle"] = (_pickle, ANY)


def damage_weights(file: Path, rng: random.Random) -> tuple[str, str]:
    """Damage a .pth file; return what was done, and what must happen."""
    if rng.random() < 0.4:
        name = rng.choice(sorted(BYTES))
        change, verdict = BYTES[name]
        file.write_bytes(change(file.read_bytes(), rng))
        return name, verdict
    content = torch.load(file, weights_only=True)
    state = content["model"]
    key = rng.choice([k for k, v in state.items() if v.is_floating_point() and v.dim()])
    name = rng.choice(sorted(CHANGES))
    modify, verdict = CHANGES[name]
    modify(content, state, key, rng)
    torch.save(content, file)
    return f"{key}: {name}", verdict


def damage_safetensors(file: Path, rng: random.Random) -> tuple[str, str]:
    """Write the weights of a .pth file as .safetensors beside it, and damage that file."""
    state = {k: v.contiguous() for k, v in torch.load(file, weights_only=True)["model"].items()}
    file = file.with_suffix(".safetensors")
    save_file(state, file)
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    part = rng.choice(("header", "length", "cut", "any"))
    if part == "header":
        data = (
            data[:8]
            + damaged(data[8 : 8 + length], rng)[:length].ljust(length)
            + data[8 + length :]
        )
    elif part == "length":
        data = struct.pack("<Q", rng.choice((0, 1, length - 1, 2**40, 2**64 - 1))) + data[8:]
    elif part == "cut":
        data = data[: rng.randrange(len(data))]
    else:
        data = damaged(data, rng)
    file.write_bytes(data)
    return f"safetensors: {part}", REJECT if part in ("length", "cut") else ANY
