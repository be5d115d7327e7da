"""The presets: their papers' parameters, every kind of image, one stream of random numbers."""

import pytest
import torch
import torch.distributed as dist

import sslkit.views.augment as parts
from sslkit.views import (
    Augment,
    AugmentedViews,
    BarlowTwinsViews,
    BYOLViews,
    DINOViews,
    EvaluationView,
    InstDiscView,
    MoCoV1Views,
    MoCoV2Views,
    RandAugmentView,
    SimCLRViews,
    SupervisedView,
    SwAVViews,
)

MULTI = {"local_size": 12, "local_views": 2}
PRESETS = {
    "SimCLR": lambda **k: SimCLRViews(20, **k),
    "SimCLR, CIFAR": lambda **k: SimCLRViews(20, jitter=0.5, blur=False, **k),
    "InstDisc": lambda **k: InstDiscView(20, **k),
    "MoCo v1": lambda **k: MoCoV1Views(20, **k),
    "MoCo v2": lambda **k: MoCoV2Views(20, **k),
    "BYOL": lambda **k: BYOLViews(20, **k),
    "Barlow Twins": lambda **k: BarlowTwinsViews(20, **k),
    "SwAV": lambda **k: SwAVViews(20, **MULTI, **k),
    "DINO": lambda **k: DINOViews(20, **MULTI, **k),
    "supervised": lambda **k: SupervisedView(20, **k),
    "RandAugment": lambda **k: RandAugmentView(20, **k),
    "evaluation": lambda **k: EvaluationView(20, **k),
}
each_preset = pytest.mark.parametrize("make", PRESETS.values(), ids=PRESETS)


def images(n=5, channels=3, height=24, width=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator).byte()


def listed(made):
    return (made,) if isinstance(made, torch.Tensor) else made


KINDS = {
    "uint8": lambda x: x,
    "float": lambda x: x / 255,
    "bf16": lambda x: (x / 255).bfloat16(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "one channel": lambda x: x[:, :1],
    "upright": lambda x: x.transpose(2, 3),
    "one pixel high": lambda x: x[:, :, :1],
    "one image": lambda x: x[:1],
    "none": lambda x: x[:0],
}


@each_preset
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image(make, kind):
    batch = KINDS[kind](images())
    for view in listed(make(normalize=None).manual_seed(0)(batch)):
        assert view.shape[:2] == (len(batch), 3)
        assert view.dtype == torch.float32
        if len(batch):
            assert 0 <= view.min() <= view.max() <= 1
    whole = listed(make().manual_seed(0)(batch))
    plain = listed(make(normalize=None).manual_seed(0)(batch))
    for a, b in zip(whole, plain, strict=True):
        torch.testing.assert_close(make().denormalize(a), b, atol=1e-5, rtol=0)


@each_preset
def test_bytes_and_floats_give_the_same_views(make):
    a, b = (listed(make().manual_seed(3)(x)) for x in (images(), images() / 255))
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=0)


