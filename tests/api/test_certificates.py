"""Certificates and tokens that expire and are renewed while the API server is followed: what was heard stays meanwhile,
what is wrong is said, and it goes on by itself once files are what they should be, however they were replaced."""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.cluster.api import Api
from enforcer.cluster.api_config import connect
from tests.api.authority import Authority, Projected, serving, show
from tests.api.follow import Follower, kubeconfig
from tests.api.history import PODS, pod, small_cluster
from tests.api.server import Server

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
DAY = 86400.0


class Way:
    """How the agent has authority, token and client certificate. `replace` brings others, at once."""

    def __init__(self, folder: Path, server: Server, texts: dict[str, str]) -> None:
        self.folder = folder
        self.server = server
        self.texts = texts

    def replace(self, **texts: str) -> None:
        self.texts |= {name.replace("_", "."): text for name, text in texts.items()}
        self.write()

    def write(self) -> None:
        raise NotImplementedError

    def api(self) -> Api:
        raise NotImplementedError


class ServiceAccount(Way):
    """As kubelet projects it. It has no client certificate."""

    projected: Projected

    def write(self) -> None:
        self.projected.replace(self.texts)

    def api(self) -> Api:
        self.projected = Projected(self.folder / "account", self.texts)
        environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.server.port)}
        return connect(service_account=self.projected.folder, environment=environment)


class Files(Way):
    """A kubeconfig that names files, each of which is a link that is replaced, as kubelet's own certificate is."""

    def write(self) -> None:
        for name, text in self.texts.items():
            new = self.folder / f"{name}-{time.monotonic_ns()}"
            new.write_text(text)
            (self.folder / "new").symlink_to(new.name)
            (self.folder / "new").rename(self.folder / name)

    def api(self) -> Api:
        self.write()
        ca, token, client = (str(self.folder / name) for name in ("ca.crt", "token", "client.pem"))
        user = {"tokenFile": token, "client-certificate": client, "client-key": client}
        return connect(kubeconfig(self.folder, self.server, user, **{"certificate-authority": ca}))


class Inside(Way):
    """A kubeconfig that has everything in it, and is replaced itself."""

    def write(self) -> None:
        data = {name: b64encode(text.encode()).decode() for name, text in self.texts.items()}
        client = {"client-certificate-data": data["client.pem"], "client-key-data": data["client.pem"]}
        user = {"token": self.texts["token"], **client}
        aside = self.folder / "aside"
        aside.mkdir(exist_ok=True)
        new = kubeconfig(aside, self.server, user, **{"certificate-authority-data": data["ca.crt"]})
        Path(new).replace(self.folder / "kubeconfig")

    def api(self) -> Api:
        self.write()
        return connect(str(self.folder / "kubeconfig"))


class Place:
    """A server that shows certificates of `authority`, and who follows it in one `way`."""

    def __init__(self, folder: Path, way: type[Way]) -> None:
        self.folder = folder
        self.authority, self.other = Authority(folder / "authority"), Authority(folder / "another")
        self.context = serving(folder, self.authority.issue("server"))
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.load_verify_locations(cadata=self.authority.pem)
        self.server = Server(small_cluster(), self.context)
        self.server.token = "first"
        texts = {"ca.crt": self.authority.pem, "token": "first", "client.pem": self.authority.issue("agent")}
        self.way = way(folder, self.server, texts)

    def shows(self, issued: str) -> None:
        show(self.context, self.folder, issued)


@pytest.fixture(params=[ServiceAccount, Files, Inside])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


@pytest.fixture
def follower(place: Place, tmp_path: Path) -> Iterator[Follower]:
    with place.server, Follower(place.server, tmp_path, api=place.way.api()) as follower:
        follower.settle()
        yield follower


