"""Where a run starts."""

from __future__ import annotations

from resnet_tools.data.samples import Samples
from resnet_tools.training.start import digest_of
from tests.support.small_nets import sample_set


def test_the_digest_tells_data_sets_apart():
    samples = sample_set()
    other = Samples(samples.images, [1, *samples.targets[1:]], samples.class_names)
    assert digest_of(samples) == digest_of(sample_set())
    assert digest_of(samples) != digest_of(other)
