"""Names: within the limits of the kernel's programs, ours at a glance, and never the same for two things."""

from hypothesis import given
from hypothesis import strategies as st

from enforcer.rules import names
from policy.cidr import BITS, Prefix, parse_cidr

text = st.text(max_size=20)


@given(st.lists(text, max_size=4), st.lists(text, max_size=4))
def test_a_digest_knows_where_its_parts_end(a: list[str], b: list[str]) -> None:
    """The mistake of hashing `namespace + name`: `a` + `b-p` and `a-b` + `p` were one."""
    assert (names.digest(*a) == names.digest(*b)) == (a == b)


@given(text, text, text, st.sampled_from(["ingress", "egress"]))
def test_lengths_and_prefixes(namespace: str, name: str, uid: str, direction: str) -> None:
    assert direction in ("ingress", "egress")
    chain = names.pod_chain("ingress" if direction == "ingress" else "egress", namespace, name, uid)
    assert len(chain) <= 28 and names.is_own_chain(chain)
    allow = names.allow_chain(namespace)
    assert len(allow) <= 28 and names.is_own_chain(allow)
    for kind in ("ip", "net", "ipt", "npt"):
        ipset = names.generation_name(names.set_name(6, kind, name or "x"), 99)
        assert len(ipset) <= 31 and names.is_own_set(ipset)


@given(st.integers(0, 2**128 - 1), st.integers(0, 32), st.sampled_from([4, 6]))
def test_branch_chains(value: int, nibbles: int, family: int) -> None:
    bits = BITS[4 if family == 4 else 6]
    length = min(nibbles * 4, bits)
    prefix = Prefix(4 if family == 4 else 6, (value >> (128 - bits)) >> (bits - length) << (bits - length), length)
    chain = names.branch_chain("egress", prefix)
    assert len(chain) <= 28 and names.is_own_chain(chain)


def test_every_fixed_name_fits() -> None:
    fixed = [names.FORWARD, names.INPUT, names.SPOOFED, names.UNKNOWN]
    fixed += [*names.DISPATCH.values(), *names.OTHERS.values(), *names.DENY.values()]
    assert all(len(name) <= 28 and names.is_own_chain(name) for name in fixed)
    assert len(set(fixed)) == len(fixed)
    for direction in ("ingress", "egress"):
        assert len(names.generation_name(names.set_name(4, f"denied-{direction}"), 99)) <= 31


def test_a_branch_shows_its_digits_where_they_fit() -> None:
    assert names.branch_chain("ingress", parse_cidr("10.244.1.0/24")) == "PODFENCE-I-0af401-24"
    assert names.branch_chain("ingress", parse_cidr("10.244.1.64/26")) == "PODFENCE-I-0af4014-26"


def test_generations() -> None:
    assert names.split_generation("pf-4-ip-00ff-g12") == ("pf-4-ip-00ff", 12)
    assert names.split_generation("pf-4-known") == ("pf-4-known", 0)
    assert names.split_generation(names.generation_name("pf-6-net-ab", 3)) == ("pf-6-net-ab", 3)
