"""A certificate authority whose certificates begin and end as they are told to, by the openssl program; and files that
are replaced as kubelet replaces them, all at once."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

_CONFIGURATION = """
[ca]
default_ca = it
[it]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = names
copy_extensions = copy
[names]
commonName = supplied
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
HOUR = 3600.0


class Authority:
    """`pem` is its own certificate. What it issues is one text, certificate and key, as kubelet keeps its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        (folder / "index").touch()
        (folder / "configuration").write_text(_CONFIGURATION.format(folder=folder))
        subject = ("-subj", f"/CN={folder.name}")
        self._openssl("req", "-x509", *_KEY, "-days", "1", *subject, "-keyout", "ca.key", "-out", "ca.pem")

    @property
    def pem(self) -> str:
        return (self._folder / "ca.pem").read_text()

    def issue(self, name: str, begins: float = -HOUR, ends: float = HOUR) -> str:
        """For the client `name`, which may serve on 127.0.0.1 too. From and until so many seconds from now on."""
        host = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
        self._openssl("req", *_KEY, *host, "-keyout", "it.key", "-out", "it.csr")
        lasts = ("-startdate", _moment(begins), "-enddate", _moment(ends))
        signed = ("-cert", "ca.pem", "-keyfile", "ca.key", "-config", "configuration")
        self._openssl("ca", "-batch", "-notext", *signed, *lasts, "-in", "it.csr", "-out", "it.pem")
        return (self._folder / "it.pem").read_text() + (self._folder / "it.key").read_text()

    def _openssl(self, *argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def _moment(from_now: float) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + from_now))


def serving(folder: Path, issued: str) -> ssl.SSLContext:
    """What a server shows to whom connects from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    show(context, folder, issued)
    return context


def show(context: ssl.SSLContext, folder: Path, issued: str) -> None:
    """`issued`, in place of what a running server has shown so far."""
    path = folder / "served.pem"
    path.write_text(issued)
    context.load_cert_chain(path)


class Projected:
    """A folder as kubelet projects a service account: each name is a link to `..data/name`, and `..data` one to a
    folder with a name of its own, which is replaced by renaming another link over it."""

    def __init__(self, folder: Path, texts: Mapping[str, str]) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir(parents=True)
        self.replace(texts)
        for name in texts:
            (folder / name).symlink_to(f"..data/{name}")

    def replace(self, texts: Mapping[str, str]) -> None:
        """All files at once."""
        before = self.folder / f"..{self._number}"
        self._number += 1
        new = self.folder / f"..{self._number}"
        new.mkdir()
        for name, text in texts.items():
            (new / name).write_text(text)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        if before.exists():
            for old in before.iterdir():
                old.unlink()
            before.rmdir()
