import pytest
import torch

from sslkit.miners import Miner, distance_weighted, easy_positive, semi_hard


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
