"""The images that every node has: PAUSE holds a pod's namespaces, BUSYBOX is for test pods. Both are Debian's static
busybox and nothing else. Pods name them with `imagePullPolicy: Never`: there is no registry to pull from."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from manifests.image import oci

PAUSE = "podfence.test/pause:1"
BUSYBOX = "podfence.test/busybox:1"
_BINARY = Path("/bin/busybox")


def write(folder: Path) -> list[Path]:
    """Both images as tars in `folder`."""
    pause, busybox = folder / "pause.tar", folder / "busybox.tar"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "bin").mkdir()
        shutil.copy(_BINARY, root / "bin/busybox")
        oci.write(pause, PAUSE, root, ["/bin/busybox", "sleep", "infinity"])
        applets = subprocess.run([_BINARY, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        for name in ("etc", "tmp", "root"):
            (root / name).mkdir()
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        oci.write(busybox, BUSYBOX, root, [], command=["/bin/sh"], env={"PATH": "/bin"})
    return [pause, busybox]
