"""The class activation maps made of feature maps alone, and the controls."""

from __future__ import annotations

from cnnviz_core.specs import ExplainerSpec

__all__ = ["ACTIVATIONS"]

ACTIVATIONS: list[ExplainerSpec] = [
    ExplainerSpec(
        name="eigen-cam",
        target="cnnviz_cam.eigen_cam:EigenCAM",
        summary="Feature maps projected on their first principal direction",
        family="cam",
        needs=frozenset({"capture"}),
        references=(
            "Muhammad & Yeasin, Eigen-CAM: class activation map using principal components, "
            "IJCNN 2020",
        ),
        aliases=("eigencam",),
        cost="1 forward",
        class_agnostic=True,
    ),
    ExplainerSpec(
        name="eigen-grad-cam",
        target="cnnviz_cam.eigen_grad_cam:EigenGradCAM",
        summary="Gradient times feature maps, projected on their first principal direction",
        family="cam",
        needs=frozenset({"capture", "gradient"}),
        references=(
            "Gildenblat et al., PyTorch library for CAM methods (pytorch-grad-cam), 2021",
            "Muhammad & Yeasin, Eigen-CAM: class activation map using principal components, "
            "IJCNN 2020",
        ),
        aliases=("eigengradcam", "eigen-gradcam"),
        cost="1 forward, 1 backward",
    ),
    ExplainerSpec(
        name="kpca-cam",
        target="cnnviz_cam.kpca_cam:KPCACAM",
        summary="Positions along the first kernel principal component of their features",
        family="cam",
        needs=frozenset({"capture"}),
        references=(
            "Karmani et al., KPCA-CAM: visual explainability of deep computer vision models using "
            "kernel PCA, 2024",
        ),
        aliases=("kpcacam", "kernel-pca-cam"),
        cost="1 forward",
        class_agnostic=True,
    ),
    ExplainerSpec(
        name="fem",
        target="cnnviz_cam.fem:FEM",
        summary="Where channels are unusually strong, weighted by their means",
        family="cam",
        needs=frozenset({"capture"}),
        references=(
            "Fuad et al., Features understanding in 3D CNNs for actions recognition in video, "
            "IPTA 2020",
        ),
        aliases=("feature-explanation-method", "feature-based-explanation-method"),
        cost="1 forward",
        class_agnostic=True,
    ),
    ExplainerSpec(
        name="deep-feature-factorisation",
        target="cnnviz_cam.deep_feature_factorisation:DeepFeatureFactorisation",
        summary="Feature maps factorised into concepts, and the one that speaks for the target",
        family="cam",
        needs=frozenset({"capture", "gradient"}),
        references=(
            "Collins, Achanta & Süsstrunk, Deep feature factorization for concept discovery, "
            "ECCV 2018",
        ),
        aliases=("deep-feature-factorization", "dff"),
        cost="1 forward, 1 backward",
    ),
    ExplainerSpec(
        name="random-cam",
        target="cnnviz_cam.random_cam:RandomCAM",
        summary="Control: feature maps weighted at random",
        family="control",
        needs=frozenset({"capture"}),
        references=("Gildenblat et al., PyTorch library for CAM methods (pytorch-grad-cam), 2021",),
        aliases=("randomcam",),
        cost="1 forward",
        class_agnostic=True,
    ),
    ExplainerSpec(
        name="centre-gaussian",
        target="cnnviz_cam.centre_gaussian:CentreGaussian",
        summary="Control: a Gaussian at the picture's centre",
        family="control",
        needs=frozenset(),
        references=(
            "Choe et al., Evaluating weakly supervised object localization methods right, "
            "CVPR 2020",
        ),
        aliases=("center-gaussian",),
        cost="1 forward",
        class_agnostic=True,
    ),
]