def breaks_and_mends(place: Place, follower: Follower, says: str, mend: Callable[[], object]) -> None:
    """Connections that were open break now; nobody gets in before `mend`, and then without another list."""
    server = place.server
    server.cut_all()
    follower.until(lambda: [says in trouble.reason for trouble in follower.heard.troubles.values()] == [True] * 4)
    server.history.put(PODS, pod("a", "later", "x", "10.0.9.9"))
    time.sleep(0.3)
    follower.drain()
    assert follower.heard.troubles and not follower.heard.knows("Pod", "a", "later")
    assert follower.heard.knows("Pod", "a", "p0"), "what was heard stays"
    mend()
    follower.until(lambda: not follower.heard.troubles)
    follower.settle()
    assert server.requests["list nodes"] == 1, "it goes on where it was"


def test_a_serving_certificate_that_has_expired_is_renewed(place: Place, follower: Follower) -> None:
    place.shows(place.authority.issue("server", ends=-1))
    breaks_and_mends(place, follower, "certificate has expired", lambda: place.shows(place.authority.issue("server")))


def test_a_serving_certificate_that_begins_later_is_good_once_its_time_has_come(
    place: Place, follower: Follower
) -> None:
    """As for a clock that is slow: nothing but time passes."""
    place.shows(place.authority.issue("server", begins=4))
    breaks_and_mends(place, follower, "certificate is not yet valid", lambda: None)


def test_an_authority_that_is_replaced_is_read_again(place: Place, follower: Follower) -> None:
    place.shows(place.other.issue("server"))
    breaks_and_mends(place, follower, "certificate verify failed", lambda: place.way.replace(ca_crt=place.other.pem))


def test_an_authority_is_replaced_by_way_of_both(place: Place, follower: Follower) -> None:
    """As it should be done: nobody notices."""
    place.way.replace(ca_crt=place.authority.pem + place.other.pem)
    place.shows(place.other.issue("server"))
    place.server.cut_all()
    place.server.history.put(PODS, pod("a", "later", "x"))
    follower.settle()
    assert place.server.requests["list nodes"] == 1
    assert not [each for each in follower.heard.troubles.values() if "TLS" in each.reason]


def test_a_token_is_replaced(place: Place, follower: Follower) -> None:
    place.server.token = "second"
    breaks_and_mends(place, follower, "401 Unauthorized", lambda: place.way.replace(token="second"))


@pytest.mark.parametrize("text", ["", "\n", "nonsense"])
def test_files_that_make_no_sense_for_a_moment(place: Place, follower: Follower, text: str) -> None:
    """Such as one that is written in place, and read before that is done."""
    place.way.replace(ca_crt=text, token=text, client_pem=text)
    place.server.token = "second"
    place.server.cut_all()
    follower.until(lambda: set(follower.heard.troubles) == set(follower.heard.findings))
    assert all("\n" not in trouble.reason for trouble in follower.heard.troubles.values())
    texts = {"ca_crt": place.authority.pem, "client_pem": place.authority.issue("agent")}
    place.way.replace(token="second", **texts)
    place.server.history.put(PODS, pod("a", "later", "x"))
    follower.until(lambda: not follower.heard.troubles)
    follower.settle()


@pytest.fixture(params=[Files, Inside])
def shown(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The client shows a certificate that ends in a moment."""
    place = Place(tmp_path, request.param)
    place.way.texts["client.pem"] = place.authority.issue("agent", ends=4)
    return place


def is_valid(connection: Any) -> bool:
    """As Kubernetes' API server looks at it: at each request, also of connections that have long been open."""
    found = connection.getpeercert()
    return bool(found) and ssl.cert_time_to_seconds(found["notAfter"]) > time.time()


@pytest.mark.parametrize("strict", [False, True], ids=["answers 401", "ends the handshake"])
def test_a_client_certificate_that_has_expired_is_renewed(shown: Place, tmp_path: Path, strict: bool) -> None:
    shown.server.admits = is_valid
    if strict:
        shown.context.verify_mode = ssl.CERT_REQUIRED
    else:
        shown.context.verify_flags |= NO_CHECK_TIME
    with shown.server, Follower(shown.server, tmp_path, api=shown.way.api()) as follower:
        follower.settle()
        time.sleep(4.5)
        breaks_and_mends(
            shown,
            follower,
            "certificate expired" if strict else "401 Unauthorized",
            lambda: shown.way.replace(client_pem=shown.authority.issue("agent")),
        )
