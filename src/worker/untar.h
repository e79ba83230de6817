/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Unpacks a tar archive of unknown origin (plain, gzip, bzip2, xz, zstd) below a directory. Runs as root of
 * a user namespace in a process of its own. Every name is resolved beneath the directory without following
 * any symlink, so that nothing outside is touched whatever the archive says; an archive that tries is
 * refused. Owners, modes, times of files, hard links, xattrs and capabilities are kept; device nodes and
 * sockets are left out (a user namespace cannot make them, the guest's /dev is devtmpfs).
 */

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct UntarLimits {
        uint64_t entries_max;
        uint64_t bytes_max;        /* sum of the files' sizes, holes counted */
        uint64_t ratio_max;        /* unpacked : packed … */
        uint64_t ratio_free_bytes; /* … beyond that many unpacked bytes */
        uint64_t disk_free_min;    /* bytes to leave on the file system */
} UntarLimits;

#define UNTAR_LIMITS_DEFAULT                                                                              \
        ((UntarLimits) { IMPORT_ENTRIES_MAX, IMPORT_BYTES_MAX, IMPORT_RATIO_MAX, IMPORT_RATIO_FREE_BYTES, \
                         IMPORT_DISK_FREE_MIN })

typedef struct UntarResult {
        uint64_t n_entries;
        uint64_t n_skipped; /* device nodes, sockets */
        uint64_t n_bytes;   /* of files */
        uint64_t n_packed;  /* read from fd */
} UntarResult;

/* Called now and then. */
typedef void (*UntarProgress)(const UntarResult *so_far, void *userdata);

/*
 * fd: the archive, also a pipe; borrowed. root_fd: an empty directory. progress may be NULL.
 * FAULT_INVALID_ARGS (no archive, hostile names), FAULT_TOO_LARGE (limits), FAULT_NO_SPACE. What was
 * unpacked so far stays.
 */
int untar(int fd, int root_fd, const UntarLimits *limits, UntarProgress progress, void *userdata,
          UntarResult *ret, Fault *reterr);
