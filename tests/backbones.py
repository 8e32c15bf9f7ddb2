"""Networks of transformers in miniature, with random weights: what tests use in the place of real checkpoints."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

SIZES: Config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
# With 16 channels and a stride of 8, or 8 channels a group and a kernel of 16, oneDNN's convolutions in bfloat16 are
# wrong on some processors (torch 2.13): the sizes here, and those of the real networks, are not touched by that.
WAVES: Config = {
    **SIZES,
    "conv_dim": [32, 32, 32],
    "conv_kernel": [10, 8, 5],
    "conv_stride": [10, 8, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 8,
}
LARGE: Config = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
"""As the large speech networks are built, XLS-R and WavLM-Large among them."""
PATCHES: Config = {**SIZES, "image_size": 32, "patch_size": 8}

SPEECH: dict[str, Config] = {
    "wav2vec2": {"model_type": "wav2vec2", **WAVES},
    "xls-r": {"model_type": "wav2vec2", **WAVES, **LARGE},
    "hubert": {"model_type": "hubert", **WAVES},
    "wavlm": {"model_type": "wavlm", **WAVES},
    "wavlm-large": {"model_type": "wavlm", **WAVES, **LARGE},
    "wav2vec2-bert": {"model_type": "wav2vec2-bert", **SIZES, "output_hidden_size": 32},
}
IMAGE: dict[str, Config] = {
    "vit": {"model_type": "vit", **PATCHES},
    "clip": {"model_type": "clip_vision_model", **PATCHES},
    "dinov2": {"model_type": "dinov2", **{k: v for k, v in PATCHES.items() if k != "intermediate_size"}},
    "convnextv2": {"model_type": "convnextv2", "hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
    "efficientnet": {
        **{"model_type": "efficientnet", "image_size": 64, "hidden_dim": 320},
        **{"width_coefficient": 0.25, "depth_coefficient": 0.25, "initializer_range": 0.5},
    },
}
VIDEO: dict[str, Config] = {
    "videomae": {"model_type": "videomae", **PATCHES, "num_frames": 4},
    "vivit": {"model_type": "vivit", **SIZES, "image_size": 32, "num_frames": 4, "tubelet_size": [2, 8, 8]},
}


def options(config: Config, tuning: str, **more: Any) -> dict[str, Any]:
    """Options of an encoder in miniature."""
    size = {} if config["model_type"] != "convnextv2" else {"size": 64}
    return {"config": config, "tuning": tuning, "dim": 24, "rank": 4, **size, **more}


ENCODERS: dict[str, dict[str, dict[str, Any]]] = {
    "speech_backbone": {
        "wav2vec2, full": options(SPEECH["wav2vec2"], "full"),
        "xls-r, lora": options(SPEECH["xls-r"], "lora"),
        "hubert, frozen": options(SPEECH["hubert"], "frozen"),
        "wavlm, layernorm": options(SPEECH["wavlm"], "layernorm"),
        "wavlm-large, lora": options(SPEECH["wavlm-large"], "lora"),
        "wav2vec2-bert, full": options(SPEECH["wav2vec2-bert"], "full"),
    },
    "image_backbone": {
        "vit, full": options(IMAGE["vit"], "full"),
        "clip, lora": options(IMAGE["clip"], "lora", targets=["q_proj", "v_proj"]),
        "dinov2, full": options(IMAGE["dinov2"], "full"),
        "convnextv2, lora": options(IMAGE["convnextv2"], "lora"),
        "efficientnet, full": options(IMAGE["efficientnet"], "full"),
    },
    "video_backbone": {
        "videomae, lora": options(VIDEO["videomae"], "lora"),
        "vivit, layernorm": options(VIDEO["vivit"], "layernorm"),
    },
    "efficientnet_lite": {"": {}, "every second crop": {"every": 2}},
    "face_cnn": {"": {}, "every second crop": {"every": 2}},
    "xception": {"64 pixels": {"size": 64}},
    "members": {
        "two pairs' speech": {
            "of": [{"encoder": "sync_speech"}, {"encoder": "sync_speech", "options": {"dim": 32}}]
        },
    },
}
"""Variants of the encoders that say nothing without options: name -> variant -> options."""
