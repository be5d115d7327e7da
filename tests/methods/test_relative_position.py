import pytest
import torch
import torch.nn.functional as F

from sslkit.backbones import ResNet9
from sslkit.data import load
from sslkit.methods import Batch
from sslkit.methods.relative_position import RelativePosition
from sslkit.views.relative_position import RelativePositionView


def method(**options):
    torch.manual_seed(0)
    view = RelativePositionView(32, **{"patch": 8, "gap": 2, "jitter": 1, "pairs": 4, **options})
    return RelativePosition(ResNet9(4), view, hidden_dim=16).train()


def test_objective_is_cross_entropy_over_both_patches_in_their_order():
    model = method().eval()
    first, second = torch.randn(2, 6, 3, 8, 8)
    targets = torch.tensor([0, 7, 3, 3, 1, 6])
    found = model.objective(Batch((first, second), targets, None, None))
    head = model.classifier.double()
    (shared, _), (fused, _, out) = head.shared, head.fused
    losses, right = [], 0
    for i in range(6):
        parts = [model.backbone(x[i : i + 1])[0].double() for x in (first, second)]
        hidden = torch.cat([(shared.weight @ part + shared.bias).clamp(min=0) for part in parts])
        logits = out.weight @ (fused.weight @ hidden + fused.bias).clamp(min=0) + out.bias
        losses.append(logits.exp().sum().log() - logits[targets[i]])
        right += int(logits.argmax() == targets[i])
    assert found["loss"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert found["accuracy"].item() == pytest.approx(right / 6)


def test_one_call_of_the_backbone_sees_all_patches():
    model, calls = method(), []
    model.backbone.register_forward_hook(lambda _, args, __: calls.append(args[0].shape))
    views, targets = model.view(torch.rand(5, 3, 32, 32))
    model.objective(Batch(views, targets, None, None))["loss"].backward()
    assert calls == [(40, 3, 8, 8)]
    assert all(p.grad is not None for p in model.parameters())


def test_it_learns_the_embedded_set():
    model = method()
    images = load("shapes", "train", limit=512).images
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    accuracies = []
    for step in range(40):
        views, targets = model.view(images[step % 8 :: 8])
        found = model.objective(Batch(views, targets, None, None))
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        accuracies.append(found["accuracy"].item())
    # Chance is 1/8; over ten steps of 64 images, at worst one draw an image, sigma is 0.013.
    assert sum(accuracies[-10:]) / 10 > 0.18


def test_prepare_says_what_does_not_fit():
    data = load("shapes", "train", limit=4)
    method().prepare(data, 4)
    with pytest.raises(ValueError, match=r"32 x 32 pixels are too small: .*at least 36 x 36"):
        method(patch=10).prepare(data, 4)


def test_chance_of_an_untrained_classifier():
    model = method()
    for p in model.classifier.fused[-1].parameters():
        torch.nn.init.zeros_(p)
    views, targets = model.view(torch.rand(5, 3, 32, 32))
    expected = F.cross_entropy(torch.zeros(1, 8), torch.tensor([0])).item()
    loss = model.objective(Batch(views, targets, None, None))["loss"].item()
    assert loss == pytest.approx(expected)
