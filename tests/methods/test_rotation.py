import pytest
import torch
import torch.nn.functional as F
from kornia.geometry.transform import rotate

from sslkit.backbones import ResNet9
from sslkit.methods import Batch, Rotation
from sslkit.views import RotationView, Targeted


class Resampled(RotationView):
    """Turns as a rotation by interpolation makes them, about a centre half a pixel off."""

    def make(self, images):
        (turned,), targets = super().make(images)
        upright = turned[: len(images)]
        centre = torch.full((len(images), 2), self.size / 2)
        angles = torch.arange(4.0) * 90
        parts = [rotate(upright, a.expand(len(images)), center=centre) for a in angles]
        return Targeted((torch.cat(parts),), targets)


def test_objective_is_cross_entropy_of_the_turns():
    model = Rotation(ResNet9(4), RotationView(16)).eval()
    turned, targets = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    found = model.objective(Batch((turned,), targets, None, None))
    logits = model.classifier(model.backbone(turned)).double()
    rows = [-torch.log_softmax(row, 0)[t] for row, t in zip(logits, targets, strict=True)]
    assert found["loss"].item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-5)
    right = sum(int(row.argmax()) == t for row, t in zip(logits, targets, strict=True))
    assert found["accuracy"].item() == pytest.approx(int(right) / 8)


@pytest.mark.parametrize(("view", "leaks"), [(RotationView, False), (Resampled, True)])
def test_noise_says_nothing_of_the_turn_unless_it_is_resampled(view, leaks):
    torch.manual_seed(0)
    made = view(16, normalize="half").manual_seed(0)
    model = Rotation(ResNet9(4), made)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)

    def noise(n):
        return made(torch.randint(0, 256, (n, 3, 20, 20), dtype=torch.uint8))

    for _ in range(80):
        views, targets = noise(32)
        optimizer.zero_grad()
        model.objective(Batch(views, targets, None, None))["loss"].backward()
        optimizer.step()
    model.eval()
    views, targets = noise(500)
    with torch.no_grad():
        accuracy = model.objective(Batch(views, targets, None, None))["accuracy"].item()
    # The four turns of an image are answered together: 500 independent draws of 4, at worst.
    sigma = (0.25 * 0.75 / 500) ** 0.5
    assert accuracy > 0.25 + 3 * sigma if leaks else abs(accuracy - 0.25) < 3 * sigma


def test_chance_of_an_untrained_classifier():
    model = Rotation(ResNet9(4), RotationView(16))
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    batch = Batch((torch.randn(4, 3, 16, 16),), torch.arange(4), None, None)
    expected = F.cross_entropy(torch.zeros(1, 4), torch.tensor([0])).item()
    assert model.objective(batch)["loss"].item() == pytest.approx(expected)
