"""Random prompts on the guided nodes: no crash, no hang, no traceback without a remedy, no NaN video.

MOTIONPROMPT_FUZZ=500 MOTIONPROMPT_FUZZ_SEED=1 python run.py test tests/comfyui/test_fuzz.py      # by hand
MOTIONPROMPT_FUZZ_ONLY=17,203 MOTIONPROMPT_FUZZ_SEED=1 python run.py test ...                   # some of them again
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.comfy_server import ComfyServer
from tests.comfyui.fuzz import Fuzz, log_faults, save
from tests.comfyui.fuzz_prompts import Prompts

ONLY = [int(number) for number in os.environ.get("MOTIONPROMPT_FUZZ_ONLY", "").split(",") if number]
NUMBERS = ONLY or range(int(os.environ.get("MOTIONPROMPT_FUZZ", "12")))
SEED = int(os.environ.get("MOTIONPROMPT_FUZZ_SEED", "0"))


@pytest.mark.slow
def test_random_prompts_end_well(comfy_server: ComfyServer, tmp_path: Path) -> None:
    before = log_faults(comfy_server.log())
    with comfy_server.watch() as events:
        fuzz = Fuzz(comfy_server, SEED, events)
        for number in NUMBERS:
            fuzz.run(number)
            save(fuzz.tally, Path(os.environ.get("MOTIONPROMPT_FUZZ_OUT", str(tmp_path / "fuzz.json"))))
    assert not fuzz.tally.wrong, "\n\n".join(fuzz.tally.wrong)
    assert ONLY or fuzz.tally.counts["done"] >= len(NUMBERS) // 10, fuzz.tally.counts
    assert log_faults(comfy_server.log()) == before


def test_a_prompt_follows_from_its_number(comfy_server: ComfyServer) -> None:
    first, again = (Prompts(comfy_server.object_info(), seed=7) for _ in range(2))
    assert str(first.case(3)) == str(again.case(3)) != str(first.case(4))
