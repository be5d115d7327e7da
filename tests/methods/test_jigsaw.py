import pytest
import torch

from sslkit.backbones import ResNet9
from sslkit.data import load
from sslkit.methods import Batch
from sslkit.methods.jigsaw import Jigsaw
from sslkit.views.jigsaw import JigsawView


def method(**options):
    torch.manual_seed(0)
    options = {"tile": 8, "cell": 10, "permutations": 20, "channel_jitter": 1, **options}
    view = JigsawView(32, normalize="half", **options)
    return Jigsaw(ResNet9(4), view, hidden_dim=16, fused_dim=24)


def test_objective_is_cross_entropy_over_nine_tiles_in_their_order():
    model = method().eval()
    tiles, targets = torch.randn(4, 9, 3, 8, 8), torch.tensor([0, 19, 3, 7])
    found = model.objective(Batch((tiles,), targets, None, None))
    head = model.classifier.double()
    (shared, _), (fused, _, out) = head.shared, head.fused
    assert (fused.out_features, out.out_features) == (24, 20)
    losses, right = [], 0
    for i in range(4):
        parts = [model.backbone(tiles[i, j][None])[0].double() for j in range(9)]
        hidden = torch.cat([(shared.weight @ part + shared.bias).clamp(min=0) for part in parts])
        logits = out.weight @ (fused.weight @ hidden + fused.bias).clamp(min=0) + out.bias
        losses.append(logits.exp().sum().log() - logits[targets[i]])
        right += int(logits.argmax() == targets[i])
    assert found["loss"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert found["accuracy"].item() == pytest.approx(right / 4)


def test_one_call_of_the_backbone_sees_all_tiles():
    model, calls = method(), []
    model.backbone.register_forward_hook(lambda _, args, __: calls.append(args[0].shape))
    views, targets = model.view(torch.rand(5, 3, 32, 32))
    model.objective(Batch(views, targets, None, None))["loss"].backward()
    assert calls == [(45, 3, 8, 8)]
    assert all(p.grad is not None for p in model.parameters())


def test_it_learns_the_embedded_set():
    model = method(permutations=4)
    images = load("shapes", "train", limit=512).images
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    accuracies = []
    for step in range(20):
        views, targets = model.view(images[step % 8 :: 8])
        found = model.objective(Batch(views, targets, None, None))
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        accuracies.append(found["accuracy"].item())
    # Chance is 1/4; over ten steps of 64 images sigma is 0.017.
    assert sum(accuracies[-10:]) / 10 > 0.45


def test_prepare_says_what_does_not_fit():
    data = load("shapes", "train", limit=4)
    method().prepare(data, 4)
    with pytest.raises(ValueError, match=r"32 x 32 pixels are too small: .*at least 33 x 33"):
        method(cell=11).prepare(data, 4)


def test_bad_width():
    with pytest.raises(ValueError, match="fused_dim=0"):
        Jigsaw(ResNet9(4), method().view, fused_dim=0)
