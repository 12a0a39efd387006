"""Writes a folder as a container image: an OCI layout in one tar, as `ctr images import`, podman and skopeo read it.

The same files give the same bytes, whenever and by whomever: entries are sorted, owned by root, and dated as the caller
says.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def write(
    out: Path,
    name: str,
    root: Path,
    entrypoint: Sequence[str],
    *,
    command: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    epoch: int = 0,
) -> str:
    """Writes the files below `root` as the one layer of image `name`; returns the image's digest."""
    layer, layer_id = _layer(root, epoch)
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": list(entrypoint),
            "Cmd": list(command),
            "Env": [f"{key}={text}" for key, text in sorted((env or {}).items())],
            "Labels": dict(sorted((labels or {}).items())),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_id]},
    }
    blobs: dict[str, bytes] = {}
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _add(blobs, _json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [_add(blobs, layer, _LAYER)],
    }
    described = _add(blobs, _json(manifest), _MANIFEST)
    described["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [described]}
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
        files |= {f"blobs/sha256/{digest}": content for digest, content in sorted(blobs.items())}
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mtime, entry.mode = len(content), epoch, 0o644
            tar.addfile(entry, io.BytesIO(content))
    return str(described["digest"])


def _architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _add(blobs: dict[str, bytes], content: bytes, media_type: str) -> dict[str, object]:
    digest = _digest(content)
    blobs[digest] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _layer(root: Path, epoch: int) -> tuple[bytes, str]:
    """The folder as a compressed tar, and the digest of the uncompressed one."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            _append(tar, path, path.relative_to(root).as_posix(), epoch)
    content = plain.getvalue()
    # mtime 0 and no name in the header: the time of compressing is not part of the image.
    return gzip.compress(content, compresslevel=9, mtime=0), f"sha256:{_digest(content)}"


def _append(tar: tarfile.TarFile, path: Path, name: str, epoch: int) -> None:
    """One file, without what differs from build to build. Hard links become files of their own."""
    entry = tarfile.TarInfo(name)
    status = path.lstat()
    entry.mode, entry.mtime = stat.S_IMODE(status.st_mode), epoch
    data: IO[bytes] | None = None
    if stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
        data = path.open("rb")
    else:
        raise ValueError(f"{path}: an image has files, folders and symbolic links only")
    try:
        tar.addfile(entry, data)
    finally:
        if data:
            data.close()
