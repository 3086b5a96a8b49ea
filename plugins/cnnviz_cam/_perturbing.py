"""The class activation maps that ask the network about changed pictures or feature maps."""

from __future__ import annotations

from cnnviz_core.specs import ExplainerSpec

__all__ = ["PERTURBING"]

PERTURBING: list[ExplainerSpec] = [
    ExplainerSpec(
        name="score-cam",
        target="cnnviz_cam.score_cam:ScoreCAM",
        summary="Feature maps weighted by the score of the picture seen through each of them",
        family="cam",
        needs=frozenset({"capture"}),
        references=(
            "Wang et al., Score-CAM: score-weighted visual explanations for convolutional neural "
            "networks, CVPR workshops 2020",
        ),
        aliases=("scorecam", "faster-score-cam"),
        cost="1 forward a channel",
    ),
    ExplainerSpec(
        name="ss-cam",
        target="cnnviz_cam.ss_cam:SSCAM",
        summary="Score-CAM with each score averaged over noise",
        family="cam",
        needs=frozenset({"capture"}),
        references=(
            "Naidu et al., SS-CAM: smoothed Score-CAM for sharper visual feature localization, "
            "2020",
        ),
        aliases=("sscam", "smoothed-score-cam"),
        cost="1 forward a channel and draw",
    ),
    ExplainerSpec(
        name="is-cam",
        target="cnnviz_cam.is_cam:ISCAM",
        summary="Score-CAM with each score averaged on the way to the masked picture",
        family="cam",
        needs=frozenset({"capture"}),
        references=(
            "Naidu et al., IS-CAM: integrated Score-CAM for axiomatic-based explanations, 2020",
        ),
        aliases=("iscam", "integrated-score-cam"),
        cost="1 forward a channel and step",
    ),
    ExplainerSpec(
        name="ablation-cam",
        target="cnnviz_cam.ablation_cam:AblationCAM",
        summary="Feature maps weighted by the drop of the score without each of them",
        family="cam",
        needs=frozenset({"capture", "replace"}),
        references=(
            "Ramaswamy & Desai, Ablation-CAM: visual explanations for deep convolutional network "
            "via gradient-free localization, WACV 2020",
        ),
        aliases=("ablationcam",),
        cost="1 forward a channel",
    ),
    ExplainerSpec(
        name="full-grad",
        target="cnnviz_cam.full_grad:FullGrad",
        summary="Gradient times input, and at every layer gradient times bias",
        family="cam",
        needs=frozenset({"capture", "gradient", "parameters", "replace"}),
        references=(
            "Srinivas & Fleuret, Full-gradient representation for neural network visualization, "
            "NeurIPS 2019",
        ),
        aliases=("fullgrad", "full-gradient"),
        cost="1 forward, 1 backward",
    ),
]
