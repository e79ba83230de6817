/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The image a job leaves behind, a read-only EROFS of a tree, and the scratch directory they are made in. */

#include <jansson.h>

#include "basic/fault.h"
#include "basic/macro.h"

#define IMAGE_ROOTFS_NAME "rootfs.erofs"

/* A directory of the job's own that is removed in the end. */
typedef struct Scratch {
        int parent_fd; /* -EBADF: none */
        char *name;
        char *path;
} Scratch;

#define SCRATCH_NULL ((Scratch) { .parent_fd = -EBADF })

/* Makes <parent>/.tmp-<random>, 0755. */
int scratch_make(const char *parent, Scratch *ret, Fault *reterr);
void scratch_done(Scratch *s);

/*
 * Packs the tree 'root' into <directory>/rootfs.erofs, under a temporary name first, synced. compression:
 * "none", "lz4" or "lz4hc". Time stamps younger than started_sec (the job's start) become the newest one
 * that is not: what the packages brought stays, and a rebuild gives the same image. ret:
 * {"rootfs","size","digest"}, the caller's.
 */
int image_pack(const char *root, const char *directory, const char *compression, int64_t started_sec,
               json_t **ret, Fault *reterr);
