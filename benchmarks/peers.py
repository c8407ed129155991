"""The other systems, installed where `benchmarks.systems` finds them: from the package index and Debian's archive.

Needs root and Debian. Programs that the machine's own release has only in old versions are taken, as they are, out of
the packages of Debian's development release, from the archive that the machine uses; nothing of that is installed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems.base import PEERS

PYTHON = ["borgbackup==1.4.5", "clearml[s3]==2.1.12", "dvc[s3]==3.67.1", "oxenai==0.65.1"]
RELEASE = ["git", "rsync", "casync", "ostree", "zstd", "e2fsprogs", "xfsprogs", "btrfs-progs"]
TO_BUILD = ["gcc", "pkg-config", "libacl1-dev", "liblz4-dev", "libzstd-dev", "libxxhash-dev", "libssl-dev"]
NEWER = ["restic", "git-lfs", "desync"]


def run(words: Sequence[str | Path], **options) -> str:
    return subprocess.run(
        [str(word) for word in words], check=True, text=True, stdout=subprocess.PIPE, **options
    ).stdout


def install() -> None:
    (PEERS / "bin").mkdir(parents=True, exist_ok=True)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"])
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *RELEASE, *TO_BUILD], env=quiet)
    install_newer()
    environment("venv", PYTHON)
    environment("ours", [f"{Path(__file__).parents[1]}[s3]"])


def environment(name: str, packages: Sequence[str]) -> None:
    """A virtual environment with packages; this one too is installed as users install it, not in place."""
    folder = PEERS / name
    run([sys.executable, "-m", "venv", "--clear", folder])
    run([folder / "bin" / "pip", "install", "-q", "--disable-pip-version-check", *packages])


def install_newer() -> None:
    archives = run(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]).split()
    archive = next(one for one in archives if "security" not in one)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        (folder / "sources").write_text(f"deb {archive} sid main\n")
        apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={folder / 'sources'}", "-o", "Dir::Etc::sourceparts=-"]
        apt += ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
        run([*apt, "update"])
        run([*apt, "download", *NEWER], cwd=folder)
        for package in folder.glob("*.deb"):
            run(["dpkg", "-x", package, folder / "content"])
        for program in NEWER:
            target = PEERS / "bin" / program
            target.write_bytes((folder / "content" / "usr" / "bin" / program).read_bytes())
            target.chmod(0o755)
            (package,) = folder.glob(f"{program}_*.deb")
            target.with_suffix(".version").write_text(package.name.split("_")[1] + "\n")  # not all tell it themselves
