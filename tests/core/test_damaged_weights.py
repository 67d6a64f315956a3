"""Weight files that no program wrote: each is refused by its name, before anything is built."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from motionprompt_core.discriminator.clips import ClipSettings
from motionprompt_core.discriminator.model import load_discriminator
from motionprompt_tools.__main__ import main

WEIGHTS = Path(__file__).parents[2] / "weights" / "demo_discriminator.safetensors"


def file_of(header: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """A safetensors file: the header's length, the header, the tensors."""
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def changed(**changes: object) -> bytes:
    """The demo discriminator with other entries in its header."""
    content = WEIGHTS.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name in [name for name in header if name != "__metadata__"][:2]:
        header[name] = {**header[name], **changes}
    return file_of(json.dumps(header).encode(), content[8 + length :])


def saying(part: str, **changes: object) -> bytes:
    """The demo discriminator with other words in a part of its metadata, "config" or "measured"."""
    content = WEIGHTS.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    words = json.loads(header["__metadata__"].get(part, "{}"))
    header["__metadata__"][part] = json.dumps({**words, **changes})
    return file_of(json.dumps(header).encode(), content[8 + length :])


FILES = {
    "a header of 2^60 bytes": file_of(b"", size=2**60),
    "a header that is no JSON": file_of(b"notjson!"),
    "a tensor of 2^80 numbers": file_of(
        b'{"a": {"dtype": "F32", "shape": [1099511627776, 1099511627776], "data_offsets": [0, 4]}}'
    ),
    "two tensors on the same bytes": changed(data_offsets=[0, 4096]),
    "a type that there is not": changed(dtype="F31"),
    "half of the file": WEIGHTS.read_bytes()[: WEIGHTS.stat().st_size // 2],
}


@pytest.mark.parametrize("what", FILES)
def test_a_damaged_file_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(FILES[what])
    with pytest.raises(
        ValueError, match=r"damaged\.safetensors cannot be read: it is truncated, damaged or no safetensors"
    ):
        load_discriminator(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_size": 1024, "patch_size": 1}, "at most 64 patches a side: each looks at all others"),
        ({"flow_model": "raft\x1b]0;owned\x07"}, "flow_model has control characters"),
        ({"trained_on": "x" * 10_001}, "trained_on has .* more than 10000 characters"),
        ({"family": ["any"]}, r"family is \['any'\], expected str"),
    ],
)
def test_a_configuration_that_would_fill_the_memory_or_the_console_is_refused(tmp_path, changes, message):
    """A million patches fit into a file of 4 MB; escape sequences went to the console, which does what they say."""
    path = tmp_path / "strange.safetensors"
    path.write_bytes(saying("config", **changes))
    with pytest.raises(ValueError, match=f"strange.safetensors has a configuration that cannot be used.*{message}"):
        load_discriminator(path)


READING = [
    {"size": "x"},
    {"size": 10**9},
    {"gaps": 5},
    {"gaps": [1.5]},
    {"gaps": ["a"]},
    {"fps": None},
    {"pairs": True},
]


@pytest.mark.parametrize("clips", READING, ids=str)
def test_how_a_file_says_that_clips_are_read_is_checked(tmp_path, capsys, clips):
    """It ended in a traceback, or scaled frames to a thousand million pixels."""
    path = tmp_path / "strange.safetensors"
    path.write_bytes(saying("measured", clips={**ClipSettings().to_dict(), **clips}))
    folders = ["--real", str(tmp_path), "--generated", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert main(["evaluate-discriminator", str(path), *folders]) == 2
    assert f"clips: {next(iter(clips))}" in capsys.readouterr().err
