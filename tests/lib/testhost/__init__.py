# SPDX-License-Identifier: LGPL-2.1-or-later
"""The embedded test host (docs/HACKING.md): real systemd, D-Bus and polkit in private namespaces."""
