import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from sslkit.losses import soft_cross_entropy
from sslkit.views.noise import GaussianNoise, inject_noise, smooth_targets

KIND = pytest.mark.parametrize("kind", ["additive", "multiplicative"])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network():
    middle = nn.Sequential(nn.ReLU(), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), middle, nn.Linear(16, 2))


@KIND
def test_the_noise_is_gaussian_and_unbiased(kind):
    x = torch.full((100, 200), 3.0)
    error = (GaussianNoise(0.5, kind)(x) - x) / (3 if kind == "multiplicative" else 1)
    assert abs(error.mean()) < 4 * 0.5 / 20000**0.5
    assert stats.kstest(error.flatten().numpy(), stats.norm(0, 0.5).cdf).pvalue > 0.01


def test_multiplicative_noise_is_gaussian_dropout():
    rate, x = 0.2, torch.rand(200, 500) + 1
    noisy = GaussianNoise((rate / (1 - rate)) ** 0.5, "multiplicative")(x)
    dropped = F.dropout(x, rate)
    assert (noisy - x).var().item() == pytest.approx((dropped - x).var().item(), rel=0.02)


def test_zero_stays_zero_under_multiplicative_noise_alone():
    x = torch.zeros(50)
    assert torch.equal(GaussianNoise(1.0, "multiplicative")(x), x)
    assert GaussianNoise(1.0)(x).ne(0).all()


@KIND
def test_eval_and_std_0_give_the_same_object(kind):
    x = torch.randn(3)
    assert GaussianNoise(0.5, kind).eval()(x) is x
    assert GaussianNoise(0, kind)(x) is x
    assert GaussianNoise(0.5, kind)(x) is not x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
@KIND
def test_noise_is_drawn_in_float32(kind, autocast, dtype):
    x = torch.randn(8, 3, 2, dtype=dtype)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        noisy = GaussianNoise(0.5, kind)(x)
    torch.manual_seed(1)
    noise = 0.5 * torch.randn(8, 3, 2, dtype=torch.float32)
    expected = x + noise.to(dtype) if kind == "additive" else x * (1 + noise).to(dtype)
    assert noisy.dtype == dtype
    assert torch.equal(noisy, expected)


def test_the_gradient_is_that_of_the_noisy_function():
    x = torch.randn(5, requires_grad=True)
    GaussianNoise(0.5)(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(5))
    x.grad = None
    noisy = GaussianNoise(0.5, "multiplicative")(x)
    noisy.sum().backward()
    torch.testing.assert_close(x.grad, (noisy / x).detach())


def test_one_seed_one_noise():
    x, noise = torch.zeros(4), GaussianNoise(1.0)
    torch.manual_seed(1)
    first, second = noise(x), noise(x)
    torch.manual_seed(1)
    assert torch.equal(noise(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1,), "std must be a finite number, at least 0, not -0.1"),
        ((float("nan"),), "at least 0, not nan"),
        ((float("inf"),), "at least 0, not inf"),
        (
            (0.1, "uniform"),
            "no kind of noise named 'uniform'; choose from additive, multiplicative",
        ),
    ],
)
def test_bad_noise(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianNoise(*arguments)
    with pytest.raises(ValueError, match=message):
        inject_noise(nn.ReLU(), [""], arguments[0], kind=(*arguments, "additive")[1])


@pytest.mark.parametrize("training", [False, True])
def test_bad_input_of_noise(training):
    noise = GaussianNoise(0.1).train(training)
    with pytest.raises(ValueError, match=r"must be floating-point, not torch.int64"):
        noise(torch.arange(3))
    with pytest.raises(ValueError, match=r"must be a tensor, not tuple"):
        noise((torch.ones(3),))


@KIND
def test_injected_noise_is_that_of_the_layers_named(kind):
    model, x = network(), torch.randn(2, 3, 4, 4)
    with inject_noise(model, ["0", "2.0"], std=0.3, kind=kind):
        torch.manual_seed(1)
        made = model(x)
    noise = GaussianNoise(0.3, kind)
    torch.manual_seed(1)
    hidden = noise(model[2][0](model[1](noise(model[0](x)))))
    assert torch.equal(made, model[3](model[2][1](hidden)))


def test_the_model_itself_is_a_layer():
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    clean = model(x)
    with inject_noise(model, [""], std=0.3):
        torch.manual_seed(1)
        noisy = model(x)
    torch.manual_seed(1)
    assert torch.equal(noisy, GaussianNoise(0.3)(clean))


def test_injected_noise_follows_train_and_eval():
    model, x = network(), torch.randn(2, 3, 4, 4)
    clean = model.eval()(x)
    handle = inject_noise(model, ["0", "3"], std=0.5)
    assert torch.equal(model(x), clean)
    model.train()
    assert not torch.equal(model(x), model(x))
    model.requires_grad_(False)
    model[0].eval()
    model[1].eval()
    hidden = []
    model[1].register_forward_hook(lambda module, args, output: hidden.append(output))
    model(x), model(x)
    assert torch.equal(*hidden)  # a layer frozen in eval mode has no noise
    handle.remove()


def test_injected_noise_leaves_the_model_as_it_was():
    model, x = network(), torch.randn(2, 3, 4, 4)
    before, names = copy.deepcopy(model.state_dict()), [name for name, _ in model.named_modules()]
    hooks = len(model[0]._forward_hooks)
    handle = inject_noise(model, ["0", "1", "2.1"], std=0.5)
    model.eval()(x)
    assert list(model.state_dict()) == list(before)
    assert [name for name, _ in model.named_modules()] == names
    handle.remove()
    handle.remove()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(len(module._forward_hooks) == hooks for module in model.modules())
    model.train()
    torch.manual_seed(0)
    first = model(x)
    assert torch.equal(model(x), first)


def test_it_is_removed_when_the_block_fails():
    model = nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="stop"), inject_noise(model, [""], std=0.5):
        raise RuntimeError("stop")
    assert not model._forward_hooks


