"""Colorization (Zhang et al. 2016, "Colorful Image Colorization", arXiv:1603.08511)."""

import copy
import logging

import torch
import torch.nn.functional as F
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from sslkit.backbones import Backbone
from sslkit.data import gather
from sslkit.embeddings import check_above
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views import EvaluationView
from sslkit.views.colorization import ColorizationView
from sslkit.views.lab import annealed_mean, gamut_bins, rebalancing, soft_encode

LOOKED_AT = 2000  # images, for how often each colour is met
GREY = 2  # of 255, what the channels of a grey image differ by at most

logger = logging.getLogger("sslkit")


class Colorization(Method):
    """Which of the in-gamut bins of ab is the colour of each patch, given the lightness alone?

    The head goes from the backbone's feature map to the targets' size, and has no connections
    from layers before it. Pixels weigh by how rare the colours of their bins are in the data. The
    backbone sees lightness when it is evaluated, too.

    Args:
        backbone: the network that is kept.
        view: lightness, and the colours to predict.
        optimizer: the optimiser and its schedule.
        hidden_dim: channels of the head.
        mix: the paper's lambda, the uniform share of the prior that rare colours are weighted
            by, in [0, 1]; at 1 all weigh the same.
        temperature: of the annealed mean, for the pictures, above 0.

    Attributes:
        prior: (Q,), how often the colours of the data fall into each bin; uniform before
            ``prepare``, which takes it from up to 2,000 images.
        weights: (Q,), the weights of pixels by their bins.

    Raises:
        ValueError: a number out of its range; when training begins, data that is mostly grey.
    """

    n_views = 1
    targeted = True
    grayscale = True
    prior: Tensor
    weights: Tensor
    bins: Tensor

    def __init__(
        self,
        backbone: Backbone,
        view: ColorizationView,
        optimizer: Optimizer | None = None,
        *,
        hidden_dim: int = 128,
        mix: float = 0.5,
        temperature: float = 0.38,
    ) -> None:
        super().__init__(backbone, view, optimizer)
        if hidden_dim < 1:
            raise ValueError(f"hidden_dim must be at least 1, not {hidden_dim}")
        check_above(0, temperature=temperature)
        self.mix, self.temperature = mix, temperature
        self.register_buffer("bins", gamut_bins().clone(), persistent=False)
        self.register_buffer("prior", torch.full((len(self.bins),), 1 / len(self.bins)))
        self.register_buffer("weights", rebalancing(self.prior, self.bins, mix=mix))
        with torch.no_grad():  # a map may have other channels than the features
            zeros = torch.zeros(1, 3, view.size, view.size)
            channels = copy.deepcopy(backbone).eval().feature_map(zeros).shape[1]
        self.head = nn.Sequential(
            *_conv(channels, hidden_dim),
            nn.Upsample((view.size // view.stride,) * 2, mode="bilinear"),
            *_conv(hidden_dim, hidden_dim),
            nn.Conv2d(hidden_dim, len(self.bins), 1),
        )
        self._prepared = False

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        super().prepare(dataset, batch_size, world_size)
        if self._prepared:
            return
        size: int = len(dataset)  # type: ignore[arg-type]
        rows = torch.randperm(size, generator=torch.Generator().manual_seed(0))[:LOOKED_AT]
        whole = EvaluationView(self.view.size, None)
        bins, grey = gamut_bins(), 0
        prior = torch.zeros(len(bins))
        for some in tqdm(rows.split(100), "colours of the data", delay=2, disable=None):
            images, _ = gather(dataset, some)
            spread = images.amax(1).int() - images.amin(1).int()
            grey += int((spread.flatten(1).amax(1) <= GREY).sum())
            nearest, _ = soft_encode(self.view.colours(whole(images)), bins, neighbours=1)
            prior += nearest.flatten().bincount(minlength=len(bins))
        said = f"{grey:,} of the {len(rows):,} images looked at are grey"
        if 2 * grey > len(rows):
            raise ValueError(f"{said}: colorization has nothing to learn from them")
        if grey:
            logger.warning(said)
        self.prior.copy_(prior / prior.sum())
        self.weights.copy_(rebalancing(self.prior, self.bins, mix=self.mix))
        self._prepared = True

    def logits(self, grey: Tensor) -> Tensor:
        """(N, 3, size, size) normalised to (N, Q, size/stride, size/stride), of the bins."""
        return self.head(self.backbone.feature_map(grey))

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        (grey,), ab = batch.views, batch.targets
        logits = self.logits(grey)
        index, shares = soft_encode(ab, self.bins)
        log_p = logits.float().log_softmax(1).gather(1, index)
        nearest = index[:, 0]
        loss = -(self.weights[nearest] * (shares * log_p).sum(1)).mean()
        return {"loss": loss, "accuracy": (logits.argmax(1) == nearest).float().mean()}

    def pictures(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        """What it sees, the colours that it gives it by the annealed mean, and the true ones."""
        true = EvaluationView(self.view.size, None)(images)
        grey = self.eval_view(images)
        ab = annealed_mean(self.logits(self._ready(grey)), self.bins, temperature=self.temperature)
        ab = F.interpolate(ab, size=true.shape[-2:], mode="bilinear")
        predicted = lab_to_rgb(torch.cat([rgb_to_lab(true)[:, :1], ab], 1))
        grey = self.eval_view.denormalize(grey)
        return {"colours": {"grey": grey, "predicted": predicted, "true": true}}


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
