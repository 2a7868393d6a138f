import hashlib
import json
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def metadata(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"]


def holds(path: Path, state: dict[str, torch.Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in found)


@pytest.fixture
def converted(forked_rbl, tmp_path):
    """Runs rbl convert to a good end, and returns what it prints."""

    def run(*arguments: object) -> str:
        done = forked_rbl("convert", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_state_dict_needs_no_flag(converted, tmp_path, zipped):
    source, out = tmp_path / "net.pt", tmp_path / "out.safetensors"
    torch.save(net().state_dict(), source, _use_new_zipfile_serialization=zipped)
    said = converted("net.pt", "--out", "out.safetensors")
    assert said == f"out.safetensors: 4 tensors of 26 numbers; net.pt has sha256 {sha256(source)}\n"
    assert holds(out, net().state_dict())
    told = metadata(out)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", told.pop("converted"))
    assert told == {
        "format": "pt",
        "source": "net.pt",
        "source_sha256": sha256(source),
        "read": "weights-only",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt", "out.safetensors"]


def test_without_a_name_it_is_written_beside_the_file(converted, forked_refused, tmp_path):
    torch.save({"state_dict": net().state_dict(), "epoch": 3}, tmp_path / "net.v2.pth")
    converted("net.v2.pth")
    assert holds(tmp_path / "net.v2.safetensors", net().state_dict())
    said = forked_refused("convert", "net.v2.pth")
    assert "net.v2.safetensors exists already; name the file to write with --out" in said


def test_the_entry_that_is_meant(converted, forked_refused, tmp_path):
    average = {name: tensor / 2 for name, tensor in net().state_dict().items()}
    torch.save({"model": net().state_dict(), "ema": average}, tmp_path / "c.ckpt")
    said = forked_refused("convert", "c.ckpt")
    assert "weights in 2 entries (model, ema)" in said
    converted("c.ckpt", "--key", "ema")
    assert holds(tmp_path / "c.safetensors", average)


def test_tensors_that_share_memory_are_written_each(converted, tmp_path):
    table = torch.arange(12.0).reshape(3, 4)
    state = {"a": table, "b": table, "column": table[:, 1], "turned": table.T, "row": table[2]}
    torch.save(state, tmp_path / "net.pt")
    converted("net.pt")
    assert holds(tmp_path / "net.safetensors", state)


def test_a_pickled_module_takes_the_flag(converted, forked_refused, tmp_path):
    source = tmp_path / "net.pt"
    torch.save(net(), source)
    said = forked_refused("convert", "net.pt", "--out", "out.safetensors")
    for part in ("torch.nn.modules.linear.Linear", "rbl convert net.pt --unsafe-pickle"):
        assert part in said
    said = converted("net.pt", "--out", "out.safetensors", "--unsafe-pickle")
    assert said.splitlines()[0] == f"opening net.pt, sha256 {sha256(source)}"
    assert holds(tmp_path / "out.safetensors", net().state_dict())
    told = metadata(tmp_path / "out.safetensors")
    assert told["read"] == "unsafe-pickle"
    assert told["source_sha256"] == sha256(source)


def test_a_module_among_what_a_training_keeps(converted, tmp_path):
    torch.save({"epoch": 2, "model": net(), "ema": None}, tmp_path / "net.pt")
    converted("net.pt", "--unsafe-pickle")
    assert holds(tmp_path / "net.safetensors", net().state_dict())


def test_a_plain_pickle_of_arrays(converted, forked_refused, tmp_path):
    arrays = {name: tensor.numpy() for name, tensor in net().state_dict().items()}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"model": arrays}))
    said = forked_refused("convert", "net.pkl")
    assert "it would import numpy" in said
    converted("net.pkl", "--unsafe-pickle")
    assert holds(tmp_path / "net.safetensors", net().state_dict())


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_flag_runs_what_is_in_the_pickle_and_nothing_else_does(
    forked_rbl, forked_refused, tmp_path
):
    torch.save({"model": net().state_dict(), "note": Touch(tmp_path / "ran")}, tmp_path / "net.pt")
    said = forked_refused("convert", "net.pt")
    assert "it would import __builtin__.getattr, pathlib.Path, pathlib.PosixPath;" in said
    assert not (tmp_path / "ran").exists()
    done = forked_rbl("convert", "net.pt", "--unsafe-pickle", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "ran").exists()
    assert holds(tmp_path / "net.safetensors", net().state_dict())


class Gone:
    def __reduce__(self):
        return int, ("no number",)


@pytest.mark.parametrize(
    ("held", "part"),
    [
        (Gone(), "the pickle cannot be opened (ValueError: invalid literal for int()"),
        (np.float32(3), "no dict of tensors but an object of float32"),
        ({"a": nn.ReLU()}, "holds no tensors"),
        ({"a": torch.full((2,), torch.nan)}, "a is NaN"),
    ],
)
def test_what_is_found_behind_the_flag_is_checked_too(forked_rbl, tmp_path, held, part):
    torch.save(held, tmp_path / "net.pt")
    done = forked_rbl("convert", "net.pt", "--unsafe-pickle", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == f"opening net.pt, sha256 {sha256(tmp_path / 'net.pt')}\n"
    assert re.fullmatch(r"rbl: .+\n", done.stderr)
    assert part in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("gone.pt",), "gone.pt does not exist"),
        (("net.safetensors",), "is a safetensors file already"),
        (("net.pt", "--out", "net.pth"), "--out net.pth is no .safetensors file"),
        (("net.pt", "--out", "no/net.safetensors"), "the folder no does not exist"),
        (("net.pt", "--key", "model", "-o", "a.safetensors"), "has no entry 'model'"),
        (("nan.pt",), "1.bias is NaN"),
        (("empty.pt",), "empty.pt is empty"),
        (("empty.pt", "--unsafe-pickle", "--out", "no/a.safetensors"), "no does not exist"),
        ((), "Missing argument 'file'"),
    ],
)
def test_what_cannot_be_converted(forked_refused, tmp_path, arguments, part):
    torch.save(net().state_dict(), tmp_path / "net.pt")
    torch.save({"0.bias": torch.ones(2), "1.bias": torch.tensor([torch.nan])}, tmp_path / "nan.pt")
    (tmp_path / "net.safetensors").touch()
    (tmp_path / "empty.pt").touch()
    assert part in forked_refused("convert", *arguments)


def test_the_help_warns_of_the_flag(rbl):
    said = " ".join(rbl("convert", "--help", COLUMNS="200").stdout.split())
    assert "which runs whatever code it holds, with your rights" in said
