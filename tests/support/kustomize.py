"""What kubectl would apply of a folder of manifests."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """Let kubectl put a kustomization together; skips the test where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on this machine: the files themselves are tested all the same")
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"KUBECONFIG": os.devnull},
    )
    return list(yaml.safe_load_all(rendered.stdout))
