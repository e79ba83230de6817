/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the API does with one file, in a few system calls each that do not wait: no FIFO, device or socket is
 * ever opened. Symlinks are followed as usual. Paths are resolved already (file-path.h).
 */

#include "agent/users.h"
#include "basic/fault.h"
#include "basic/macro.h"

/* What the kernel said about path, as the client is told. making: a parent that is no directory is the
 * caller's mistake and not a file that is not there. Returns the errno of the fault. */
int file_fault(Fault *reterr, int error, bool making, const char *what, const char *path);

/* A regular file, ready to be read from offset; fd. */
int file_open(const char *path, uint64_t offset, Fault *reterr);
/* A directory to be listed; fd. */
int file_open_directory(const char *path, Fault *reterr);
/* With parents, each new one u's, mode 0755. FAULT_ALREADY_EXISTS for a directory that is there. */
int file_mkdir(const char *path, const User *u, Fault *reterr);
/* FAULT_ALREADY_EXISTS when there is something at to, unless overwrite. */
int file_rename(const char *from, const char *to, bool overwrite, Fault *reterr);
/* Opens the directory path (O_PATH), makes what is missing for u; *ret_made: itself, too. fd; -errno. */
int file_make_directories(const char *path, const User *u, bool *ret_made);

/*
 * A file that is being written. A new one has another name until it is whole, so that nobody sees half of
 * it; a file that is there is emptied and written in place, it keeps inode and mode, and whatever happens to
 * the transfer happens to it.
 */
typedef struct FileUpload {
        int fd;
        int dir_fd;                    /* of a new file; -EBADF: in place */
        char *path, *name, *temporary; /* path: for messages; name, temporary: in dir_fd */
} FileUpload;

#define FILE_UPLOAD_NULL ((FileUpload) { .fd = -EBADF, .dir_fd = -EBADF })

/* mode: of a new file. Parents are made. */
int file_upload_begin(const char *path, mode_t mode, const User *u, FileUpload *ret, Fault *reterr);
/* FAULT_AGENT_NO_SPACE, FAULT_TOO_LARGE. */
int file_upload_write(FileUpload *f, const void *data, size_t n, Fault *reterr);
/* All is written: the file gets its name. */
int file_upload_end(FileUpload *f, Fault *reterr);
/* Closes; a new file that has not got its name goes. */
void file_upload_done(FileUpload *f);
