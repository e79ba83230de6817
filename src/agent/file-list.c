/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/file-entry.h"
#include "agent/file-list.h"
#include "agent/file-ops.h"
#include "agent/file-path.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"

typedef struct WalkLevel {
        DIR *dir;
        char *path; /* as shown */
} WalkLevel;

typedef struct Walk {
        const FileListing *listing;
        UserNames *names;
        WalkLevel levels[FILE_DEPTH_MAX];
        unsigned n_levels;
        uint64_t n_entries;
        int output;
        char buffer[64 * KIB];
        size_t n_buffer;
} Walk;

static int walk_flush(Walk *w) {
        size_t n = w->n_buffer;

        w->n_buffer = 0;
        return write_all(w->output, w->buffer, n);
}

static int walk_put(Walk *w, const void *data, size_t n) {
        int r;

        while (n > 0) {
                size_t k = MIN(n, sizeof(w->buffer) - w->n_buffer);

                memcpy(w->buffer + w->n_buffer, data, k);
                w->n_buffer += k;
                data = (const char *) data + k;
                n -= k;
                r = w->n_buffer == sizeof(w->buffer) ? walk_flush(w) : 0;
                if (r < 0)
                        return r;
        }

        return 0;
}

static int walk_put_line(Walk *w, json_t *object) {
        _cleanup_free_ char *line = json_dumps(object, JSON_COMPACT);
        int r;

        if (!line)
                return -ENOMEM;

        r = walk_put(w, line, strlen(line));
        return r < 0 ? r : walk_put(w, "\n", 1);
}

/* Takes both on success. */
static int walk_push(Walk *w, int *fd, char **path) {
        DIR *dir = fdopendir(*fd);

        if (!dir)
                return -errno;

        *fd = -EBADF;
        w->levels[w->n_levels++] = (WalkLevel) { .dir = dir, .path = TAKE_PTR(*path) };
        return 0;
}

static void walk_pop(Walk *w) {
        WalkLevel *l = &w->levels[--w->n_levels];

        (void) closedir(l->dir);
        free(l->path);
}

static Walk* walk_free(Walk *w) {
        if (!w)
                return NULL;

        while (w->n_levels > 0)
                walk_pop(w);
        (void) user_names_free(w->names);
        free(w);
        return NULL;
}
DEFINE_CLEANUP(Walk, walk_free)

static int walk_too_many(Walk *w) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *object = NULL;

        (void) fault_set(&fault, FAULT_TOO_LARGE,
                         "More than %llu entries; list a directory below, or with less depth.",
                         (unsigned long long) w->listing->entries_max);
        object = json_from_fault(&fault);
        return object ? walk_put_line(w, object) : -ENOMEM;
}

/* 1: there are too many. */
static int walk_entry(Walk *w, const char *name) {
        WalkLevel *l = &w->levels[w->n_levels - 1];
        _cleanup_free_ char *path = file_path_join(l->path, name);
        _cleanup_json_ json_t *entry = NULL;
        _cleanup_close_ int fd = -EBADF;
        int r;

        if (!path)
                return -ENOMEM;

        r = file_entry(w->names, dirfd(l->dir), name, path, &entry);
        if (r < 0)
                return r == -ENOMEM ? r : 0; /* gone meanwhile */
        if (++w->n_entries > w->listing->entries_max)
                return walk_too_many(w) ?: 1;
        r = walk_put_line(w, entry);
        if (r < 0 || w->n_levels >= w->listing->depth)
                return r;
        if (!streq(json_string_value(json_object_get(entry, "type")), "directory") ||
            json_object_get(entry, "symlink_target"))
                return 0;

        fd = openat(dirfd(l->dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? 0 : walk_push(w, &fd, &path);
}

static int walk_run(Walk *w) {
        int r = 0;

        while (r == 0 && w->n_levels > 0) {
                struct dirent *e = readdir(w->levels[w->n_levels - 1].dir);

                if (!e)
                        walk_pop(w);
                else if (!streq(e->d_name, ".") && !streq(e->d_name, ".."))
                        r = walk_entry(w, e->d_name);
        }

        return r < 0 ? r : walk_flush(w);
}

int file_list_main(void *argument, int input, int output, Fault *reterr) {
        FileListing *listing = argument;
        _cleanup_(walk_freep) Walk *w = NULL;
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *path = NULL;

        assert(listing->depth >= 1 && listing->depth <= FILE_DEPTH_MAX);

        fd = file_open_directory(listing->path, reterr);
        if (fd < 0)
                return fd;

        w = calloc(1, sizeof(Walk));
        path = strdup(listing->path);
        if (!w || !path)
                return -ENOMEM;

        w->listing = listing;
        w->output = output;
        w->names = user_names_new();
        if (!w->names || walk_push(w, &fd, &path) < 0)
                return -ENOMEM;

        return walk_run(w);
}

int file_remove_main(void *argument, int input, int output, Fault *reterr) {
        _cleanup_free_ char *parent = NULL, *name = NULL;
        _cleanup_close_ int fd = -EBADF;
        const char *path = argument;
        struct stat st;
        int r;

        r = file_path_split(path, &parent, &name);
        if (r == -EINVAL)
                return fault_set(reterr, FAULT_INVALID_ARGS, "Refusing to remove '%.300s'.", path);
        if (r < 0)
                return r;

        fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return file_fault(reterr, -errno, /* making= */ false, "remove", path);

        r = remove_tree_at(fd, name);
        if (r == -EXDEV || r == -EBUSY)
                return fault_set(reterr, FAULT_AGENT,
                                 "Cannot remove '%.300s': a file system is mounted there.", path);
        return r < 0 ? file_fault(reterr, r, /* making= */ false, "remove", path) : 0;
}
