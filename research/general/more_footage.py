"""Footage that was gathered after `footage.py`: for a third training, and for one more look at the shipped file."""

from __future__ import annotations

from .footage import NOT_STATED, Footage

# Added in a third training, with FINAL, which had judged once. It was no better on CHOICES (docs/discriminators.md), so
# it is not in the shipped file.
ADDED_LATER = (
    Footage(
        "ahmetozlu/tensorflow_object_counting_api",
        "MIT" + NOT_STATED,
        {
            "toc_cutl": "input_images_and_videos/cutl.mp4",
            "toc_ped": "input_images_and_videos/pedestrian_survaillance.mp4",
        },
    ),
    Footage(
        "ahmetozlu/vehicle_counting_tensorflow",
        "MIT" + NOT_STATED,
        {
            "vct": "input_video.mp4",
        },
    ),
    Footage(
        "alvarotrigo/fullPage.js",
        "GPL-3.0" + NOT_STATED,
        {
            "fp_flowers": "examples/imgs/flowers.mp4",
        },
    ),
    Footage(
        "bbc/VideoContext",
        "Apache-2.0" + NOT_STATED,
        {
            "bbc_rant": "docs/assets/introductions-rant.mp4",
            "bbc_v2": "test/cypress/assets/video2.webm",
        },
    ),
    Footage(
        "brjathu/PHALP",
        "MIT" + NOT_STATED,
        {
            "phalp": "assets/videos/vid.mp4",
        },
    ),
    Footage(
        "deepmind/kinetics-i3d",
        "Apache-2.0" + NOT_STATED,
        {
            "lart_crick": "data/v_CricketShot_g04_c01_rgb.gif",
        },
    ),
    Footage(
        "drewnoakes/metadata-extractor-images",
        "not stated",
        {
            "md_515": "mp4/Issue 515 (java).mp4",
            "md_mvi": "avi/MVI_4823.AVI",
        },
    ),
    Footage(
        "felixchenfy/Realtime-Action-Recognition",
        "MIT" + NOT_STATED,
        {
            "rar_exer": "data_test/exercise.avi",
        },
    ),
    Footage(
        "flutter/assets-for-api-docs",
        "BSD-3-Clause" + NOT_STATED,
        {
            "fl_bee": "assets/videos/bee.mp4",
        },
    ),
    Footage(
        "google-ai-edge/mediapipe-samples",
        "Apache-2.0" + NOT_STATED,
        {
            "mps_gest": "examples/gesture_recognizer/android/app/src/androidTest/assets/test_video.mp4",
            "mps_hand": "examples/hand_landmarker/android/app/src/androidTest/assets/test_video.mp4",
        },
    ),
    Footage(
        "google/ExoPlayer",
        "Apache-2.0" + NOT_STATED,
        {
            "exo_desks2": "extensions/media2/src/androidTest/res/raw/video_desks.3gp",
        },
    ),
    Footage(
        "gopro/gpmf-parser",
        "Apache-2.0 or MIT" + NOT_STATED,
        {
            "gp_karma": "samples/karma.mp4",
            "gp_max": "samples/max-heromode.mp4",
        },
    ),
    Footage(
        "mdn/interactive-examples",
        "CC0-1.0",
        {
            "mdn_stream": "live-examples/media/examples/stream-of-water.mp4",
        },
    ),
    Footage(
        "mdn/shared-assets",
        "open licences of each file",
        {
            "mdn_bug": "videos/learn/bug_video_640.mp4",
            "mdn_flower": "videos/flower.mp4",
            "mdn_friday": "videos/friday.mp4",
        },
    ),
    Footage(
        "OlafenwaMoses/ImageAI",
        "MIT" + NOT_STATED,
        {
            "imai": "data-videos/traffic-mini.mp4",
        },
    ),
    Footage(
        "pq-yang/MatAnyone",
        "S-Lab License 1.0, non-commercial" + NOT_STATED,
        {
            "matany0": "inputs/video/test-sample0/",
            "matany1": "inputs/video/test-sample1.mp4",
        },
    ),
    Footage(
        "react-native-video/react-native-video",
        "MIT" + NOT_STATED,
        {
            "broadch": "examples/basic/src/assets/videos/broadchurch.mp4",
        },
    ),
    Footage(
        "samdutton/simpl",
        "Apache-2.0" + NOT_STATED,
        {
            "sm_small": "video/video/small.webm",
            "sm_vp9_2": "video/split/video/vp9_webrtc_3.webm",
        },
    ),
    Footage(
        "sannies/mp4parser",
        "Apache-2.0" + NOT_STATED,
        {
            "mp4p_foreman": "isoparser/src/test/resources/foreman-hevc-384.mp4",
            "mp4p_v1": "examples/src/main/resources/davidappend/v1.mp4",
            "mp4p_v3": "examples/src/main/resources/davidappend/v3.mp4",
        },
    ),
    Footage(
        "theAIGuysCode/Object-Detection-API",
        "Apache-2.0" + NOT_STATED,
        {
            "oda": "data/video/video.mp4",
        },
    ),
    Footage(
        "v-iashin/video_features",
        "MIT" + NOT_STATED,
        {
            "vf1": "sample/v_GGSY1Qvo990.mp4",
            "vf2": "sample/v_ZNVhz7ctTq0.mp4",
        },
    ),
    Footage(
        "VodkaBears/Vide",
        "MIT" + NOT_STATED,
        {
            "vide_ocean": "examples/video/ocean.mp4",
        },
    ),
    Footage(
        "williamyang1991/VToonify",
        "S-Lab License 1.0, non-commercial" + NOT_STATED,
        {
            "vtoon529": "data/529.mp4",
        },
    ),
    Footage(
        "wmcnally/golfdb",
        "CC BY-NC 4.0",
        {
            "golf": "test_video.mp4",
        },
    ),
    Footage(
        "yjh0410/PyTorch_YOWO",
        "not stated",
        {
            "ucf_biking": "dataset/demo/ucf24_demo/v_Biking_g01_c01.mp4",
            "ucf_cliff": "dataset/demo/ucf24_demo/v_CliffDiving_g03_c01.mp4",
            "ucf_fenc": "dataset/demo/ucf24_demo/v_Fencing_g01_c06.mp4",
            "ucf_horse": "dataset/demo/ucf24_demo/v_HorseRiding_g01_c03.mp4",
            "ucf_icedance": "dataset/demo/ucf24_demo/v_IceDancing_g02_c05.mp4",
        },
    ),
    Footage(
        "yoxu515/aot-benchmark",
        "BSD-3-Clause" + NOT_STATED,
        {
            "aot1007": "datasets/Demo/images/1007_YCTBBdbKSSg/",
        },
    ),
    Footage(
        "zju3dv/GVHMR",
        "of its own, non-commercial research" + NOT_STATED,
        {
            "gv_tennis": "docs/example_video/tennis.mp4",
        },
    ),
)

