"""Image classification: the task, its networks, and what they are trained for."""

from .homogeneous import HomogeneousMLP, TailCrossEntropy
from .networks import MadryCNN, ResNet9, ResNet18, ResNet50, SmallCNN, TorchvisionNetwork
from .objectives import TRADES, Adversarial, GaussianNoise, Objective, Standard, relative_entropy
from .representation import Representation
from .task import ImageClassifier, Normalize
from .tutorial_networks import CIFAR10TutorialCNN, MNISTTutorialCNN

__all__ = [
    "TRADES",
    "Adversarial",
    "CIFAR10TutorialCNN",
    "GaussianNoise",
    "HomogeneousMLP",
    "ImageClassifier",
    "MNISTTutorialCNN",
    "MadryCNN",
    "Normalize",
    "Objective",
    "Representation",
    "ResNet9",
    "ResNet18",
    "ResNet50",
    "SmallCNN",
    "Standard",
    "TailCrossEntropy",
    "TorchvisionNetwork",
    "relative_entropy",
]
