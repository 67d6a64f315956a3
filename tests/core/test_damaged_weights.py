"""Weight files that no program wrote: each is refused by its name, before anything is built."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from motionprompt_core.discriminator.model import load_discriminator

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
