"""Train Flow Discriminator, Save Flow Discriminator."""

from __future__ import annotations

import copy
import dataclasses
import logging
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io, ui

from ..motionprompt_core.discriminator.model import DiscriminatorConfig, save_discriminator
from ..motionprompt_core.discriminator.state import EpochResult, best_so_far
from ..motionprompt_core.discriminator.train import ROBUST, SIZES, train_discriminator
from .host import folders, training
from .host.figure import drawn
from .host.flow_dataset import FlowDataset
from .host.models import ManagedModel
from .host.plots import draw_training
from .host.schema import DatasetType, DiscriminatorType, make, schema
from .host.status import status_line

RANDOM = "none"


class TrainFlowDiscriminator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptTrainFlowDiscriminator",
            display_name="Train Flow Discriminator",
            description="Teaches a network to tell the motion of real clips from that of your video model's. Some "
            "clips are held out, and the epoch that judges those best is kept. Cancelled, the best so far is saved, "
            "and the same node goes on from there when it is run again.",
            search_aliases=["motionprompt", "train discriminator"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                make(DatasetType.Input, "dataset", tooltip="From Flow Dataset."),
                make(
                    io.Combo.Input,
                    "size",
                    options=list(SIZES),
                    default="small",
                    tooltip="Of the network: small (0.9 M parameters) for dozens of clips, medium (5.5 M) for "
                    "hundreds, large (22 M) for thousands and a GPU.",
                ),
                make(
                    io.Int.Input,
                    "epochs",
                    default=20,
                    min=1,
                    max=1000,
                    tooltip="Passes over the clips, at most: it stops when held-out clips are judged no better.",
                ),
                make(
                    io.Float.Input,
                    "learning_rate",
                    default=1e-3,
                    min=1e-6,
                    max=1.0,
                    step=1e-4,
                    round=1e-7,
                    tooltip="Lower it, to 0.0003, for the larger sizes or if the losses jump.",
                ),
                make(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Which clips are held out, first weights and order: the same seed, the same discriminator.",
                ),
                make(
                    io.String.Input,
                    "family",
                    default="any",
                    tooltip="The video model whose clips these are, for example animatediff. Load Flow Discriminator "
                    "shows it.",
                ),
                make(
                    io.Combo.Input,
                    "pretrained",
                    options=[RANDOM, *_vit_files()],
                    default=RANDOM,
                    optional=True,
                    tooltip="Weights of a vision transformer to begin with: a file of timm's names that begins with "
                    "vit_, in models/motionprompt. It must fit the size. The paper begins with one.",
                ),
                make(
                    io.Boolean.Input,
                    "resume",
                    default=True,
                    optional=True,
                    tooltip="Go on where a cancelled training with the same clips and settings stopped. Off: begin "
                    "anew.",
                ),
            ],
            outputs=[
                make(
                    DiscriminatorType.Output,
                    display_name="discriminator",
                    tooltip="For Save Flow Discriminator, or straight into MotionPrompt KSampler.",
                ),
                make(io.Image.Output, display_name="plot", tooltip="Losses, and AUROC on held-out clips, by epoch."),
                make(io.String.Output, display_name="info", tooltip="How well it tells held-out clips apart."),
            ],
        )

    @classmethod
    def execute(
        cls,
        dataset: FlowDataset,
        size: str,
        epochs: int,
        learning_rate: float,
        seed: int,
        family: str,
        pretrained: str = RANDOM,
        resume: bool = True,
    ) -> io.NodeOutput:
        config = DiscriminatorConfig(
            flow_model=dataset.flow_model,
            family=training.plain_name(family or "any", "family"),  # it names the file that Cancel leaves
            flows=dataset.settings.flows,
            **SIZES[size],
        )
        status = status_line(cls)
        progress = training.Progress(1, status)
        state = training.training_state(f"{dataset.digest()}_{size}_{epochs}_{learning_rate:g}_{seed}")
        if not resume:
            state.unlink(missing_ok=True)
        history: list[EpochResult] = []

        def on_epoch(epoch: EpochResult) -> None:
            history.append(epoch)
            text = f"epoch {epoch.epoch + 1} of {epochs} | loss {epoch.val_loss:.3f} | AUROC {epoch.auroc:.3f}"
            progress.show(progress.bar.current, text, drawn(lambda: draw_training(history), text))

        def on_batch(done: int, of: int) -> None:
            progress.total = of
            progress.show(done)

        try:
            with torch.inference_mode(False), torch.enable_grad():  # ComfyUI runs nodes without gradients
                result = train_discriminator(
                    dataset.real,
                    dataset.generated,
                    config,
                    epochs=epochs,
                    lr=learning_rate,
                    seed=seed,
                    pretrained=folders.find(pretrained) if pretrained != RANDOM else False,
                    device=comfy.model_management.get_torch_device(),
                    checkpoint=state,
                    on_epoch=on_epoch,
                    on_batch=on_batch,
                    **ROBUST,
                )
        except comfy.model_management.InterruptProcessingException:
            _keep_best(state, config, dataset)
            raise
        state.unlink(missing_ok=True)
        model = result.model.cpu()
        model.metadata = _measured(result.best, dataset)
        text = _info(result.best, dataset)
        image = drawn(lambda: draw_training(result.history), text)[None]
        preview = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(ManagedModel(model), image, text, ui={**preview, "text": (text,)})