@each_preset
def test_a_lowered_model_still_has_views_in_float32(make):
    view, moved = make().manual_seed(1), make().manual_seed(1)
    torch.nn.Sequential(moved).to(torch.bfloat16)
    expected = view(images())
    torch.set_default_dtype(torch.bfloat16)  # as Lightning's bf16-true does
    try:
        made = moved(images())
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(listed(expected), listed(made), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_compiled_views_are_the_same():
    eager = BYOLViews(20).manual_seed(0)
    compiled = torch.compile(BYOLViews(20).manual_seed(0))
    for a, b in zip(compiled(images()), eager(images()), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("solarize", [0.0, 0.5])
def test_normalisation_is_last(solarize):
    options = {"jitter": (0.4, 0.4, 0.4, 0.1), "blur": 0.5, "solarize": solarize}
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    torch.manual_seed(0)
    plain = Augment(20, **options)(images(32))
    torch.manual_seed(0)
    made = Augment(20, **options, normalize=(mean, std))(images(32))
    expected = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def recipe(augment):
    """What a view was built with, read off its steps."""
    found = dict.fromkeys(("jitter", "grayscale", "blur", "sigma", "solarize"), 0)
    for step in augment.steps:
        name = type(step).__name__
        if name == "RandomResizedCropFlip":
            found |= {"scale": step.scale, "flip": step.flip}
            found["resample"] = step.flags["resample"].name.lower()
        elif name == "ColorJitterGrayscale":
            strengths = [step.brightness, step.contrast, step.saturation, step.hue]
            found["jitter"] = tuple(round((b - a) / 2, 3) for a, b in strengths)
            # A factor of less than 0 is cut off: strength s is then 1 - s ... 1 + s no more.
            found |= {"p": step.p, "grayscale": step.grayscale}
        elif name == "GaussianBlur":
            found |= {"blur": step.p, "sigma": step.sigma, "kernel": step.flags["kernel_size"]}
        else:
            found["solarize"] = step.p
    return found


MOCO = {"scale": (0.2, 1), "jitter": (0.4, 0.4, 0.4, 0.1), "blur": 0.5, "resample": "bilinear"}
INSTDISC = {**MOCO, "jitter": (0.4,) * 4, "p": 1.0, "blur": 0}
BYOL = {"scale": (0.08, 1), "jitter": (0.4, 0.4, 0.2, 0.1), "resample": "bicubic"}
SIMCLR = {"scale": (0.08, 1), "jitter": (0.8, 0.8, 0.8, 0.2), "blur": 0.5, "resample": "bilinear"}
DINO = {**BYOL, "scale": (0.4, 1)}
PAPERS = [
    (SimCLRViews(224), [SIMCLR] * 2, 23),
    (
        SimCLRViews(32, jitter=0.5, blur=False),
        [{**SIMCLR, "jitter": (0.4, 0.4, 0.4, 0.1), "blur": 0}] * 2,
        None,
    ),
    (InstDiscView(224), [INSTDISC], None),
    (MoCoV1Views(224), [INSTDISC] * 2, None),
    (MoCoV2Views(224), [MOCO] * 2, 23),
    *(
        (view, [{**BYOL, "blur": 1, "solarize": 0}, {**BYOL, "blur": 0.1, "solarize": 0.2}], 23)
        for view in (BYOLViews(224), BarlowTwinsViews(224))
    ),
    (
        SwAVViews(),
        [{**SIMCLR, "scale": (0.14, 1)}] * 2 + [{**SIMCLR, "scale": (0.05, 0.14), "size": 96}] * 6,
        23,
    ),
    (
        DINOViews(),
        [
            {**DINO, "blur": 1, "solarize": 0},
            {**DINO, "blur": 0.1, "solarize": 0.2},
            *[{**DINO, "scale": (0.05, 0.4), "blur": 0.5, "solarize": 0, "size": 96}] * 8,
        ],
        23,
    ),
]


@pytest.mark.parametrize(("view", "paper", "kernel"), PAPERS, ids=lambda x: type(x).__name__)
def test_parameters_are_the_papers(view, paper, kernel):
    assert len(view.augments) == len(paper)
    for augment, expected in zip(view.augments, paper, strict=True):
        found = recipe(augment)
        size = expected.get("size", view.size)
        assert augment.size == size
        shared = {"flip": 0.5, "grayscale": 0.2, "p": 0.8}
        for name, value in ({**shared, **expected}).items():
            if name != "size":
                assert found[name] == (value if name == "resample" else pytest.approx(value))
        if found["blur"]:
            assert found["sigma"] == (0.1, 2.0)
            assert found["kernel"] == (kernel if size == 224 else 9)


@each_preset
def test_a_batch_in_parts_is_the_batch(make, monkeypatch):
    batch = images(23)
    whole = listed(make().manual_seed(0)(batch))
    monkeypatch.setattr(parts, "WORKING_SET", 5 * 3 * 20 * 20)
    for a, b in zip(listed(make().manual_seed(0)(batch)), whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_captions_say_what_was_drawn():
    view = BYOLViews(20).manual_seed(0)
    assert view.captions() == ([], [])
    view(images(400))
    first, second = view.captions()
    assert len(first) == len(second) == 400
    share = {
        word: [sum(word in caption for caption in view) / 400 for view in (first, second)]
        for word in ("blur", "solarized", "grey", "mirrored", "brightness")
    }
    expected = {
        "blur": (1, 0.1),
        "solarized": (0, 0.2),
        "grey": (0.2, 0.2),
        "mirrored": (0.5, 0.5),
        "brightness": (0.8, 0.8),
    }
    for word, shares in expected.items():
        assert share[word] == pytest.approx(shares, abs=0.1)
    box = view.augments[0].drawn[0]["box"][7].int().tolist()
    assert first[7].startswith(f"{box[2]} x {box[3]} at {box[0]}, {box[1]}")


def test_whatever_else_draws_numbers_the_views_are_the_same():
    torch.manual_seed(5)
    view = RandAugmentView(20)
    expected = [view(images()), view(images())]
    torch.manual_seed(5)
    view = RandAugmentView(20)
    torch.rand(7)
    first = view(images())
    before = torch.get_rng_state()
    torch.randn(3)
    torch.set_rng_state(before)
    second = view(images())
    assert torch.equal(torch.get_rng_state(), before)  # and the views disturb nobody
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[1])
    assert not torch.equal(first, second)


def test_a_saved_stream_goes_on_where_it_was(tmp_path):
    view = SimCLRViews(20).manual_seed(2)
    view(images())
    torch.save(view.state_dict(), tmp_path / "view.pt")
    expected = view(images())
    other = SimCLRViews(20)
    other.load_state_dict(torch.load(tmp_path / "view.pt", weights_only=True))
    for a, b in zip(other(images()), expected, strict=True):
        assert torch.equal(a, b)


def test_a_state_from_before_views_had_a_stream_loads():
    view = SimCLRViews(20).manual_seed(2)
    model = torch.nn.Sequential(view, EvaluationView(20))
    state = {k: v for k, v in model.state_dict().items() if "extra_state" not in k}
    assert not state
    model.load_state_dict(state, strict=True)
    assert view.get_extra_state().tolist() == [2, 0]


def test_what_draws_nothing_has_no_stream():
    view = EvaluationView(20)
    before = view.get_extra_state().tolist()
    view(images())
    assert view.get_extra_state().tolist() == before


def test_processes_draw_different_views_from_one_seed(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    made = []
    for rank in (0, 1, 0):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        made.append(SimCLRViews(20).manual_seed(0)(images())[0])
    assert not torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3, 8, 8), r"images must be \(N, 1 or 3, H, W\), not \(3, 8, 8\)"),
        (torch.zeros(2, 4, 8, 8), r"not \(2, 4, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8).long(), "uint8 or float in .* not torch.int64"),
        (torch.full((2, 3, 8, 8), 200.0), r"float images must be in \[0, 1\], not up to 200"),
        ([1, 2], "images must be a tensor"),
        (None, "images must be a tensor"),
    ],
)
def test_images_that_are_none(batch, message):
    with pytest.raises(ValueError, match=message):
        SimCLRViews(8)(batch)


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, 0), (0.5, 32), (1.0, 64)])
def test_flips_of_simclr_as_often_as_asked(flip, mirrored):
    ramp = torch.linspace(0.1, 0.9, 24).expand(64, 3, 24, 24)
    view = SimCLRViews(16, flip=flip, jitter=0, grayscale=0, blur=False, normalize=None)
    for made in view.manual_seed(0)(ramp):
        falling = (made[..., -1] < made[..., 0]).all((1, 2)).sum()
        assert abs(int(falling) - mirrored) <= (15 if flip == 0.5 else 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SwAVViews(8, local_size=0), "local_size must be 1 pixel or more.*0 and 6"),
        (lambda: DINOViews(8, local_views=-1), "local_views 0 or more.*-1"),
        (lambda: RandAugmentView(8, magnitude=30), "magnitude must be 1 to 29, not 30"),
        (lambda: RandAugmentView(8, operations=0), "operations must be 1 to 15, not 0"),
        (lambda: RandAugmentView(8, group=0), "group must be 1 image or more, not 0"),
        (lambda: SupervisedView(8, scale=(1, 2)), r"scale.*\(1, 2\)"),
        (lambda: MoCoV2Views(0), "at least 1 pixel, not 0"),
        (lambda: AugmentedViews(), "at least one recipe"),
        (lambda: SimCLRViews(8, scale=0.5), "scale must be 0 < low.*not 0.5"),
        (lambda: SimCLRViews(8, flip=2), "flip must be a probability.*2"),
        (lambda: SimCLRViews(8, jitter="x"), "jitter must be between.*'x'"),
        (lambda: SimCLRViews(8, grayscale=None), "grayscale must be a probability.*None"),
        (lambda: SimCLRViews(8.5), "at least 1 pixel, not 8.5"),
        (lambda: SimCLRViews(8, normalize=(0.5, 0.5)), r"3 means and 3 dev.*\(0.5, 0.5\)"),
        (lambda: SimCLRViews(8, normalize=((0,) * 3, (0,) * 3)), "deviations above 0"),
        (lambda: Augment(8, jitter=(0.4, 0.4)), r"jitter must be the strengths.*\(0.4, 0.4\)"),
        (lambda: Augment(8, jitter_p=5), "jitter_p must be a probability.*5"),
        (lambda: Augment(8, blur=-0.5), "blur must be a probability.*-0.5"),
        (lambda: Augment(8, sigma=(2, 1)), r"sigma.*\(2, 1\)"),
        (lambda: Augment(8)(torch.zeros(2, 3, 9, 9).long()), "uint8 or float.*int64"),
        (lambda: Augment(8)(torch.zeros(2, 1, 9, 9)), r"\(N, 3, H, W\), not \(2, 1, 9, 9\)"),
        (lambda: EvaluationView(8)(torch.zeros(2, 3, 0, 5)), r"not \(2, 3, 0, 5\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_randaugment_draws_operations_for_each_group():
    batch = images(1).expand(64, -1, -1, -1)
    view = RandAugmentView(20, scale=(1.0, 1.0), group=4).manual_seed(0)
    view.augment.steps[0].flip, view.augment.steps[0].ratio = 0.0, (1.0, 1.0)
    made = view(batch)
    looks = made.flatten(1).mean(1).round(decimals=3)
    assert len(looks.unique()) > 8
    (captions,) = view.captions()
    drawn = ["\n".join(caption.split("\n")[-2:]) for caption in captions]
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) > 8
    other = RandAugmentView(20, operations=3, magnitude=11).policy
    assert (view.policy.n, view.policy.m, other.n, other.m) == (2, 9, 3, 11)


def test_a_broken_image_leaves_the_others_of_randaugment_alone():
    batch = images(32) / 255
    broken = batch.clone()
    broken[3, :, :, 3] = torch.nan
    whole = {"scale": (1.0, 1.0), "group": 2}
    expected = RandAugmentView(20, **whole).manual_seed(0)(batch)
    made = RandAugmentView(20, **whole).manual_seed(0)(broken)
    others = torch.arange(32) != 3
    torch.testing.assert_close(made[others], expected[others])
    assert made[3].isnan().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@each_preset
def test_an_accelerator_makes_the_same_views(make):
    cpu, gpu = make().manual_seed(0)(images()), make().manual_seed(0)(images().cuda())
    for a, b in zip(listed(cpu), listed(gpu), strict=True):
        torch.testing.assert_close(a, b.cpu(), atol=2e-2, rtol=0)
