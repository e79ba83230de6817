/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/file-path.h"
#include "basic/limits.h"
#include "basic/strings.h"

int file_path_resolve(const char *path, const char *home, char **ret, Fault *reterr) {
        _cleanup_free_ char *full = NULL;

        if (isempty(path))
                return fault_set(reterr, FAULT_INVALID_ARGS, "path: is required.");
        if (path[0] == '~' && path[1] != '\0' && path[1] != '/')
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "path: only '~' and '~/…' are known, not the homes of others.");

        if (path[0] == '/')
                full = strdup(path);
        else if (path[0] == '~')
                full = strjoin(streq(home, "/") && path[1] ? "" : home, path + 1);
        else
                full = file_path_join(home, path);
        if (!full)
                return fault_set_errno(reterr, -ENOMEM, "Cannot look up the file");
        if (strlen(full) >= FILE_PATH_LEN_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "path: expected less than %u bytes.",
                                 FILE_PATH_LEN_MAX);

        *ret = TAKE_PTR(full);
        return 0;
}

/* Bytes of path without the slashes at its end; 0 for the root. */
static size_t trimmed_length(const char *path) {
        size_t n = strlen(path);

        while (n > 0 && path[n - 1] == '/')
                n--;
        return n;
}

char* file_path_join(const char *path, const char *name) {
        return asprintf_null("%.*s/%s", (int) trimmed_length(path), path, name);
}

int file_path_split(const char *path, char **ret_parent, char **ret_name) {
        _cleanup_free_ char *parent = NULL, *name = NULL;
        size_t end = trimmed_length(path), begin = end;

        while (begin > 0 && path[begin - 1] != '/')
                begin--;

        name = strndup(path + begin, end - begin);
        parent = begin > 0 ? strndup(path, begin) : strdup("/");
        if (!name || !parent)
                return -ENOMEM;
        if (isempty(name) || streq(name, ".") || streq(name, ".."))
                return -EINVAL;

        *ret_parent = TAKE_PTR(parent);
        *ret_name = TAKE_PTR(name);
        return 0;
}