def test_a_model_with_noise_can_be_copied_and_pickled():
    model, x = network(), torch.randn(2, 3, 4, 4)
    inject_noise(model, ["0"], std=0.5)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not torch.equal(other(x), other(x))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["0", "2.3"], r"no layer named '2.3'; the nearest are '2\.[01]', '2\.[01]'"),
        ([3], "no layer named 3; the nearest are '3'"),
        ("2.0", "layers must be a list of names, not '2.0'"),
    ],
)
def test_bad_layers(layers, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        inject_noise(model, layers, std=0.1)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_targets_are_those_of_label_smoothing(smoothing):
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 3, 0])
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    targets = smooth_targets(labels, 4, smoothing)
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)
    torch.testing.assert_close(
        soft_cross_entropy(logits, labels, label_smoothing=smoothing), expected
    )
    torch.testing.assert_close(targets.sum(1), torch.ones(6))


def test_smoothing_of_soft_targets_is_the_definition():
    soft = torch.randn(5, 3).softmax(1)
    made = smooth_targets(soft, 3, 0.1).tolist()
    for row, target in zip(made, soft.tolist(), strict=True):
        assert row == pytest.approx([0.9 * t + 0.1 / 3 for t in target])
    assert torch.equal(smooth_targets(soft, 3, 0), soft)
    assert smooth_targets(soft.bfloat16(), 3, 0.1).dtype == torch.float32
    assert smooth_targets(soft.double(), 3, 0.1).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_labels_of_any_integer_dtype_and_none(dtype):
    made = smooth_targets(torch.tensor([2, 0], dtype=dtype), 300, 0)
    assert torch.equal(made, torch.eye(300)[[2, 0]])
    assert smooth_targets(torch.zeros(0, dtype=dtype), 3, 0.1).shape == (0, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "smoothing", "message"),
    [
        (torch.tensor([0, 3]), 3, 0.1, r"labels must be in \[0, 3\), not 3"),
        (torch.tensor([-1, 0]), 3, 0.1, r"labels must be in \[0, 3\), not -1"),
        (torch.zeros(2, 3).long(), 3, 0.1, r"not torch.int64 of shape \(2, 3\)"),
        (torch.zeros(2, 4), 3, 0.1, r"\(N, 3\), not torch.float32 of shape \(2, 4\)"),
        (torch.zeros(2).bool(), 3, 0.1, "not torch.bool"),
        ([0, 1], 3, 0.1, "labels must be a tensor, not list"),
        (torch.tensor([0]), 0, 0.1, "classes must be a whole number, at least 1, not 0"),
        (torch.tensor([0]), 2.5, 0.1, "at least 1, not 2.5"),
        (torch.tensor([0]), 3, 1.0, r"smoothing must be in \[0, 1\), not 1.0"),
        (torch.tensor([0]), 3, -0.1, "not -0.1"),
        (torch.tensor([0]), 3, float("nan"), "not nan"),
    ],
)
def test_bad_smoothing(labels, classes, smoothing, message):
    with pytest.raises(ValueError, match=message):
        smooth_targets(labels, classes, smoothing)
