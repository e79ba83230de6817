/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Files and directories below a directory fd. A path from outside goes through open_beneath() only. */

#include <fcntl.h>

#include "basic/macro.h"

/* openat2(2) with RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS|RESOLVE_NO_MAGICLINKS, O_CLOEXEC added. fd or -errno
 * (-EXDEV, -ELOOP on escapes). */
int open_beneath(int dir_fd, const char *path, int flags, mode_t mode);
/* The same with symlinks that stay beneath dir_fd. */
int open_beneath_following(int dir_fd, const char *path, int flags, mode_t mode);

/* Whole file as NUL-terminated text, at most max bytes (-E2BIG). *ret_n may be NULL. */
int read_file_at(int dir_fd, const char *path, size_t max, char **ret, size_t *ret_n);
int read_fd(int fd, size_t max, char **ret, size_t *ret_n);

/* Temporary name, write, fsync, rename, fsync of the directory. */
int write_file_atomic_at(int dir_fd, const char *name, const void *data, size_t n, mode_t mode);
/* existing file, e.g. in /proc; no sync */
int write_file_at(int dir_fd, const char *path, const void *data, size_t n);

/* mkdir -p; every missing level gets mode. An existing directory is fine, anything else -ENOTDIR. */
int mkdir_parents(const char *path, mode_t mode);
/* Opens (and makes, with mode) a directory below dir_fd. */
int open_dir_at(int dir_fd, const char *name, bool create, mode_t mode);
int fsync_dir_of(int fd); /* the directory itself, given its fd */

/* Removes name and all below it; never follows a symlink, never leaves the file system of dir_fd. -ENOENT is
 * success. */
int remove_tree_at(int dir_fd, const char *name);

/* Copies all of src into dst (offset 0 on): FICLONE (ioctl_ficlonerange(2)) where possible, else the
 * allocated ranges only. */
int copy_sparse(int src_fd, int dst_fd);
uint64_t disk_free_bytes(int fd); /* for unprivileged users, statvfs(3); 0 when unknown */
