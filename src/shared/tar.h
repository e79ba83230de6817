/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Tar archives, for imports of templates (worker), copies into a guest (agent) and out of it (wrennctl,
 * where the archive comes from a hostile guest). Everything here blocks; fds may be pipes. archive.h is
 * included behind this header only.
 *
 * Unpacking resolves every name beneath the directory, so that nothing outside is touched whatever the
 * archive says; an archive that tries is refused: absolute names, "..", links and names that lead through a
 * symlink (or out, where TAR_FOLLOW allows links), hard links to what is not in the tree. Device nodes and
 * sockets are left out. What was unpacked before an error stays.
 *
 * Packing writes pax: any bytes in names, any sizes, holes (GNU sparse 1.0), hard links, symlinks, FIFOs,
 * modes, seconds of modification, numbers of owners. Devices, sockets and what other file systems mounted
 * below hold are left out.
 */

#include "basic/fault.h"
#include "basic/limits.h"
#include "basic/macro.h"

typedef enum TarFlags {
        TAR_OWNERS = 1 << 0, /* of the archive, as numbers; else uid and gid of the options */
        TAR_SET_ID = 1 << 1, /* set-id and sticky bits, capabilities */
        TAR_XATTRS = 1 << 2, /* user.…; capabilities with TAR_SET_ID */
        TAR_FIFOS = 1 << 3,  /* else left out */
        /* symlinks within the tree are followed, also in the place of a directory */
        TAR_FOLLOW = 1 << 4,
        TAR_DIRECTORIES = 1 << 5, /* owner and mode also of directories that were there, the top included */
} TarFlags;

typedef struct TarLimits {
        uint64_t entries_max;
        uint64_t bytes_max;        /* sum of the files' sizes, holes counted */
        uint64_t ratio_max;        /* unpacked : packed; 0: any … */
        uint64_t ratio_free_bytes; /* … beyond that many unpacked bytes */
        uint64_t disk_free_min;    /* bytes to leave on the file system */
        uint32_t id_max;           /* of owners */
        uint64_t directories_max;  /* beyond it directories keep the time of their unpacking */
} TarLimits;

/* a template */
#define TAR_LIMITS_IMPORT                                           \
        ((TarLimits) { .entries_max = IMPORT_ENTRIES_MAX,           \
                       .bytes_max = IMPORT_BYTES_MAX,               \
                       .ratio_max = IMPORT_RATIO_MAX,               \
                       .ratio_free_bytes = IMPORT_RATIO_FREE_BYTES, \
                       .disk_free_min = IMPORT_DISK_FREE_MIN,       \
                       .id_max = IMPORT_ID_MAX,                     \
                       .directories_max = 0 })
/* a copy: as large as the disk it goes to */
#define TAR_LIMITS_COPY                                 \
        ((TarLimits) { .entries_max = COPY_ENTRIES_MAX, \
                       .bytes_max = UINT64_MAX,         \
                       .id_max = UINT32_MAX - 1,        \
                       .directories_max = COPY_DIRECTORIES_MAX })

typedef struct TarResult {
        uint64_t n_entries;
        uint64_t n_skipped; /* device nodes, sockets and the like */
        uint64_t n_bytes;   /* of files */
        uint64_t n_packed;  /* of the archive so far */
} TarResult;

/* Called now and then. */
typedef void (*TarProgress)(const TarResult *so_far, void *userdata);

/* Compressed archives, too; in a file of its own, as the agent has no room for that. */
typedef struct TarFilters TarFilters;
extern const TarFilters tar_filters; /* gzip, bzip2, xz, zstd */

typedef struct TarOptions {
        TarFlags flags;
        uid_t uid; /* (uid_t) -1 and (gid_t) -1: whoever unpacks */
        gid_t gid;
        TarLimits limits;
        const TarFilters *filters; /* NULL: plain archives only */
        TarProgress progress;      /* may be NULL */
        void *userdata;
} TarOptions;

/*
 * fd: the archive; borrowed, read up to its end mark. root_fd: a directory. FAULT_INVALID_ARGS (no archive,
 * hostile names), FAULT_TOO_LARGE (limits), FAULT_NO_SPACE; FAULT_INTERNAL with the system's reason.
 */
int tar_unpack(int fd, int root_fd, const TarOptions *options, TarResult *ret, Fault *reterr);

/*
 * fd: open for reading; a directory becomes "./" and all below it, a regular file one entry with name.
 * output: where the archive goes, its end mark included; a peer that is gone is -EPIPE. Files that vanish
 * meanwhile are left out, a file that is cut meanwhile is filled up with zeros. FAULT_INVALID_ARGS for other
 * files, FAULT_TOO_LARGE beyond TAR_DEPTH_MAX, FAULT_INTERNAL with the system's reason.
 */
int tar_pack(int fd, const char *name, int output, TarProgress progress, void *userdata, TarResult *ret,
             Fault *reterr);
