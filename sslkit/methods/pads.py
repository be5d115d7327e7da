"""Policy-adapted sampling (Roth et al. 2020, "PADS: Policy-Adapted Sampling for Visual Similarity
Learning", CVPR, arXiv:2003.11113)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sslkit.backbones import Backbone
from sslkit.data import DataModule
from sslkit.embeddings import check_at_least, checked, distances, full_precision, unit
from sslkit.methods.base import Batch
from sslkit.methods.clusters import class_distances, clusters, mutual_information
from sslkit.methods.held_out import (
    HeldOut,
    check_single,
    features_of,
    held_out_of,
    recall_at_1,
)
from sslkit.methods.metric_learning import MetricLearning
from sslkit.methods.negatives import check_chosen_for, draw, how_many, loss_of_each
from sslkit.methods.sampling import NEVER, gumbel_top_k, ranks, relative_entropy, tell_of_rate
from sslkit.training import Optimizer
from sslkit.views import View

FACTORS = (0.8, 1.0, 1.25)
LENGTHS = (2, 8, 16, 32)
LEAST = 1e-6  # of a bin, which could not grow again from 0


class PADS(MetricLearning):
    """Metric learning on negatives drawn by their distance, as a policy that learns has it.

    The paper's: for each anchor a negative of the batch is drawn with the probability that a
    histogram gives to its distance from the anchor, at length 1; 30 bins from 0.1 to 1.4. Every 30
    steps a policy of two hidden layers of 128 sees how the embedding does on images held out of
    each class, as running averages over 2, 8, 16 and 32 times (Recall@k, normalised mutual
    information of k-means, mean distances within and between classes), the histogram, and the share
    of the run that is done. It multiplies each bin by 0.8, 1 or 1.25. Its reward is the sign of the
    change of Recall@1 + NMI since the last time. The paper's policy learns by PPO, or by REINFORCE,
    with a critic or a running mean of the rewards as baseline; here it is REINFORCE with the mean.

    Ours: Recall@1 alone; averages that are exponential; a uniform histogram at first, where the
    paper's published code has the mass between 0.3 and 0.7 (``start``); a policy that begins
    uniform and shares the run's optimiser; distances outside of the interval count as its ends;
    the N-pair loss, whose negatives are drawn without replacement. The same held-out images, and
    the same beginnings of k-means, judge each time. Each row is an anchor, with another row of its
    class, at random, for its positive.

    Logged beside the loss: ``metric``; ``entropy`` of the histogram as a part of the uniform one's;
    ``distance``, its mean; ``rank``, the mean rank of the chosen negatives, 0 the nearest, 1 the
    farthest; and, when it judges, ``held_out_recall``, ``held_out_nmi`` and ``reward``.

    Args:
        backbone, view, optimizer, embedding_dim, normalize, freeze_batch_norm, backbone_lr: see
            :class:`MetricLearning`.
        loss: ``TripletMarginLoss`` or ``NPairLoss`` of ``sslkit.losses``, without a miner.
        negatives: negatives an anchor; by default 1, with the N-pair loss half of the batch's
            other classes.
        bins: of the histogram, 2 or more.
        interval: the distances that it covers, from 0 to 2.
        start: the distances that it begins with; None for the whole interval.
        adapt_every: steps from one adaptation to the next, 2 or more: what was judged at one step
            changes the histogram at the next, when the policy has learned from it.
        judge_images: held-out images that are judged, whole classes.
        policy_lr: the policy's learning rate, scaled and scheduled as the optimizer's own; for
            AdamW, whose steps do not depend on the size of a loss.

    Raises:
        ValueError: another loss, or a value outside its range; when training begins, several
            processes, or data without ``per_class`` or ``held_out``.
    """

    min_batch_size = 4
    histogram: Tensor
    averages: Tensor
    before: Tensor
    baseline: Tensor
    state: Tensor
    action: Tensor

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
        negatives: int | None = None,
        bins: int = 30,
        interval: tuple[float, float] = (0.1, 1.4),
        start: tuple[float, float] | None = None,
        adapt_every: int = 30,
        judge_images: int = 256,
        policy_lr: float = 0.02,
    ) -> None:
        check_chosen_for("PADS", loss)
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
        check_at_least(1, negatives=1 if negatives is None else negatives)
        check_at_least(2, bins=bins, adapt_every=adapt_every)
        check_at_least(4, judge_images=judge_images)
        check_at_least(0, policy_lr=policy_lr)
        self.negatives, self.policy_lr, self.interval = negatives, policy_lr, tuple(interval)
        self.adapt_every, self.judge_images = adapt_every, judge_images
        state = torch.zeros(4 * len(LENGTHS) + bins + 1)
        self.policy = policy_of(len(state), bins)
        self.register_buffer("histogram", histogram_of(bins, interval, start))
        self.register_buffer("averages", torch.zeros(len(LENGTHS), 4))
        self.register_buffer("before", torch.tensor(0.0))
        self.register_buffer("baseline", torch.tensor(0.0))
        self.register_buffer("state", state)
        self.register_buffer("action", torch.ones(bins, dtype=torch.long))
        self.step = 0
        self.held_out: HeldOut | None = None
        self.length = math.inf  # steps of the run, which a fit says

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        self.step = int(state)

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        check_single("PADS", world_size)
        super().prepare(dataset, batch_size, world_size)

    def take(self, data: DataModule, world_size: int = 1) -> None:
        super().take(data, world_size)
        self.judge_by(data)

    def judge_by(self, data: DataModule | None) -> None:
        """Take from a data module the images that are held out, and how its batches are made."""
        self.held_out, self.per_class = held_out_of(data, "PADS"), data.per_class

    def on_train_start(self) -> None:
        tell_of_rate("PADS", self.optimizer, self.policy_lr)
        self.length = self.trainer.estimated_stepping_batches
        self.judge_by(self.trainer.datamodule)  # again: resident images have moved to the device

    def rates(self) -> dict[nn.Module, float]:
        return {**super().rates(), self.policy: self.policy_lr / self.optimizer.lr}

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """Of P classes x K rows, class by class, as the data's ``per_class`` makes them."""
        if self.held_out is None:
            raise ValueError("PADS needs a data module first: call take, or fit on one")
        terms = self.learn() if self.step % self.adapt_every == 0 else {}
        if self.step % self.adapt_every == 1:
            self.adapt()
        self.step += 1
        labels, classes = batch.labels.repeat(len(batch.views)), batch.labels[:: self.per_class]
        (z,) = checked(embeddings=self.backbone(torch.cat(batch.views)))
        far, candidates = distances(unit(z.detach())), labels[:, None] != labels
        n_candidates = len(labels) - len(labels) // len(classes)
        scores = self.histogram[bins_of(far, self.interval, len(self.histogram))].log()
        picks = gumbel_top_k(
            scores.masked_fill(~candidates, NEVER),
            how_many(self.loss, self.negatives, len(classes), n_candidates),
        )
        metric = loss_of_each(self.loss, z, draw(labels, 1).positive, picks).mean()
        low, high = self.interval
        centres = torch.linspace(low, high, 2 * len(self.histogram) + 1, device=z.device)[1::2]
        watched = {
            "entropy": relative_entropy(self.histogram.log()),
            "distance": (self.histogram * centres).sum(),
            "rank": ranks(far, candidates).gather(1, picks).mean(),
        }
        policy = terms.pop("policy", 0)
        return {"loss": metric + policy, "metric": metric, **watched, **terms}

    def learn(self) -> dict[str, Tensor]:
        """Judge the embedding; the policy's loss for its last action, and the state of the next."""
        found = self.judged()
        score = found[0] + found[1]
        terms = {"held_out_recall": found[0], "held_out_nmi": found[1]}
        if self.step:
            log_p = self._log_probabilities().gather(1, self.action[:, None])
            reward = (score - self.before).sign()
            terms["policy"] = -(reward - self.baseline) * log_p.mean()
            terms["reward"] = reward
            self.baseline.lerp_(reward, 0.05)
            parts = 1 / torch.tensor(LENGTHS, device=found.device)[:, None]
            self.averages.lerp_(found.expand_as(self.averages), parts)
        else:
            self.averages.copy_(found.expand_as(self.averages))
        self.before.copy_(score)
        done = self.histogram.new_tensor([min(self.step / self.length, 1.0)])
        beside_uniform = self.histogram * len(self.histogram)
        self.state = torch.cat([self.averages.flatten(), beside_uniform, done])
        return terms

    @torch.no_grad()
    def adapt(self) -> None:
        """Multiply each bin by a factor that the policy draws."""
        self.action = self._log_probabilities().exp().multinomial(1).squeeze(1)
        factors = torch.tensor(FACTORS, device=self.action.device)[self.action]
        changed = (self.histogram * factors).clamp_min(LEAST)
        self.histogram = changed / changed.sum()

    @torch.no_grad()
    def judged(self) -> Tensor:
        """Recall@1, NMI, distances within and between classes of the held-out images, (4,)."""
        assert self.held_out is not None
        images, labels = self.held_out.draw(self.judge_images, torch.Generator().manual_seed(0))
        features, labels = self._features(images), labels.to(self.device)
        with full_precision(features):
            head = self.backbone.embedding
            z = unit(F.linear(features, head.weight.float(), head.bias.float()))
            nmi = mutual_information(labels, clusters(z, len(labels.unique())))
            return torch.stack([recall_at_1(z, labels), nmi, *class_distances(z, labels)])

    def _features(self, images: Tensor) -> Tensor:
        return features_of(self.backbone.backbone, self.eval_view, images)

    def _log_probabilities(self) -> Tensor:
        """Of the factors of each bin in the state that was judged, (bins, 3)."""
        scores = self.policy(self.state.to(self.policy[0].weight.dtype))
        return scores.float().view(-1, len(FACTORS)).log_softmax(1)


