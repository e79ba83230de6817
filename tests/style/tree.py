# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of the tree, as git knows them (tracked and new, nothing ignored); without git whatever lies there."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files():
    done = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    if done.returncode == 0:
        names = [n for n in done.stdout.split('\0') if n]
    else:
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob('*') if not any(q.startswith('build') for q in p.parts)]
    paths = (Path(n) for n in sorted(set(names)))
    return [p for p in paths if (ROOT / p).is_file() and not (ROOT / p).is_symlink()]


def c_files():
    return [p for p in files() if p.suffix in ('.c', '.h')]
