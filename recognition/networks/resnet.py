"""ResNet-50 for aligned faces (He et al. 2016, arXiv:1512.03385), trained with CosFace."""

from torch import nn


def cosface_resnet50(embedding_dim: int = 512) -> nn.Module:
    """Return an untrained ResNet-50 with an embedding layer; 24.6 million parameters.

    It maps N×3×112×112 float32 RGB in [-1, 1] to N×D embeddings, not normalised. The margin head
    (Wang et al. 2018, CosFace, arXiv:1801.09414) is used in training only.
    """
    from torchvision.models import resnet50

    # Blocks initialised as the identity train faster (Goyal et al. 2017, arXiv:1706.02677, 5.1).
    network = resnet50(weights=None, zero_init_residual=True)
    network.fc = nn.Sequential(
        nn.Linear(network.fc.in_features, embedding_dim, bias=False),
        nn.BatchNorm1d(embedding_dim),
    )
    return network
