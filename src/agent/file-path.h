/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Paths of the API's files (docs/PROTOCOLS.md §3): bytes without NUL, relative to a user's home, not
 * normalised otherwise. */

#include "basic/fault.h"
#include "basic/macro.h"

/*
 * Absolute paths as they are, "~", "~/x" and relative ones below home. FAULT_INVALID_ARGS for the empty one,
 * "~other" and what is longer than FILE_PATH_LEN_MAX.
 */
int file_path_resolve(const char *path, const char *home, char **ret, Fault *reterr);

/* The path of name in the directory path; NULL on out of memory. */
char* file_path_join(const char *path, const char *name);

/*
 * Splits a path that names something to make or remove: *ret_parent is where the last component lies, "/" at
 * least, *ret_name without slashes. -EINVAL when there is none ("/") or it is "." or "..". -ENOMEM.
 */
int file_path_split(const char *path, char **ret_parent, char **ret_name);
