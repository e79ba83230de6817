/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Archives of the guest's files, for a FileJob: they run in its child and block. */

#include "agent/users.h"
#include "basic/fault.h"

/* argument: a path. A directory becomes "./" and all below it, a file one entry with its name. */
int file_tar_pack_main(void *argument, int input, int output, Fault *reterr);

typedef struct FileUnpack {
        const char *path; /* a directory, made when it is missing */
        const User *user;
        bool keep_owners; /* numbers of the archive, and set-id bits; else all is user's */
} FileUnpack;

/* argument: a FileUnpack. Directories that are there keep owner and mode. */
int file_tar_unpack_main(void *argument, int input, int output, Fault *reterr);
