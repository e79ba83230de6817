/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Walks over many files, for a FileJob: they run in its child and block. */

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct FileListing {
        const char *path;
        unsigned depth;       /* 1: what is in the directory */
        uint64_t entries_max; /* FILE_ENTRIES_MAX */
} FileListing;

/*
 * argument: a FileListing. An entry a line (file-entry.h), a directory before what is in it, in no other
 * order. Symlinks are not walked into; what vanishes meanwhile is left out. Beyond entries_max the last line
 * is {"error":{"code":"too-large",…}}.
 */
int file_list_main(void *argument, int input, int output, Fault *reterr);

/* argument: a path. Removes it with all below it, itself when it is a link. FAULT_INVALID_ARGS for the root,
 * "." and "..". */
int file_remove_main(void *argument, int input, int output, Fault *reterr);
