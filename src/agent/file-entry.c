/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>

#include "agent/file-entry.h"
#include "basic/strings.h"
#include "shared/json-field.h"

static char type_letter(mode_t mode) {
        switch (mode & S_IFMT) {
        case S_IFREG:
                return '-';
        case S_IFDIR:
                return 'd';
        case S_IFLNK:
                return 'L';
        case S_IFBLK:
                return 'b';
        case S_IFCHR:
                return 'c';
        case S_IFIFO:
                return 'p';
        case S_IFSOCK:
                return 'S';
        default:
                return '?';
        }
}

void file_permissions(mode_t mode, char ret[static FILE_PERMISSIONS_LEN]) {
        static const char letters[] = "rwx";

        ret[0] = type_letter(mode);
        for (unsigned i = 0; i < 9; i++)
                ret[1 + i] = mode & (0400U >> i) ? letters[i % 3] : '-';
        ret[10] = '\0';
}

/* A JSON string of any bytes. */
static json_t* json_bytes(const char *s) {
        _cleanup_free_ char *text = NULL;
        size_t n = strlen(s);

        if (utf8_is_valid(s, n))
                return json_stringn_nocheck(s, n);

        text = utf8_replace(s, n);
        return text ? json_string(text) : NULL;
}

/* The last component, "/" of the root. */
static json_t* json_name(const char *path) {
        _cleanup_free_ char *name = NULL;
        size_t end = strlen(path), begin;

        while (end > 1 && path[end - 1] == '/')
                end--;
        for (begin = end; begin > 0 && path[begin - 1] != '/';)
                begin--;

        name = begin < end ? strndup(path + begin, end - begin) : strdup("/");
        return name ? json_bytes(name) : NULL;
}

/* What only some entries have. */
static int add_rest(json_t *entry, const char *path, bool link, bool dangling) {
        _cleanup_free_ char *target = NULL, *bytes = NULL;

        if (link) {
                target = dangling ? NULL : realpath(path, NULL);
                if (json_object_set_new_nocheck(entry, "symlink_target", json_bytes(target ?: path)) < 0)
                        return -ENOMEM;
        }

        if (!utf8_is_valid(path, strlen(path))) {
                bytes = base64_encode(path, strlen(path));
                if (!bytes || json_object_set_new_nocheck(entry, "path_base64", json_string(bytes)) < 0)
                        return -ENOMEM;
        }

        return 0;
}

int file_entry(UserNames *names, int dir_fd, const char *name, const char *path, json_t **ret) {
        char permissions[FILE_PERMISSIONS_LEN];
        _cleanup_json_ json_t *entry = NULL;
        bool link, dangling = false;
        struct stat st, target;
        const char *type;

        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;

        link = S_ISLNK(st.st_mode);
        target = st;
        if (link)
                dangling = fstatat(dir_fd, name, &target, 0) < 0;
        type = dangling ? "symlink" : S_ISDIR(target.st_mode) ? "directory" : "file";
        if (dangling)
                target = st;

        file_permissions(st.st_mode, permissions);
        entry = json_pack("{s:o, s:o, s:s, s:I, s:i, s:s, s:o, s:o, s:I}", "name", json_name(path), "path",
                          json_bytes(path), "type", type, "size", (json_int_t) st.st_size, "mode",
                          (int) (target.st_mode & 07777), "permissions", permissions, "owner",
                          json_bytes(user_names_user(names, st.st_uid)), "group",
                          json_bytes(user_names_group(names, st.st_gid)), "modified_at",
                          (json_int_t) st.st_mtim.tv_sec);
        if (!entry || add_rest(entry, path, link, dangling) < 0)
                return -ENOMEM;

        *ret = TAKE_PTR(entry);
        return 0;
}
