"""Certificates and kubeconfigs: one authority for a cluster, and an identity for each program, as Kubernetes' built-in
roles name them. They are valid for a day."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import addresses
from tests.cluster.errors import ClusterFailed

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")


def _openssl(*argv: str) -> None:
    done = subprocess.run(["openssl", *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterFailed(f"openssl {' '.join(argv)}: {done.stderr}")


class Authority:
    """A certificate authority in a folder, and what it signed beside it: `<name>.crt`, `<name>.key`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        folder.mkdir(parents=True, exist_ok=True)

    def make(self) -> None:
        """The authority itself, and the key that service account tokens are signed with."""
        to_files = ("-keyout", str(self.key("ca")), "-out", str(self.certificate))
        _openssl("req", "-x509", *_EC, *to_files, "-subj", "/CN=podfence-test-cluster")
        _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(self.key("tokens")))

    def issue(self, name: str, user: str, group: str = "", hosts: Sequence[str] = ()) -> None:
        """An identity: client certificate of `user` in `group`, and server certificate for `hosts`."""
        subject = f"/O={group}/CN={user}" if group else f"/CN={user}"
        usage = "clientAuth,serverAuth" if hosts else "clientAuth"
        extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={usage}"]
        if hosts:
            names = [f"IP:{host}" if host[0].isdigit() or ":" in host else f"DNS:{host}" for host in hosts]
            extensions += ["-addext", f"subjectAltName={','.join(names)}"]
        signed = ("-CA", str(self.certificate), "-CAkey", str(self.key("ca")))
        to_files = ("-keyout", str(self.key(name)), "-out", str(self.folder / f"{name}.crt"))
        _openssl("req", "-x509", *_EC, *signed, *to_files, "-subj", subject, *extensions)

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def crt(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def kubeconfig(self, name: str) -> Path:
        """How identity `name` reaches the API server from inside the cluster's namespaces; written where it is not."""
        path = self.folder / f"{name}.kubeconfig"
        cluster = {
            "server": f"https://{addresses.CONTROL[0]}:{addresses.API_PORT}",
            "certificate-authority": str(self.certificate),
        }
        user = {"client-certificate": str(self.crt(name)), "client-key": str(self.key(name))}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": name}}],
            "current-context": "context",
        }
        path.write_text(json.dumps(content, indent=1))
        return path
