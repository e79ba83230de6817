/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * From the initrd to a running system: kernel modules, the two disks joined by overlayfs as the new root,
 * the mounts a Linux program expects. And the end: everything written, then power off.
 */

#include "basic/macro.h"

/* Serial numbers by which the VMM names the disks; without them the first is the base, the second the layer.
 */
#define BOOT_SERIAL_BASE    "base"
#define BOOT_SERIAL_LAYER   "layer"
#define BOOT_DISK_WAIT_USEC (5 * USEC_PER_SEC)

/* Opens /dev/console as stdout and stderr, /dev/null as stdin. First of all, as nothing else can be said
 * before. */
void boot_console(void);
/*
 * All of it, network included. ret_layer_fd: O_PATH of the layer's mount. -errno after the reason was
 * logged.
 */
int boot_system(int *ret_layer_fd);
/* Ends all processes, writes everything back and powers off. Returns only if the kernel refuses. */
void boot_poweroff(int layer_fd);