# Drawn by repository from all that was gathered, before that training, and looked at once: how clips are scored.
SCORED = (
    Footage(
        "andrewssobral/vehicle_detection_haarcascades",
        "not stated",
        {
            "vdh1": "dataset/video1.avi",
        },
    ),
    Footage(
        "androidx/media",
        "Apache-2.0" + NOT_STATED,
        {
            "ax_edit": "libraries/test_data/src/test/assets/media/mp4/sample_edit_list.mp4",
            "ax_emul": "libraries/test_data/src/test/assets/media/mp4/internal_emulator_transformer_output.mp4",
            "ax_mv": "libraries/test_data/src/test/assets/media/mp4/mv_with_2_top_shots.mp4",
        },
    ),
    Footage(
        "arthurv/OpenTLD",
        "GPL-3.0" + NOT_STATED,
        {
            "tld_david": "datasets/01_david/david.mpg",
            "tld_jump": "datasets/02_jumping/jumping.mpg",
            "tld_ped1": "datasets/03_pedestrian1/pedestrian1.mpg",
            "tld_ped3": "datasets/05_pedestrian3/pedestrian3.mpg",
        },
    ),
    Footage(
        "ChenyangLEI/deep-video-prior",
        "not stated",
        {
            "dvp_bedroom": "demo/consistency/spatial_white_balance/Bedroom_input/",
            "dvp_haze": "demo/consistency/Dehazing/Haze2_input/",
        },
    ),
    Footage(
        "chonyy/AI-basketball-analysis",
        "OpenPose licence, academic/non-profit non-commercial" + NOT_STATED,
        {
            "aib": "static/uploads/sample_video.mp4",
        },
    ),
    Footage(
        "CMU-Perceptual-Computing-Lab/openpose",
        "OpenPose licence, academic/non-profit non-commercial" + NOT_STATED,
        {
            "op_video": "examples/media/video.avi",
        },
    ),
    Footage(
        "facebookresearch/LaViLa",
        "MIT" + NOT_STATED,
        {
            "lavila_ego": "assets/3c0dffd0-e38e-4643-bc48-d513943dc20b_012_014.mp4",
        },
    ),
    Footage(
        "flutter/plugins",
        "BSD-3-Clause" + NOT_STATED,
        {
            "butterfly": "packages/video_player/video_player/example/assets/Butterfly-209.mp4",
        },
    ),
    Footage(
        "mdn/learning-area",
        "CC0-1.0",
        {
            "mdn_crystal": "javascript/apis/client-side-storage/cache-sw/video-store-offline/videos/crystal.mp4",
        },
    ),
    Footage(
        "processing/p5.js-website",
        "MIT" + NOT_STATED,
        {
            "p5_cross": "public/assets/DiagonalCrosswalkYongeDundas.mp4",
            "p5_fingers": "public/assets/fingers.mov",
        },
    ),
    Footage(
        "showlab/MotionDirector",
        "Apache-2.0" + NOT_STATED,
        {
            "md_bike2": "test_data/bicycle/stock-footage-young-hipster-man-in-helmet-riding-fixed-gear-bicycle-in-the-"
            "city-during-autumn-morning-side-view.mp4",
            "md_bike3": "test_data/bicycle/stock-footage-young-stylish-businessman-go-to-work-on-his-sport-retro-bike-"
            "in-sunny-day.mp4",
        },
    ),
    Footage(
        "tensorflow/tfjs-models",
        "Apache-2.0" + NOT_STATED,
        {
            "tfjs_hand": "hand-pose-detection/test_data/asl_hand.25fps.mp4",
        },
    ),
    Footage(
        "wikimedia/mediawiki-extensions-TimedMediaHandler",
        "GPL-2.0" + NOT_STATED,
        {
            "tmh_av1": "tests/phpunit/integration/media/av1-sdr.webm",
            "tmh_bear": "tests/phpunit/integration/media/bear-vp9-opus.webm",
            "tmh_shuttle": "tests/phpunit/integration/media/shuttle10seconds.1080x608.webm",
            "tmh_stream": "tests/phpunit/integration/media/stream.360p.video.vp9.mp4",
        },
    ),
    Footage(
        "zhangmozhe/Deep-Exemplar-based-Video-Colorization",
        "MIT" + NOT_STATED,
        {
            "dex39": "sample_videos/clips/v39/",
        },
    ),
)
