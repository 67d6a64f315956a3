"""phi(f): does this optical flow come from a real video? (Paper, flow discriminator.)

A projection from the two flow channels to a vision transformer's three, the transformer (timm), and a 3-layer MLP head.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media.files import check_shapes, load_state, read_header, read_safetensors, write_safetensors
from ..media.ops import gaussian_blur
from .features import changes_of_motion, energy_pyramid

FORMAT = "motionprompt_flow_discriminator"
FORMAT_VERSION = "1"
STEM_STRIDE = 8
MOST_PATCHES = 64  # a side; the ViT's memory grows with the fourth power
MOST_TEXT = 10_000  # characters
MOST_BANDS = 5  # the last is half the frame wide
MOST_FLOWS = 4
QUANTILES = (0.5, 0.9, 0.98)
POOLS = ("token", "avg")
_WHAT = "flow discriminator"
# Far above what anybody trains here; a file may ask for anything.
_MOST = dict(img_size=1024, patch_size=256, embed_dim=2048, depth=64, num_heads=64, mlp_hidden=8192, stem=512)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """All that is needed to rebuild the network, and to know what it may be used for.

    The defaults are the small one of the embedded demo (0.9 M parameters, a few milliseconds on a CPU). The size of
    the paper's ViT is not known; `DiscriminatorConfig(backbone="vit_small_patch16_224", img_size=224, patch_size=16,
    embed_dim=384, depth=12, num_heads=6, mlp_hidden=384)` is an ordinary choice for large data.

    Attributes:
        backbone: a name of timm's vision_transformer family; the next four replace its own numbers.
        img_size: side of the square that flows are resized to, px.
        patch_size: side of a patch, px; divides img_size.
        embed_dim, depth, num_heads: width, blocks and attention heads of the transformer.
        mlp_hidden: width of the head's two hidden layers.
        flow_scale: flow is divided by the frame's longer side and multiplied by this before asinh. Motion of
            1/flow_scale of the frame is then where linear turns to logarithmic: more shows finer jitter.
        drop_path: stochastic depth while training.
        flow_model: `FlowModel.name` of the training flows; use the same to judge.
        trained_on: data, its terms and the generator of the fakes, in words.
        family: the video model family it was trained for, e.g. "demo", "animatediff"; "any" for a general one.
        stem: width of three convolutions before the transformer, which see the motion's finest detail; 0 is the paper's
            projection alone.
        detail: if above 0, the network is also shown by how much each pixel's flow differs from that around it, on a
            scale of its own (as `flow_scale`): faults are often small beside the motion that they are in.
        bands: if above 0, the network is also shown how strong the motion is around each pixel at so many scales, the
            finest 1/64 of the frame, each twice the last, on a logarithmic scale: it need not learn to see roughness.
        pool: "token" or "avg", what of the transformer's output is judged; the mean of all patches learns faster.
        flows: flows in a row that are judged together, of frames equally far apart. The paper judges one. With two the
            network is also shown how motion changes along its path: little where things are real, all the time where
            they jitter, tear or stutter.
        statistics: the head is also given means and quantiles of what `bands` shows, over the frame; needs bands.
        noise_conditioned: reserved for networks that take the noise level as an input; this version has none.
    """

    backbone: str = "vit_tiny_patch16_224"
    img_size: int = 128
    patch_size: int = 16
    embed_dim: int = 128
    depth: int = 4
    num_heads: int = 4
    mlp_hidden: int = 128
    flow_scale: float = 64.0
    drop_path: float = 0.0
    flow_model: str = "lucas_kanade_coarse"
    trained_on: str = ""
    family: str = "any"
    noise_conditioned: bool = False
    stem: int = 0
    detail: float = 0.0
    bands: int = 0
    pool: str = "token"
    flows: int = 1
    statistics: bool = False

    def __post_init__(self):
        self._check_types()
        for name in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_hidden", "flow_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{_WHAT}: {name} is {getattr(self, name)}, expected more than 0.")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{_WHAT}: {name} is {getattr(self, name)}, expected at most {most}.")
        if self.img_size > MOST_PATCHES * self.patch_size:
            raise ValueError(
                f"{_WHAT}: img_size {self.img_size} and patch_size {self.patch_size}, expected at most "
                f"{MOST_PATCHES} patches a side: each looks at all others."
            )
        if self.img_size % self.patch_size:
            raise ValueError(f"{_WHAT}: img_size {self.img_size} is no multiple of patch_size {self.patch_size}.")
        if self.stem < 0 or self.detail < 0 or (self.stem and self.patch_size % STEM_STRIDE):
            raise ValueError(
                f"{_WHAT}: stem {self.stem}, detail {self.detail}, patch_size {self.patch_size}; expected none below "
                f"0, and with a stem a patch_size that is a multiple of {STEM_STRIDE}."
            )
        if not 0 <= self.bands <= MOST_BANDS or self.img_size < 2**self.bands or self.pool not in POOLS:
            raise ValueError(
                f"{_WHAT}: bands {self.bands}, pool {self.pool!r}; expected 0 to {MOST_BANDS} bands, an "
                f"img_size of at least 2 to their power, and a pool of {', '.join(POOLS)}."
            )
        if not 1 <= self.flows <= MOST_FLOWS or (self.statistics and not self.bands):
            raise ValueError(
                f"{_WHAT}: flows {self.flows}, statistics {self.statistics}, bands {self.bands}; expected 1 to "
                f"{MOST_FLOWS} flows, and statistics only with bands."
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(f"{_WHAT}: embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}.")
        if not self.backbone.startswith("vit_"):
            raise ValueError(f"{_WHAT}: backbone is {self.backbone!r}, expected a timm ViT, e.g. vit_tiny_patch16_224.")
        if self.noise_conditioned:
            raise ValueError(f"{_WHAT}: noise_conditioned networks need a newer version of MotionPrompt. Update it.")

    def _check_types(self) -> None:
        """A configuration comes out of a file: `true`, `null` or NaN in place of a number pass every comparison."""
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            fits = type(value) in ((int, float) if kind is float else (kind,))
            if not fits or (kind is float and not abs(value) <= 1e6):
                raise ValueError(f"{_WHAT}: {field.name} is {value!r}, expected {kind.__name__} (finite, if a number).")
            if kind is str and (len(value) > MOST_TEXT or any(c < " " and c not in "\t\n\r" for c in value)):
                raise ValueError(f"{_WHAT}: {field.name} has control characters, or more than {MOST_TEXT} characters.")


class FlowDiscriminator(nn.Module):
    """Scores flow fields, or some in a row; sigmoid of the result is phi(f), the probability that the motion is real.

    Args:
        config: the architecture.
        pretrained: a .safetensors with weights of the backbone under timm's names (positions and patches are
            resized), or True to let timm download its own; training on top of them is the paper's way. False: random.
    """

    def __init__(self, config: DiscriminatorConfig, pretrained: bool | str | Path = False):
        super().__init__()
        self.config = config
        self.metadata: dict[str, Any] = {}
        self.project, channels = _projection(config)
        stride = STEM_STRIDE if config.stem else 1
        source: dict[str, Any] = {}
        if not isinstance(pretrained, bool):
            source = {"pretrained_cfg_overlay": {"state_dict": read_safetensors(pretrained, "ViT weights")[0]}}
        self.backbone = timm.create_model(
            config.backbone,
            pretrained=bool(pretrained),
            num_classes=0,
            in_chans=channels,
            img_size=config.img_size // stride,
            patch_size=config.patch_size // stride,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            drop_path_rate=config.drop_path,
            global_pool=config.pool,
            **source,
        )
        self.head = nn.Sequential(
            nn.Linear(config.embed_dim + self._statistics(), config.mlp_hidden),
            nn.GELU(),
            nn.Linear(config.mlp_hidden, config.mlp_hidden),
            nn.GELU(),
            nn.Linear(config.mlp_hidden, 1),
        )

    @property
    def num_flows(self) -> int:
        """How many successive flows are judged together."""
        return self.config.flows

    def normalise(self, flow: Tensor) -> Tensor:
        """Flow in px (B, 2 * flows, H, W) -> what the network sees (B, C, img_size, img_size), at any resolution.

        `detail` adds two channels, what a blur of 1/32 of the frame takes away, and `bands` one each and the speed.
        Every further flow adds the change of motion along its path, and the bands of that.
        """
        side, changes = max(flow.shape[-2:]), []
        if self.config.flows > 1:
            stretch = flow.new_tensor((side / flow.shape[-1], side / flow.shape[-2]))  # of a frame made square
            flow, side = self._resized(flow) * (self.config.img_size / side), self.config.img_size
            flow, *changes = changes_of_motion(flow, stretch.view(1, 2, 1, 1))
        seen = torch.asinh(flow * (self.config.flow_scale / side))
        if self.config.detail:
            rest = flow - gaussian_blur(flow, side / 32)
            seen = torch.cat((seen, torch.asinh(rest * (self.config.detail / side))), dim=1)
        seen = self._resized(seen)
        strongest = max(self.config.flow_scale, self.config.detail)
        parts = [seen, *(torch.asinh(change * (strongest / side)) for change in changes)]
        if self.config.bands:
            parts += [energy_pyramid(self._resized(part / side), self.config.bands) for part in (flow, *changes)]
        return torch.cat(parts, dim=1)

    def _resized(self, x: Tensor) -> Tensor:
        size = (self.config.img_size, self.config.img_size)
        if x.shape[-2:] == size:
            return x
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)

    def forward(self, flow: Tensor) -> Tensor:
        """Flow (B, 2 * flows, H, W), px, even channels to the right -> logits (B,); differentiable."""
        channels = 2 * self.config.flows
        if flow.ndim != 4 or flow.shape[1] != channels:
            raise ValueError(f"{_WHAT}: flow has shape {tuple(flow.shape)}, expected (B, {channels}, H, W).")
        seen = self.normalise(flow)
        features = self.backbone(self.project(seen.to(next(self.project.parameters()).dtype)))
        if count := self._statistics():
            bands = seen[:, -(count // (1 + len(QUANTILES))) :].flatten(2)
            bands = bands.to(torch.promote_types(bands.dtype, torch.float32))  # no quantiles of half precision
            quantiles = bands.quantile(bands.new_tensor(QUANTILES), dim=2)
            features = torch.cat((features, bands.mean(2).to(features), *quantiles.to(features)), dim=1)
        return self.head(features).squeeze(1)

    def _statistics(self) -> int:
        """How many numbers of the bands the head is given."""
        return (1 + len(QUANTILES)) * self.config.flows * (1 + self.config.bands) * self.config.statistics


def _projection(config: DiscriminatorConfig) -> tuple[nn.Module, int]:
    """What comes before the transformer, and how many channels it makes."""
    changes, width = config.flows - 1, config.stem
    seen = 2 + 2 * (config.detail > 0) + 2 * changes + config.flows * (1 + config.bands) * (config.bands > 0)
    if not width:
        return nn.Conv2d(seen, 3, 1), 3
    layers: list[nn.Module] = []
    for before, after in ((seen, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
    return nn.Sequential(*layers), 4 * width


def save_discriminator(model: FlowDiscriminator, path: str | Path, **measured: Any) -> None:
    """Write weights, configuration and what was measured (e.g. auroc=0.97) to a .safetensors, all or nothing.

    `measured` must be JSON; it comes back as `load_discriminator(path).metadata`, added to what the model had.
    """
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": json.dumps(asdict(model.config)),
        "measured": json.dumps({**model.metadata, **measured}),
    }
    write_safetensors(model.state_dict(), path, metadata)


def load_discriminator(path: str | Path) -> FlowDiscriminator:
    """Read what `save_discriminator` wrote: a frozen network in evaluation mode on the CPU, with `metadata`.

    The header is checked before anything is built, and the network is built without memory before its tensors are read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, a pickle, of another architecture or type, or makes numbers that are not finite.
    """
    shapes, header = read_header(path, _WHAT)
    if header.get("format") != FORMAT or "config" not in header:
        raise ValueError(
            f"{_WHAT} {path} holds another architecture: a safetensors file without a flow discriminator's metadata "
            f"(tensors: {', '.join(list(shapes)[:3]) or 'none'}). Choose a file that train-discriminator saved."
        )
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{_WHAT} {path} has format version {header.get('format_version')}, expected {FORMAT_VERSION}. "
            "It was saved by another version of MotionPrompt: update MotionPrompt."
        )
    model = _rebuild(header["config"], path)
    check_shapes(model, shapes, path, _WHAT)
    model.to_empty(device="cpu")
    load_state(model, read_safetensors(path, _WHAT)[0], path, _WHAT)
    model.metadata = _json_object(header.get("measured", "{}"), path)
    model.requires_grad_(False).eval()
    _check_finite(model, path)
    return model


def _json_object(text: str, path: str | Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{_WHAT} {path} is damaged: measurements are no JSON object. Save it again.")
    return found


@torch.no_grad()
def _check_finite(model: FlowDiscriminator, path: str | Path) -> None:
    """Weights that are finite can still make logits that are not."""
    side, channels = 64, 2 * model.config.flows
    slope = torch.linspace(-2, 2, side).expand(1, channels, side, side)
    logits = model(torch.cat((torch.zeros_like(slope), slope)))
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"{_WHAT} {path} makes logits that are not finite: its weights or scales are too large. Train it again."
        )


def _rebuild(text: str, path: str | Path) -> FlowDiscriminator:
    """The network on the meta device."""
    try:
        values = json.loads(text)
        known = {field.name for field in fields(DiscriminatorConfig)}
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        if unknown := [name for name in values if name not in known]:
            raise ValueError(f"unknown settings {', '.join(unknown)}")
        config = DiscriminatorConfig(**values)
        with torch.device("meta"):
            return FlowDiscriminator(config)
    except (ValueError, TypeError, RuntimeError) as error:  # a RecursionError is a RuntimeError
        why = str(error).rstrip(".")
        raise ValueError(
            f"{_WHAT} {path} has a configuration that cannot be used: {why}. A newer MotionPrompt may have saved it: "
            "update, or choose another file."
        ) from error
