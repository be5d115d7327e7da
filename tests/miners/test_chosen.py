import pytest
import torch

from sslkit.losses import TripletMarginLoss
from sslkit.miners import Miner, distance_weighted, easy_positive, hard, semi_hard


def test_it_is_the_miner_with_these_options():
    torch.manual_seed(0)
    z, labels = torch.randn(12, 4), torch.arange(12) // 3
    for miner, options in ((semi_hard, {"margin": 0.7}), (easy_positive, {"semi_hard": True})):
        found, expected = Miner(miner, options)(z, labels), miner(z, labels, **options)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert not all(
            a.shape == b.shape and torch.equal(a, b)
            for a, b in zip(found, miner(z, labels), strict=True)
        )


def test_an_option_that_is_not_there():
    with pytest.raises(ValueError, match="has no option 'cutof'; choose from cutoff, farthest"):
        Miner(distance_weighted, {"cutof": 0.5})
    with pytest.raises(ValueError, match=r"'generator'; choose from cutoff, farthest$"):
        Miner(distance_weighted, {"generator": 1})
    with pytest.raises(ValueError, match="hard has no option 'x'; choose from none"):
        Miner(hard, {"x": 1})
    with pytest.raises(ValueError, match="has no option 'x'"):
        Miner(Miner(semi_hard, {"margin": 0.3}), {"x": 1})


def test_its_name_says_what_it_is():
    loss = TripletMarginLoss(miner=Miner(semi_hard, {"margin": 0.3}))
    assert "miner=semi_hard(margin=0.3)" in repr(loss)
