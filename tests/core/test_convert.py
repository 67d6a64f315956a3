"""`python -m motionprompt_tools convert`: official pickles into safetensors, and nothing that could run code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from motionprompt_tools.__main__ import main

WEIGHTS = {"model.diffusion_model.out.weight": torch.randn(4, 3), "first_stage_model.bias": torch.ones(3)}
SCHEDULE = {"scale_arr": torch.linspace(1, 0.7, 10)}


def converted(content: object, folder: Path, *options: str, **saving: object) -> dict[str, torch.Tensor]:
    path = folder / "model.ckpt"
    torch.save(content, path, **saving)
    assert main(["convert", str(path), *options]) == 0
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "global_step": 100, "epoch": 3},
        {"ema": WEIGHTS, "model": torch.nn.Linear(1, 1).state_dict()["weight"]},
        {"module": {f"_forward_module.{key}": value for key, value in WEIGHTS.items()}, "dp_world_size": 8},
        {key: torch.nn.Parameter(value) for key, value in WEIGHTS.items()},
    ],
    ids=["bare", "lightning", "ema", "deepspeed", "parameters"],
)
def test_tensors_come_out_halved_whatever_they_were_wrapped_in(tmp_path, content):
    found = converted(content, tmp_path)
    assert found.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        torch.testing.assert_close(found[key], value.half(), rtol=0, atol=0)


def test_the_noise_schedule_keeps_its_digits_and_numbers_their_type(tmp_path):
    found = converted({**WEIGHTS, **SCHEDULE, "model.position_ids": torch.arange(5)}, tmp_path)
    assert torch.equal(found["scale_arr"], SCHEDULE["scale_arr"])
    assert torch.equal(found["model.position_ids"], torch.arange(5))


def test_other_types_and_another_name(tmp_path):
    output = tmp_path / "there.safetensors"
    path = tmp_path / "model.pt"
    torch.save(WEIGHTS, path)
    assert main(["convert", str(path), "--output", str(output), "--dtype", "bf16"]) == 0
    assert load_file(output)["first_stage_model.bias"].dtype == torch.bfloat16


def test_files_of_before_pytorch_1_6_and_tensors_that_share_memory(tmp_path):
    shared = torch.randn(6)
    content = {"a.one": shared[:3], "a.two": shared[3:], "a.again": shared[:3]}
    found = converted(content, tmp_path, _use_new_zipfile_serialization=False)
    assert torch.equal(found["a.two"], shared[3:].half()) and torch.equal(found["a.one"], found["a.again"])


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_that_would_run_code_stays_closed(tmp_path, capsys, new_format):
    target, path = tmp_path / "ran", tmp_path / "model.ckpt"
    torch.save({"state_dict": WEIGHTS, "hook": Trap(target)}, path, _use_new_zipfile_serialization=new_format)
    assert main(["convert", str(path)]) == 2
    assert not target.exists() and not (tmp_path / "model.safetensors").exists()
    assert "would run code" in capsys.readouterr().err
    with path.open("wb") as file:
        pickle.dump({"hook": Trap(target)}, file)
    assert main(["convert", str(path)]) == 2
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("truncated.ckpt", lambda p: torch.save(WEIGHTS, p) or p.write_bytes(p.read_bytes()[:-600]), "truncated"),
        ("empty.ckpt", lambda p: torch.save({"state_dict": {}}, p), "holds no tensors"),
        ("text.ckpt", lambda p: p.write_text("<html>not found</html>"), "no pickle"),
        ("nan.ckpt", lambda p: torch.save({"a.b": torch.tensor([1.0, float("nan")])}, p), "NaN"),
        ("large.ckpt", lambda p: torch.save({"a.b": torch.tensor([1.0, 1e6])}, p), "use --dtype bf16"),
        ("missing.ckpt", lambda p: None, "there is no file"),
    ],
)
def test_what_cannot_be_converted_is_said_and_leaves_nothing(tmp_path, capsys, name, make, message):
    path = tmp_path / name
    make(path)
    assert main(["convert", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not [found for found in tmp_path.iterdir() if found != path]


def test_an_existing_file_is_not_overwritten(tmp_path, capsys):
    save_file({"mine": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save(WEIGHTS, tmp_path / "model.ckpt")
    assert main(["convert", str(tmp_path / "model.ckpt")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert load_file(tmp_path / "model.safetensors").keys() == {"mine"}
