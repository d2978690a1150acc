"""A vision transformer for small images: torchvision's, of any size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models import VisionTransformer

from ...api import TaskInfo
from . import Vit
from .common import ImageTask, image_task, in_front


class SmallVit(nn.Module):
    """torchvision's VisionTransformer with any number of channels, and attention as plain matrix products.

    Fused attention has no gradient of a gradient, as penalties on input gradients need one, and on a GPU its
    backward pass gives other bits each time.

    Args:
        task: sizes of the images, and number of classes.
        options: see Vit.
    """

    def __init__(self, task: ImageTask, options: Vit) -> None:
        super().__init__()
        self.transformer = VisionTransformer(
            image_size=task.height,
            patch_size=options.patch,
            num_layers=options.depth,
            num_heads=options.heads,
            hidden_dim=options.dim,
            mlp_dim=4 * options.dim,
            num_classes=task.classes,
        )
        patches = nn.Conv2d(task.channels, options.dim, options.patch, stride=options.patch)
        nn.init.trunc_normal_(patches.weight, std=(task.channels * options.patch**2) ** -0.5)
        nn.init.zeros_(patches.bias)  # type: ignore[arg-type]  # it has one
        self.transformer.conv_proj = patches
        # torchvision starts with zeros, where inputs have no gradient: there would be no first attack.
        nn.init.trunc_normal_(self.transformer.heads.head.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, H, W)."""
        with sdpa_kernel(SDPBackend.MATH):
            logits: Tensor = self.transformer(x)
        return logits


def vit(options: Vit, *, info: TaskInfo) -> nn.Module:
    """Build a vision transformer for square images.

    Raises:
        ValueError: the task is not image classification, or the patches do not tile its images.
    """
    task = image_task(info, "vit")
    if task.height != task.width or task.height % options.patch:
        raise ValueError(
            f"vit with patch = {options.patch} takes square images whose side is a multiple of it, not "
            f"{task.height}x{task.width}"
        )
    return in_front(SmallVit(task, options), info, options)
