"""What is remembered of each class between the batches that show it."""

import torch
from torch import Tensor, nn

from sslkit.methods.sampling import standardised


class Relations(nn.Module):
    """Running centre and loss of each class, when it was last drawn, and whether it ever was.

    All are in checkpoints. A batch moves those of its own classes and no others: nothing goes
    over the data set.

    Args:
        present: bool (C,), the labels that the data has.
        dim: width d of the embeddings.
        momentum: of centre and loss, in [0, 1); the first time a class is met they are the batch's.

    Attributes:
        centres: (C, d), of length 1; 0 for a class that was not met.
        losses: (C,), 0 for a class that was not met.
        last: the step at which each was last drawn, (C,), or -1.
        met: (C,), boolean.
        step: how many batches there were.
    """

    present: Tensor
    centres: Tensor
    losses: Tensor
    last: Tensor
    met: Tensor

    def __init__(self, present: Tensor, dim: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        classes = len(present)
        self.register_buffer("present", present.clone())
        self.register_buffer("centres", torch.zeros(classes, dim))
        self.register_buffer("losses", torch.zeros(classes))
        self.register_buffer("last", torch.full((classes,), -1))
        self.register_buffer("met", torch.zeros(classes, dtype=torch.bool))
        self.step = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        self.step = int(state)

    @torch.no_grad()
    def update(self, classes: Tensor, z: Tensor, losses: Tensor) -> None:
        """Take in a batch.

        Args:
            classes: (P,), different labels. z: embeddings of length 1 of n rows of each, (P, n, d).
            losses: those of the rows, (P, n).
        """
        z, losses = z.to(self.centres.dtype), losses.to(self.losses.dtype)
        kept = torch.where(self.met[classes], self.momentum, 0.0).to(z.dtype)
        centre = z.mean(1).lerp(self.centres[classes], kept[:, None])
        self.centres[classes] = nn.functional.normalize(centre, dim=1)
        self.losses[classes] = losses.mean(1).lerp(self.losses[classes], kept)
        self.last[classes], self.met[classes] = self.step, True
        self.step += 1

    @property
    def standard_losses(self) -> Tensor:
        """The running losses over those of the classes that were met, (C,); others' are 0."""
        return standardised(self.losses, self.met).masked_fill(~self.met, 0)

    def beside(self, seeds: Tensor) -> Tensor:
        """What tells classes apart beside some that are drawn already, (S,); (C, 5).

        Distance of the centre from the nearest seed's, mean distance from the seeds', running loss
        and log(1 + steps since it was drawn), both standardised, and whether it was met.
        """
        far = torch.cdist(self.centres.float(), self.centres[seeds].float())
        since = (self.step - self.last).float().log1p()
        columns = far.amin(1), far.mean(1), self.standard_losses, standardised(since, self.present)
        return torch.stack([*columns, self.met.float()], 1)
