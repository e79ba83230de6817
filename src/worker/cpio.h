/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Writes "newc" archives, the format of an initrd; everything in one belongs to root and has no time. */

#include <stdio.h>

#include "basic/macro.h"

typedef struct Cpio {
        FILE *file; /* borrowed */
        uint32_t inode;
        uint64_t n; /* bytes written, for the alignment */
} Cpio;

#define CPIO(f) ((Cpio) { .file = (f), .inode = 1 })

/* path: without a leading '/'. mode: the permissions. 0, -E2BIG above 4 GiB, -EIO. */
int cpio_add_directory(Cpio *c, const char *path, mode_t mode);
int cpio_add_file(Cpio *c, const char *path, mode_t mode, const void *data, size_t n);
/* character device */
int cpio_add_device(Cpio *c, const char *path, mode_t mode, unsigned major, unsigned minor);
/* The end mark, padded so that another archive may follow. */
int cpio_finish(Cpio *c);
