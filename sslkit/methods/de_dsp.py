"""Deep embedding with a discriminative sampling policy (Duan et al. 2019, "Deep Embedding
Learning with Discriminative Sampling Policy", CVPR)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sslkit.backbones import Backbone
from sslkit.data import DataModule
from sslkit.data.class_batches import seeds_of
from sslkit.embeddings import check_at_least, checked, distances, full_precision, unit
from sslkit.methods.base import Batch
from sslkit.methods.held_out import (
    HeldOut,
    check_single,
    features_of,
    held_out_of,
    neighbourhood_loss,
    recall_at_1,
)
from sslkit.methods.metric_learning import MetricLearning
from sslkit.methods.negatives import (
    check_chosen_for,
    draw,
    how_many,
    loss_of_each,
    slopes_with_each,
    unit_along,
)
from sslkit.methods.relations import Relations
from sslkit.methods.sampling import (
    NEVER,
    Scorer,
    bumps,
    gumbel_top_k,
    log_probabilities,
    ranks,
    relative_entropy,
    standardised,
    tell_of_rate,
)
from sslkit.training import Optimizer
from sslkit.views import View

GAPS = 17  # places from -0.8 to 0.8 by which d(a, n) - d(a, p) is told apart


class DEDSP(MetricLearning):
    """Metric learning on classes and negatives that a sampler chooses, and learns to choose.

    The paper's, as its abstract has it: a sampler network and the embedding are trained at once;
    the sampler goes by relations among samples in the place of the hardness of all of them, which
    would take a pass of the network over the data; it serves several losses. Its text was not at
    hand: everything below is ours.

    Relations are kept by class, and moved by the batches alone: running centre, running loss, when
    it was last drawn (:class:`Relations`). Two policies, each a perceptron with 16 hidden units,
    draw without replacement in proportion to exp(score), at first uniformly:

    - the classes of a batch beyond its first quarter, which comes in shuffled rounds, by how far
      their centre is from these (the nearest, and on average), loss, time, and whether they were
      met. It needs the data's ``per_class``. Worker processes that stream the data are a few
      batches ahead: the choice is then so many steps old, and a resumed run may choose anew;
    - the negatives of each anchor among the batch's rows of other classes, by their distance d(a,
      n), where d(a, n) - d(a, p) lies among 17 places (:func:`~sslkit.methods.sampling.bumps`), the
      distance of the classes' centres, the class's loss, and the rank of d(a, n). Each row is an
      anchor, with another row of its class, at random, for its positive.

    A choice is rewarded by what it does for images that no batch shows, the data's ``held_out``, to
    first order: G is the gradient for the embedding layer of their :func:`neighbourhood_loss`, and
    the reward of an anchor with one negative is <gradient of their loss, G> with the features held
    fixed, by how much a small step on it lowers the loss of the held-out images. G is taken every
    ``judge_every`` steps, first when there were so many: the statistics of BatchNorm that it goes
    by say nothing of a new network, and until then the policies learn nothing. That of the
    negatives follows the gradient of its expected reward, over all that it might draw first
    (Ciosek & Whiteson 2018, "Expected Policy Gradients", AAAI), with the mean of an anchor's
    candidates for baseline; that of the classes REINFORCE, with the rewards of the anchors that are
    of a class or have a negative of it, and the mean of the batch's for baseline. Both are divided
    by their deviation. Neither the policies' loss nor the metric's moves the other.

    Logged beside the loss: ``metric``; ``reward``, the mean of the chosen; ``entropy`` and
    ``class_entropy`` of the policies as a part of the uniform one's; ``rank``, the mean rank of the
    chosen negatives, 0 the nearest, 1 the farthest, 0.5 for uniform; and, when G is taken,
    ``held_out``, the loss of the held-out images, and ``held_out_recall``, their Recall@1.

    Args:
        backbone, view, optimizer, embedding_dim, normalize, freeze_batch_norm, backbone_lr: see
            :class:`MetricLearning`.
        loss: ``TripletMarginLoss`` or ``NPairLoss`` of ``sslkit.losses``, without a miner.
        negatives: negatives an anchor; by default 1, with the N-pair loss half of the batch's
            other classes.
        judge_every: steps from one G to the next, and to the first.
        judge_images: held-out images that G is taken of, whole classes.
        entropy: weight of the policies' relative entropies, which the loss is lowered by.
        policy_lr: the policies' learning rate, scaled and scheduled as the optimizer's own; for
            AdamW, whose steps do not depend on the size of a loss.

    Raises:
        ValueError: another loss, or a value outside its range; when training begins, several
            processes, or data without images held out.
    """

    min_batch_size = 4
    relations: Relations | None
    direction_weight: Tensor
    direction_bias: Tensor

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
        judge_every: int = 15,
        judge_images: int = 64,
        entropy: float = 0.01,
        policy_lr: float = 0.02,
    ) -> None:
        check_chosen_for("DEDSP", loss)
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
        check_at_least(1, judge_every=judge_every, negatives=1 if negatives is None else negatives)
        check_at_least(4, judge_images=judge_images)
        check_at_least(0, entropy=entropy, policy_lr=policy_lr)
        self.negatives, self.entropy, self.policy_lr = negatives, entropy, policy_lr
        self.judge_every, self.judge_images = judge_every, judge_images
        self.class_policy, self.negative_policy = Scorer(5), Scorer(4 + GAPS)
        for name, like in self.backbone.embedding.named_parameters():
            self.register_buffer(f"direction_{name}", torch.zeros_like(like))
        self.relations = None
        self.held_out: HeldOut | None = None

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        check_single("DEDSP", world_size)
        super().prepare(dataset, batch_size, world_size)
        if self.relations is None:
            present = torch.bincount(dataset.labels.cpu()) > 0  # type: ignore[attr-defined]
            self.relations = Relations(present, self.backbone.feature_dim).to(self.device)

    def take(self, data: DataModule, world_size: int = 1) -> None:
        super().take(data, world_size)
        self.judge_by(data)

    def judge_by(self, data: DataModule | None) -> None:
        """Take from a data module the images that are held out, and how its batches are made."""
        self.held_out, self.per_class = held_out_of(data, "DEDSP"), data.per_class

    def on_train_start(self) -> None:
        tell_of_rate("DEDSP", self.optimizer, self.policy_lr)
        data = self.trainer.datamodule
        self.judge_by(data)  # again: resident images have moved to the device
        data.loader.sampler.choose = self.choose

    def rates(self) -> dict[nn.Module, float]:
        rate = self.policy_lr / self.optimizer.lr
        return {**super().rates(), self.class_policy: rate, self.negative_policy: rate}

    @torch.no_grad()
    def choose(self, seeds: list[int], how_many: int, generator: torch.Generator) -> list[int]:
        """The classes that a batch takes beside its seeds, as ``ClassBatches.choose`` wants it."""
        scores = self._class_scores(torch.tensor(seeds, device=self.device))
        return gumbel_top_k(scores.cpu(), how_many, generator).tolist()

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """Of P classes x K rows, class by class, as the data's ``per_class`` makes them."""
        if self.relations is None or self.held_out is None:
            raise ValueError("DEDSP needs a data module first: call take, or fit on one")
        step = self.relations.step
        terms = self.judge() if step and step % self.judge_every == 0 else {}
        labels, classes = batch.labels.repeat(len(batch.views)), batch.labels[:: self.per_class]
        features = self.backbone.backbone(torch.cat(batch.views))
        (z,) = checked(embeddings=self.backbone.embed(features))
        positive = draw(labels, 1).positive
        candidates = labels[:, None] != labels
        scores, rank = self._negative_scores(unit(z.detach()), labels, positive, candidates)
        n_candidates = len(labels) - len(labels) // len(classes)
        picks = gumbel_top_k(
            scores.detach(), how_many(self.loss, self.negatives, len(classes), n_candidates)
        )
        of_rows = loss_of_each(self.loss, z, positive, picks)
        rewards = self.rewards(features.detach(), positive)
        baseline = (rewards * candidates).sum(1, keepdim=True) / n_candidates
        gained = standardised((rewards - baseline).flatten(), candidates.flatten())
        policy = -(scores.softmax(1) * gained.view_as(rewards)).sum(1).mean()
        reward, entropy = rewards.gather(1, picks).mean(1), relative_entropy(scores).mean()
        of_classes, class_entropy = self._of_classes(classes, labels, picks, standardised(reward))
        policy = policy + of_classes - self.entropy * (entropy + class_entropy)
        self._remember(classes, unit(z.detach()), of_rows.detach(), len(batch.views))
        metric = of_rows.mean()
        watched = {"reward": reward.mean(), "entropy": entropy, "class_entropy": class_entropy}
        watched["rank"] = rank.gather(1, picks).mean()
        return {"loss": metric + policy, "metric": metric, **watched, **terms}

    def judge(self) -> dict[str, Tensor]:
        """Take G of a draw of held-out images; the weights and BatchNorm statistics stay."""
        assert self.held_out is not None
        images, labels = self.held_out.draw(self.judge_images)
        features, labels = self._features(images), labels.to(self.device)
        weights = [p.detach().float().requires_grad_() for p in self._head()]
        with torch.enable_grad(), full_precision(features):
            z = F.linear(features, *weights)
            loss = neighbourhood_loss(z, labels)
            found = torch.autograd.grad(loss, weights)
        for buffer, gradient in zip(self._direction(), found, strict=True):
            buffer.copy_(gradient)
        return {"held_out": loss.detach(), "held_out_recall": recall_at_1(z.detach(), labels)}

    def rewards(self, features: Tensor, positive: Tensor) -> Tensor:
        """<gradient for the embedding layer of the loss of a with n alone, G>, (N, N).

        Of the N-pair loss without its penalty, which is one for all n. Those of rows of the
        anchor's own class mean nothing.
        """
        f = features.float()
        with full_precision(f):
            z = F.linear(f, *(p.detach().float() for p in self._head()))
            along = F.linear(f, *(buffer.float() for buffer in self._direction()))
            if self.backbone.normalize:
                z, along = unit_along(z, along)
            return slopes_with_each(self.loss, z, along, positive)

    def _negative_scores(
        self, z: Tensor, labels: Tensor, positive: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores of all rows as negatives of all, (N, N), and their ranks."""
        assert self.relations is not None
        far = distances(z)
        rank = ranks(far, candidates)
        near = far.gather(1, positive[:, None])
        centres = distances(self.relations.centres[labels].float())
        losses = self.relations.standard_losses[labels].expand_as(far)
        features = torch.stack([far, centres, losses, rank], 2)
        features = torch.cat([features, bumps(far - near, GAPS)], 2)
        return self.negative_policy(features).masked_fill(~candidates, NEVER), rank

    def _class_scores(self, seeds: Tensor) -> Tensor:
        assert self.relations is not None
        scores = self.class_policy(self.relations.beside(seeds))
        scores = scores.masked_fill(~self.relations.present, NEVER)
        return scores.index_fill(0, seeds, NEVER)

    def _of_classes(
        self, classes: Tensor, labels: Tensor, picks: Tensor, advantage: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of the classes' policy, and its relative entropy."""
        few = seeds_of(len(classes))
        scores, chosen = self._class_scores(classes[:few]), classes[few:]
        as_negative = (labels[picks] == chosen[:, None, None]).any(2)
        concerned = ((labels == chosen[:, None]) | as_negative).to(advantage.dtype)  # (P - few, N)
        gained = (concerned * advantage).sum(1) / concerned.sum(1)
        loss = -(gained * log_probabilities(scores, chosen)).mean()
        return loss, relative_entropy(scores)

    def _remember(self, classes: Tensor, z: Tensor, of_rows: Tensor, views: int) -> None:
        """Update the relations by rows that come view by view, class by class."""
        assert self.relations is not None

        def by_class(x: Tensor) -> Tensor:
            return x.unflatten(0, (views, len(classes), -1)).transpose(0, 1).flatten(1, 2)

        self.relations.update(classes, by_class(z), by_class(of_rows))

    def _features(self, images: Tensor) -> Tensor:
        return features_of(self.backbone.backbone, self.eval_view, images)

    def _head(self) -> tuple[Tensor, Tensor]:
        return self.backbone.embedding.weight, self.backbone.embedding.bias

    def _direction(self) -> tuple[Tensor, Tensor]:
        return self.direction_weight, self.direction_bias
