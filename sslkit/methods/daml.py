"""Deep adversarial metric learning (Duan et al. 2018, "Deep Adversarial Metric Learning", CVPR)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.backbones import Backbone
from sslkit.embeddings import check_at_least, checked, full_precision, unit
from sslkit.methods.base import Batch
from sslkit.methods.metric_learning import MetricLearning
from sslkit.methods.negatives import SEEN_BY, Drawn, draw
from sslkit.training import Optimizer
from sslkit.views import View


class DAML(MetricLearning):
    """Metric learning against synthetic hard negatives.

    A generator of three linear layers takes the features of an anchor, a positive and a negative
    as it comes, most often an easy one, and makes those of a hard negative. It minimises
    hardness + ``regularity`` * regularity + ``adversarial`` * adversarial, in that order the mean
    squared differences of what it made from the anchor's features and from the real negative's,
    and by how much the metric still keeps it beyond the margin. The metric minimises its loss with
    what was made in the place of real negatives. Neither's loss moves the other.

    The three terms and the losses that it goes with are the paper's. Ours: what the generator's
    layers give is added to the real negative's features, and is 0 at first; neither's loss moves
    the other; the metric goes on with the real batch beside the synthetic negatives; means in the
    place of sums; negatives drawn anew for each anchor; and the phase alone, in which the metric
    learns from the real batch and the generator from features that it does not change, at once.
    Over processes each makes its negatives of its own rows.

    Logged beside the loss and its terms: ``harder``, the share of what was made that lies nearer
    to the anchor than the real negative does; ``to_class``, its mean distance from the mean
    embedding of the class that it came from, and ``real_to_class``, that of the real negatives.

    Args:
        backbone, view, optimizer, embedding_dim, normalize, freeze_batch_norm, backbone_lr: see
            :class:`MetricLearning`.
        loss: ``ContrastiveLoss``, ``TripletMarginLoss``, ``LiftedStructureLoss`` or ``NPairLoss``
            of ``sslkit.losses``.
        negatives: synthetic negatives an anchor, of real ones that are drawn with replacement.
        alone: share of the run's steps in which both train alone, from 0 up to 1.
        real: weight of the loss of the real batch once both train together; the paper has 0.
        synthetic: weight of the loss of the synthetic negatives.
        regularity: weight of that term of the generator's, beside hardness, which has 1.
        adversarial: weight of that term of the generator's.
        generator_dim: width of the generator's hidden layers; None for the features'.

    Raises:
        ValueError: another loss, or a value outside its range.
    """

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        optimizer: Optimizer | None = None,
        *,
        loss: nn.Module,
        embedding_dim: int = 128,
        normalize: bool = True,
        freeze_batch_norm: bool = False,
        backbone_lr: float = 1.0,
        negatives: int = 16,
        alone: float = 0.3,
        real: float = 1.0,
        synthetic: float = 1.0,
        regularity: float = 3.0,
        adversarial: float = 1.0,
        generator_dim: int | None = None,
    ) -> None:
        super().__init__(
            backbone,
            view,
            optimizer,
            loss=loss,
            embedding_dim=embedding_dim,
            normalize=normalize,
            freeze_batch_norm=freeze_batch_norm,
            backbone_lr=backbone_lr,
        )
        if type(loss) not in SEEN_BY:
            names = ", ".join(kind.__name__ for kind in SEEN_BY)
            raise ValueError(f"DAML is not for {type(loss).__name__}; choose from {names}")
        width = backbone.feature_dim if generator_dim is None else generator_dim
        if min(negatives, width) < 1:
            raise ValueError(
                f"negatives and generator_dim must be at least 1, not {negatives} and {width}"
            )
        if not 0 <= alone < 1:
            raise ValueError(f"alone must be in [0, 1), not {alone}")
        check_at_least(0, real=real, synthetic=synthetic)
        check_at_least(0, regularity=regularity, adversarial=adversarial)
        self.negatives, self.alone, self.real, self.synthetic = negatives, alone, real, synthetic
        self.regularity, self.adversarial = regularity, adversarial
        self.generator = Generator(backbone.feature_dim, width)
        self.register_buffer("first_together", torch.tensor(-1.0))  # step, once a run has begun
        self.alone_until = 0.0  # the same on the host: no step waits for the device

    def on_train_start(self) -> None:
        if self.first_together < 0:  # else a resumed run's, which may have become longer
            self.first_together.fill_(self.alone * self.trainer.estimated_stepping_batches)
        self.alone_until = float(self.first_together)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        labels = batch.labels.repeat(len(batch.views))
        (features,) = checked(embeddings=self.backbone.backbone(torch.cat(batch.views)))
        (z,) = checked(embeddings=self.backbone.embed(features))
        real = self.loss(z, labels)
        drawn = draw(labels, self.negatives)
        made = self.generator(features.detach(), drawn)
        terms = self._generators(features.detach(), z.detach(), made, drawn)
        metric = real
        if self.global_step >= self.alone_until:
            seen = SEEN_BY[type(self.loss)](
                self.loss, z, drawn.positive, self._embed(made.detach())
            )
            synthetic = drawn.mean(seen.loss)
            metric = self.real * real + self.synthetic * synthetic
            terms["synthetic"] = synthetic
        generator = (
            terms["hardness"]
            + self.regularity * terms["regularity"]
            + self.adversarial * terms["adversarial"]
        )
        with torch.no_grad():
            watched = self._watched(z.detach(), labels, made, drawn)
        return {"loss": metric + generator, "real": real, **terms, **watched}

    def _generators(self, x: Tensor, z: Tensor, made: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """The terms of what the generator minimises."""
        kept = SEEN_BY[type(self.loss)](self.loss, z, drawn.positive, self._judged(made)).kept
        return {
            "hardness": drawn.mean((made - x[:, None]).square().mean((1, 2))),
            "regularity": drawn.mean((made - x[drawn.negatives]).square().mean((1, 2))),
            "adversarial": drawn.mean(kept.mean(1)),
        }

    def _watched(self, z: Tensor, labels: Tensor, made: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        same = (labels[:, None] == labels).to(z.dtype)
        with full_precision(z):
            centres = (same @ z / same.sum(1, keepdim=True))[drawn.negatives]  # (N, M, d)
        found, reals = self._judged(made), z[drawn.negatives]
        nearer = (found - z[:, None]).norm(dim=2) < (reals - z[:, None]).norm(dim=2)
        return {
            "harder": drawn.mean(nearer.to(z.dtype).mean(1)),
            "to_class": drawn.mean((found - centres).norm(dim=2).mean(1)),
            "real_to_class": drawn.mean((reals - centres).norm(dim=2).mean(1)),
        }

    def _embed(self, made: Tensor) -> Tensor:
        """(N, M, D) features to embeddings, (N, M, d)."""
        (z,) = checked(embeddings=self.backbone.embed(made.flatten(0, 1)))
        return z.unflatten(0, made.shape[:2])

    def _judged(self, made: Tensor) -> Tensor:
        """The same, with a gradient for the features and none for the metric."""
        head = self.backbone.embedding
        rows = made.flatten(0, 1).to(head.weight.dtype)
        (z,) = checked(embeddings=F.linear(rows, head.weight.detach(), head.bias.detach()))
        z = unit(z) if self.backbone.normalize else z
        return z.unflatten(0, made.shape[:2])


class Generator(nn.Sequential):
    """Features of anchor, positive and negative to those of a hard negative, by three layers.

    What they give is added to the negative's features, and is 0 before training.

    Args:
        feature_dim: width D of the features. hidden_dim: of the two hidden layers.
    """

    def __init__(self, feature_dim: int, hidden_dim: int) -> None:
        super().__init__(
            nn.Linear(3 * feature_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, feature_dim),
        )
        nn.init.zeros_(self[-1].weight)
        nn.init.zeros_(self[-1].bias)

    def forward(self, features: Tensor, drawn: Drawn) -> Tensor:
        """(N, D) features to what is made for each of their negatives, (N, M, D)."""
        negative = features[drawn.negatives]
        anchor, positive = (
            x[:, None].expand_as(negative) for x in (features, features[drawn.positive])
        )
        given = torch.cat([anchor, positive, negative], 2).to(self[0].weight.dtype)
        return negative + super().forward(given).to(negative.dtype)
