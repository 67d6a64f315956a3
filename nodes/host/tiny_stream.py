"""A whole video through a tiny video autoencoder (TAEHV and kin), frame by frame: what ComfyUI's own code makes of it
at once, in the memory of a few frames.

These networks look back in time alone, each block at what it was given for the frame before. ComfyUI runs them in that
order, too, but takes and gives whole videos and forgets the memory at their end. Here frames are taken and given one
after the other, so that decoding, steadying and encoding go on side by side, and no picture is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, compress, islice, repeat, tee
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from comfy.taesd.taehv import TAEHV, Clamp, MemBlock, TGrow, TPool
from torch import Tensor, nn

from ...motionprompt_core.estimate.paths import Reel
from ...motionprompt_core.estimate.steady import RADIUS, margin, steady_frames
from ...motionprompt_core.flow import FlowModel
from .decode import SliceDecoder

# Of MiniMax H3's: frames of a chunk, and how many the encoder is given as nothing before each; the decoder makes as
# many that are none of the video's.
H3_FRAMES, H3_NOTHING = 17, 3
# Those that know of other frames, and those that do not.
BLOCKS = (MemBlock, TPool, TGrow, Clamp, nn.Conv2d, nn.Upsample, nn.ReLU, nn.LeakyReLU)
# Bytes a pixel, counted on shapes (docs/cost/estimate.json): what the network remembers and works on, in
# elements of its own precision; and frames with their neighbours, their flows and what is made of them.
NETWORK, STEADY = 180.0, 1050.0


class TinyStream:
    """Decodes and encodes a video with a tiny video autoencoder, frame by frame.

    Args:
        decoder: of the model's family, whose VAE has such a network.

    Attributes:
        pieces: see `SliceDecoder`.
    """

    pieces: tuple[tuple[int | None, int], ...] = ((None, 2), (None, 1))

    def __init__(self, decoder: SliceDecoder):
        self.decoder, self.pictures = decoder, decoder.decode
        self.network: Any = self.pictures.vae.first_stage_model
        self.h3 = getattr(self.network, "is_h3", False)

    @classmethod
    def of(cls, decoder: Any) -> TinyStream | None:
        """That of a family's decoder; None if its VAE is no tiny video autoencoder whose every block is known."""
        network, (at_once, _) = decoder.decode.vae.first_stage_model, decoder.pieces[0]
        if type(network) is not TAEHV or at_once is not None:  # one for pictures takes some at a time
            return None
        known = all(isinstance(block, BLOCKS) for block in (*network.encoder, *network.decoder))
        return cls(decoder) if known else None

    def correction(self, x0: Tensor, flow: FlowModel, **options: Any) -> Tensor:
        """What to add to the estimate x0 (T, C, h, w), E(steady(D(x0))) - E(D(x0)); see `correct`.

        Args:
            options: for `steady_frames`.
        """
        reel = Reel(self.frames(x0), self.decoder.num_frames(len(x0)), RADIUS + margin(flow) + 1)
        steadied = enumerate(steady_frames(reel, flow, **options))
        pairs = ((self._as_encoded(frame), self._as_encoded(reel[number])) for number, frame in steadied)
        new, old = (self._encoded(map(itemgetter(place), each), len(x0)) for place, each in enumerate(tee(pairs)))
        return torch.stack([a - b for a, b in zip(new, old, strict=True)]).to(x0)

    def frames(self, x0: Tensor) -> Iterator[Tensor]:
        """Pictures (3, H, W) of the whole video x0 (T, C, h, w), nominally in [0, 1].

        Raises:
            ValueError: see `SliceDecoder.check_number`.
        """
        pictures, network = self.pictures, self.network
        raw = pictures.model.process_latent_out(self.decoder.as_model(x0))
        raw = network.process_in(raw.to(device=pictures.vae.device, dtype=pictures.vae.vae_dtype))
        decoded = map(self._as_picture, _through(network.decoder, iter(raw.unbind(2))))
        shown = compress(_in_bunches(decoded, network.frames_to_trim + 1), self._shown(len(x0)))
        return (picture.to(x0.device) for picture in shown)

    def _as_picture(self, frame: Tensor) -> Tensor:
        patch = self.network.patch_size
        picture = F.pixel_shuffle(frame, patch)[0] if patch > 1 else frame[0]
        picture = picture.clamp(0, 1) if self.h3 else picture
        return picture.float() * self.pictures.slope + self.pictures.offset

    def _shown(self, latents: int) -> list[bool]:
        """Which of the frames that the network makes of so many latents are the video's."""
        nothing = self.network.frames_to_trim
        made = range(latents * (nothing + 1))
        shown = [place % (H3_FRAMES + H3_NOTHING if self.h3 else len(made)) >= nothing for place in made]
        self.decoder.check_number(latents, sum(shown))
        return shown

    def latents(self, frames: Iterable[Tensor], count: int) -> Iterator[Tensor]:
        """`count` latents (C, h, w) of a video with these pictures (3, H, W), nominally in [0, 1]."""
        return self._encoded(map(self._as_encoded, frames), count)

    def _as_encoded(self, frame: Tensor) -> Tensor:
        vae, patch = self.pictures.vae, self.network.patch_size
        raw = vae.process_input(frame[None]).to(device=vae.device, dtype=vae.vae_dtype)
        return F.pixel_unshuffle(raw, patch) if patch > 1 else raw

    def _encoded(self, raw: Iterator[Tensor], count: int) -> Iterator[Tensor]:
        chunks = self._h3_chunks(raw) if self.h3 else [raw]
        together = getattr(self.network, "t_downscale", 4)  # frames of which the network makes one latent
        filled = (_in_bunches(_filled(chunk, together), together) for chunk in chunks)
        latents = chain.from_iterable(_through(self.network.encoder, chunk) for chunk in filled)
        return map(self._as_latent, islice(latents, count))

    def _as_latent(self, encoded: Tensor) -> Tensor:
        latent = self.network.process_out(encoded[:, :, None]).float()
        return self.pictures.model.process_latent_in(latent)[0, :, 0]

    def _h3_chunks(self, raw: Iterator[Tensor]) -> Iterator[Iterator[Tensor]]:
        """MiniMax H3's encoder begins anew with each chunk, after nothing."""
        for first in raw:
            frames = _filled(chain([first], islice(raw, H3_FRAMES - 1)), H3_FRAMES)
            yield chain(repeat(torch.zeros_like(first), H3_NOTHING), frames)

    def memory(self, height: int, width: int) -> float:
        """Bytes that correcting an estimate of this size (px) takes beside the latents, however long the video is."""
        element = torch.empty(0, dtype=self.pictures.vae.vae_dtype).element_size()
        return height * width * (NETWORK * element / self.network.patch_size**2 + STEADY)


