/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the API tells of a file: api.md §2.21, to the letter. */

#include <jansson.h>

#include "agent/users.h"
#include "basic/macro.h"

/* Type letter as of lstat(2), then three times "rwx": "-rw-r--r--", "drwxr-xr-x", "Lrwxrwxrwx". */
#define FILE_PERMISSIONS_LEN 11U
void file_permissions(mode_t mode, char ret[static FILE_PERMISSIONS_LEN]);

/*
 * The entry of name in dir_fd (AT_FDCWD: name is absolute or relative as usual), shown with path, whose last
 * component is its name. -errno of lstat(2), -ENOMEM.
 */
int file_entry(UserNames *names, int dir_fd, const char *name, const char *path, json_t **ret);
