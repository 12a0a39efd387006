"""Builds the agent's image without docker: Debian packages unpacked, Python packages beside them, written as OCI tar.

`python -m manifests.image.build OUT [NAME]`. Nothing is run of what is unpacked; ldconfig wants root to look
into it. The same package versions, sources and SOURCE_DATE_EPOCH (by default the last commit's time) give
the same image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from manifests.image import oci

TOP = Path(__file__).parents[2]
VERSION: str = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
# In full, as the runtime of a node looks up the `podfence:VERSION` of the manifests.
NAME = f"docker.io/library/podfence:{VERSION}"
_PACKAGES = Path(__file__).parent / "packages.txt"
_PYTHON = "usr/lib/python3/dist-packages"
# Not needed to run: documentation, translations, Python's own tests and tools, and what names this build.
_SPARED = (
    "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bug",
    "usr/share/bash-completion", "usr/lib/*/gconv", "usr/lib/python3*/lib2to3", "usr/lib/python3*/pydoc_data",
    "usr/lib/python3*/ensurepip", "usr/lib/python3*/idlelib",
    f"{_PYTHON}/bin", f"{_PYTHON}/kubernetes/test", f"{_PYTHON}/kubernetes/docs",
    f"{_PYTHON}/*.dist-info/RECORD", f"{_PYTHON}/*.dist-info/direct_url.json", f"{_PYTHON}/*.dist-info/licenses",
)  # fmt: skip
_COMMAND = """\
#!/usr/bin/python3
from podfence.main import main
raise SystemExit(main())
"""


def build(out: Path, name: str = NAME) -> str:
    """Writes the image, and returns its digest."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        unpack_debian(root, Path(scratch))
        install_python(root)
        spare(root)
        complete(root)
        env = {"PATH": "/usr/sbin:/usr/bin", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        labels = {"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.title": "podfence"}
        return oci.write(out, name, root, ["/usr/bin/podfence"], env=env, labels=labels, epoch=epoch())


def unpack_debian(root: Path, scratch: Path) -> None:
    """The packages and all that they depend on, as if on an empty system; apt checks what it downloads."""
    for merged in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / merged).mkdir(parents=True)
        (root / merged).symlink_to(f"usr/{merged}")
    archives = scratch / "archives"
    (archives / "partial").mkdir(parents=True)
    status = scratch / "status"
    status.touch()
    wanted = [line for line in _PACKAGES.read_text().split("\n") if line and line[0] != "#"]
    options = [f"Dir::State::status={status}", f"Dir::Cache::archives={archives}", "APT::Install-Recommends=false"]
    options += ["APT::Sandbox::User=root", "Debug::NoLocking=true"]
    run("apt-get", *(f"-o{option}" for option in options), "-qq", "--download-only", "-y", "install", *wanted)
    for package in sorted(archives.glob("*.deb")):
        # `dpkg-deb -x` would put folders in the place of the links above.
        files = scratch / "files.tar"
        with files.open("wb") as out:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=out, check=True)
        run("tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root), "-f", str(files))


def install_python(root: Path) -> None:
    """podfence with what a node needs, for the Python of the image, which has to be of this one's version."""
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (root / "usr/bin" / ours).exists():
        sys.exit(f"podfence: the image's Python is Debian's, and packages for it can't be built by {ours}")
    flags = os.environ | {"CFLAGS": "-g0", "SOURCE_DATE_EPOCH": str(epoch()), "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as scratch:
        # setuptools leaves its own folders beside the sources it builds.
        sources = Path(scratch) / "sources"
        sources.mkdir()
        for name in ("policy", "compiler", "enforcer", "podfence", "lab", "pyproject.toml", "README.md", "LICENSE"):
            path = TOP / name
            (shutil.copytree if path.is_dir() else shutil.copy)(path, sources / name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        pip += ["--root-user-action=ignore", "--constraint", str(TOP / "tools/constraints.txt")]
        run(*pip, "--target", str(root / _PYTHON), f"{sources}[node]", env=flags)


def spare(root: Path) -> None:
    """Removes what is not needed to run."""
    unneeded = [path for pattern in _SPARED for path in root.glob(pattern)]
    for path in [*unneeded, *root.rglob("__pycache__"), *tests_below(root / _PYTHON)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def tests_below(packages: Path) -> Iterator[Path]:
    for name in ("test", "tests"):
        yield from packages.glob(f"*/{name}")


def complete(root: Path) -> None:
    """What packages do when they are configured, as far as it matters here."""
    for tool in ("iptables", "ip6tables"):
        for action in ("", "-save", "-restore"):
            link = root / f"usr/sbin/{tool}{action}"
            if not link.is_symlink():
                link.symlink_to("xtables-nft-multi")
    command = root / "usr/bin/podfence"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    shell = root / "usr/bin/sh"
    if not shell.is_symlink():
        shell.symlink_to("dash")
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    for name in ("tmp", "run", "proc", "sys", "dev", "var", "root"):
        (root / name).mkdir(exist_ok=True)
    precompile(root)


def precompile(root: Path) -> None:
    """The image is read-only where it runs: what is not compiled here would be at every start, for seconds. Compiled
    files are taken as they are, so that the times of sources are no part of the image."""
    flags = os.environ | {"PYTHONHASHSEED": "0"}
    folders = sorted(str(path) for path in (root / "usr/lib").glob("python3*"))
    options = ("-q", "--invalidation-mode=unchecked-hash", "-s", str(root), "-p", "/")
    run(sys.executable, "-m", "compileall", *options, *folders, env=flags)


def epoch() -> int:
    """The time that all files are dated with."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    log = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=TOP, capture_output=True, text=True, check=False)
    return int(log.stdout.strip() or 0)


def run(*argv: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        sys.exit(f"podfence: {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python -m manifests.image.build OUT [NAME]")
    digest = build(Path(sys.argv[1]), *sys.argv[2:])
    print(f"{sys.argv[1]}: {digest}, {Path(sys.argv[1]).stat().st_size / 1e6:.1f} MB")