def _through(blocks: nn.Sequential, xs: Iterator[Tensor]) -> Iterator[Tensor]:
    """What the blocks make of tensors (N, C, H, W) that come one after the other in time."""
    for block in blocks:
        if isinstance(block, MemBlock):
            xs = map(_Remembering(block), xs)
        elif isinstance(block, TPool):
            xs = _pooled(block, xs)
        elif isinstance(block, TGrow):
            xs = chain.from_iterable(map(_grown, repeat(block), xs))
        else:
            xs = map(block, xs)  # which, unlike a generator, holds on to nothing
    return xs


class _Remembering:
    """A block that is given beside each frame what it was given before: nothing at first."""

    def __init__(self, block: MemBlock):
        self.block, self.past = block, None

    def __call__(self, x: Tensor) -> Tensor:
        past, self.past = self.past, x
        return self.block(x, torch.zeros_like(x) if past is None else past)


def _pooled(block: TPool, xs: Iterator[Tensor]) -> Iterator[Tensor]:
    """One frame of several."""
    while len(several := list(islice(xs, block.stride))) == block.stride:
        together = [torch.stack(several, 1).flatten(0, 1)]
        several.clear()
        yield block(together.pop())


def _grown(block: TGrow, x: Tensor) -> Iterator[Tensor]:
    """Several frames of one."""
    return _handed_on(block(x).unflatten(0, (len(x), block.stride)).unbind(1))


def _filled(frames: Iterable[Tensor], multiple: int) -> Iterator[Tensor]:
    """The last frame over again, up to a multiple of so many."""
    count, last = 0, None
    for frame in frames:
        count, last = count + 1, frame
        yield frame
    if last is not None:
        yield from repeat(last, -count % multiple)


def _in_bunches(xs: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """The same, but so many are made at a time: what a network works on in between is not kept while others work."""
    return chain.from_iterable(map(_handed_on, iter(lambda: list(islice(xs, size)), [])))


def _handed_on(xs: Iterable[Tensor]) -> Iterator[Tensor]:
    """One after the other, and kept no longer."""
    waiting = deque(xs)
    del xs
    while waiting:
        yield waiting.popleft()
