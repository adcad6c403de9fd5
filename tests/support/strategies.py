"""Hypothesis strategies that several tests share."""

from __future__ import annotations

from hypothesis import strategies as st

from resnet_tools.nets.architecture import Architecture


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small nets of every kind that `Architecture` can express and a file can tell apart."""
    block = draw(st.sampled_from(["basic", "bottleneck"]))
    order = draw(
        st.sampled_from(["post-activation", "bn-after-addition", "pre-activation", "pre-activation-raw-shortcut"])
    )
    shortcut_type = draw(st.sampled_from("ABC" if block == "basic" else "BC"))
    count = draw(st.integers(2, 4))
    groups = draw(st.sampled_from([1, 1, 2]))
    stem_width = groups * draw(st.integers(1, 3))
    # Each stage is wider than the one before, as a stage is told by that; with type A it is twice as wide.
    widths = [stem_width]
    for _ in range(count - 1):
        widths.append(widths[-1] * 2 if shortcut_type == "A" else widths[-1] + groups * draw(st.integers(1, 4)))
    if block == "bottleneck":
        widths = [width + groups for width in widths]
        inner = [groups * draw(st.integers(1, 3)) for _ in widths]
    else:
        inner = [groups * draw(st.integers(1, 3)) for _ in widths]
    return Architecture(
        block=block,
        stages=tuple(draw(st.lists(st.integers(2, 3), min_size=count, max_size=count))),
        widths=tuple(widths),
        inner_widths=tuple(inner),
        stem_width=stem_width,
        order=order,
        stem=draw(st.sampled_from(["imagenet", "cifar"])),
        stem_batch_norm=True if not order.startswith("pre") else draw(st.booleans()),
        shortcut_type=shortcut_type,
        shortcut_batch_norm=draw(st.booleans())
        if shortcut_type != "A"
        else order in ("post-activation", "pre-activation-raw-shortcut"),
        groups=groups,
        conv_bias=draw(st.booleans()),
        pooling=draw(st.sampled_from(["average", "sum"])),
        bn_eps=draw(st.sampled_from([1e-5, 1e-3])),
        bn_momentum=draw(st.sampled_from([0.1, 0.01])),
        num_classes=draw(st.integers(1, 12)),
        in_channels=draw(st.sampled_from([3, 3, 1])),
    )