class SaveFlowDiscriminator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptSaveFlowDiscriminator",
            display_name="Save Flow Discriminator",
            description="Saves a trained discriminator to models/motionprompt, where Load Flow Discriminator finds it "
            "after pressing R.",
            search_aliases=["motionprompt", "save discriminator"],
            is_output_node=True,
            inputs=[
                make(DiscriminatorType.Input, "discriminator", tooltip="From Train Flow Discriminator."),
                make(
                    io.String.Input,
                    "filename",
                    default="my_flow_discriminator",
                    tooltip="Name of the file in models/motionprompt, without folder and ending.",
                ),
                make(
                    io.String.Input,
                    "trained_on",
                    default="",
                    multiline=True,
                    tooltip="What the clips are and their terms of use, kept in the file for whoever loads it.",
                ),
                make(
                    io.Boolean.Input,
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace a file of this name. Off: a number is added.",
                ),
            ],
            outputs=[
                make(
                    DiscriminatorType.Output,
                    display_name="discriminator",
                    tooltip="The same discriminator, for a sampler that is to run after it has been saved.",
                ),
                make(io.String.Output, display_name="file", tooltip="Name of the file that was written."),
            ],
        )

    @classmethod
    def execute(
        cls, discriminator: ManagedModel, filename: str, trained_on: str, overwrite: bool = False
    ) -> io.NodeOutput:
        path = training.new_model_file(filename, overwrite)
        module = copy.copy(discriminator.module)  # the words belong to the file, not to the network in the graph
        module.config = dataclasses.replace(module.config, trained_on=trained_on.strip() or module.config.trained_on)
        save_discriminator(module, path)
        return io.NodeOutput(discriminator, path.name, ui={"text": (f"saved {path}",)})


def _vit_files() -> list[str]:
    return [name for name in folders.weight_files() if Path(name).name.startswith("vit_")]


def _measured(best: EpochResult, dataset: FlowDataset) -> dict[str, Any]:
    counts = {"real_clips": len(dataset.real), "generated_clips": len(dataset.generated) - dataset.captured}
    captured = {"captured_videos": dataset.captured} if dataset.captured else {}
    return {**best.to_dict(), **counts, **captured, "clips": dataset.settings.to_dict()}


def _info(best: EpochResult, dataset: FlowDataset) -> str:
    return (
        f"on clips held out, epoch {best.epoch + 1}: AUROC {best.auroc:.3f} (0.5 is chance), accuracy "
        f"{best.accuracy:.3f}, calibration error {best.calibration_error:.3f}\n{dataset.summary()}"
    )


def _keep_best(state: Path, config: DiscriminatorConfig, dataset: FlowDataset) -> None:
    """Saves what a cancelled training has reached, where Load Flow Discriminator finds it."""
    found = best_so_far(state, config)
    if found is None:
        return
    model, best = found
    path = training.new_model_file(f"{config.family}_interrupted", overwrite=True)
    save_discriminator(model, path, **_measured(best, dataset))
    logging.info("MotionPrompt: training cancelled; the best so far, %s, is in %s", _info(best, dataset), path)
