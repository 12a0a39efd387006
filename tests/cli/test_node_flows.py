"""The bit that podfence may use."""

import click
import pytest

from enforcer.rules.base import DEFAULT_MARK
from podfence.node_flows import mark_option, one_bit


@pytest.mark.parametrize("text", ["0x1", "0x1000", "4096", "0x80000000", "0b100"])
def test_one_bit(text: str) -> None:
    assert one_bit(text).bit_count() == 1


@pytest.mark.parametrize(
    "text", ["0", "0x0", "0x3000", "0x100000000", "-0x1000", "0xffffffff", "", "one", "0x1000/0x1000"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not one bit of 32"):
        one_bit(text)


def test_the_default_is_the_engines() -> None:
    command = mark_option(click.command()(lambda mark: None))
    assert command.make_context("x", []).params == {"mark": DEFAULT_MARK}
