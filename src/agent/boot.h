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
/* What of the boot stays open. */
typedef struct BootRest {
        int layer_fd;  /* O_PATH of the layer's mount, for a clean end; -EBADF: none */
        int initrd_fd; /* root of the initrd, of which nobody else knows any more; -EBADF: none */
} BootRest;

#define BOOT_REST_NULL ((BootRest) { .layer_fd = -EBADF, .initrd_fd = -EBADF })

/* All of it, network included. -errno after the reason was logged. */
int boot_system(BootRest *ret);
/* Gives back the memory of the initrd; later, as the first request should not wait for it. */
void boot_drop_initrd(BootRest *rest);
/* Ends all processes, writes everything back and powers off. Returns only if the kernel refuses. */
void boot_poweroff(const BootRest *rest);