def policy_of(state: int, bins: int, hidden_dim: int = 128) -> nn.Sequential:
    """From a state to the scores of each bin's factors; at first all are 0."""
    last = nn.Linear(hidden_dim, bins * len(FACTORS))
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    hidden = nn.Linear(state, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()
    return nn.Sequential(*hidden, last)


def bins_of(far: Tensor, interval: tuple[float, float], bins: int) -> Tensor:
    """The bin of each distance; those outside of the interval are in the first and the last.

    >>> bins_of(torch.tensor([0.0, 0.1, 0.8, 1.4, 2.0]), (0.1, 1.4), 2)
    tensor([0, 0, 1, 1, 1])
    """
    low, high = interval
    return ((far - low) / (high - low) * bins).floor().long().clamp(0, bins - 1)


def histogram_of(
    bins: int, interval: tuple[float, float], start: tuple[float, float] | None
) -> Tensor:
    """(bins,), the same in each bin whose middle lies in ``start``, and next to nothing elsewhere.

    Raises:
        ValueError: an interval that is not of distances at length 1, or a start without a bin.

    >>> histogram_of(4, (0.0, 2.0), (0.0, 1.0)).round(decimals=3).tolist()
    [0.5, 0.5, 0.0, 0.0]
    """
    low, high = interval
    if not 0 <= low < high <= 2:
        raise ValueError(f"interval must be 0 <= low < high <= 2, not {low} and {high}")
    middles = torch.linspace(low, high, 2 * bins + 1)[1::2]
    first, last = interval if start is None else start
    within = (middles >= first) & (middles <= last)
    if not within.any():
        raise ValueError(
            f"start holds no bin of the interval from {low} to {high}: {first} to {last}"
        )
    histogram = within.float().clamp_min(LEAST)
    return histogram / histogram.sum()
