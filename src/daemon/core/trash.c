/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/trash.h"
#include "shared/event.h"

#define STEP_BYTES (256 * MIB) /* allocated blocks that one turn frees at most */
#define NAME_LEN   64U

struct Trash {
        int fd; /* the directory */
        uint64_t n_put;
        sd_event_source *source;
};

Trash* trash_free(Trash *t) {
        if (!t)
                return NULL;

        t->source = event_source_free(t->source);
        close_fd(t->fd);
        free(t);
        return NULL;
}

/* The first entry that is not a dot; 1, 0 when empty, -errno. */
static int first_entry(int dir_fd, char ret[static NAME_MAX + 1]) {
        _cleanup_close_ int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct dirent *de;
        DIR *d;
        int r = 0;

        d = fd < 0 ? NULL : fdopendir(fd);
        if (!d)
                return -errno;
        (void) TAKE_FD(fd);

        while (r == 0 && (de = readdir(d)))
                if (!streq(de->d_name, ".") && !streq(de->d_name, "..")) {
                        (void) snprintf(ret, NAME_MAX + 1, "%s", de->d_name);
                        r = 1;
                }
        closedir(d);
        return r;
}

/* One bite of a file: 1 when it is gone, 0 when there is more. */
static int bite_file(int dir_fd, const char *name) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;

        if (S_ISREG(st.st_mode) && st.st_nlink == 1 && (uint64_t) st.st_blocks * 512 > STEP_BYTES) {
                /* sparse: cut the length in proportion to what is allocated */
                off_t length = (off_t) ((double) st.st_size *
                                        (1.0 - (double) STEP_BYTES / ((double) st.st_blocks * 512)));

                /* a layer belongs to its capsule's uid, and we do without CAP_DAC_OVERRIDE */
                (void) fchownat(dir_fd, name, 0, 0, AT_SYMLINK_NOFOLLOW);
                fd = openat(dir_fd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
                if (fd >= 0 && length > 0 && ftruncate(fd, length) >= 0)
                        return 0;
        }
        return unlinkat(dir_fd, name, 0) < 0 ? -errno : 1;
}

/* One bite of the entry, which may be a directory one deep. */
static int bite(int dir_fd, const char *name) {
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        char inner[NAME_MAX + 1];
        struct stat st;
        int r;

        if (fd < 0)
                return errno == ENOTDIR || errno == ELOOP ? bite_file(dir_fd, name) : -errno;

        r = first_entry(fd, inner);
        if (r <= 0)
                return r < 0 ? r : unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 ? -errno : 1;
        if (fstatat(fd, inner, &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISDIR(st.st_mode))
                return remove_tree_at(fd, inner);
        return bite_file(fd, inner);
}

static int on_idle(sd_event_source *source, void *userdata) {
        char name[NAME_MAX + 1];
        Trash *t = userdata;
        int r;

        r = first_entry(t->fd, name);
        if (r > 0) {
                r = bite(t->fd, name);
                if (r >= 0)
                        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
                (void) log_warning_errno(r, "Failed to empty the trash of '%s', ignoring: %m", name);
        }
        return 0;
}

static int schedule(Trash *t) {
        return t->source ? sd_event_source_set_enabled(t->source, SD_EVENT_ONESHOT) : -ENOENT;
}

int trash_new(sd_event *e, int state_fd, Trash **ret) {
        _cleanup_(trash_freep) Trash *t = malloc(sizeof(Trash));
        int r;

        if (!t)
                return -ENOMEM;

        *t = (Trash) { .fd = open_dir_at(state_fd, "trash", /* create= */ true, 0700) };
        if (t->fd < 0)
                return t->fd;

        r = event_defer(e, &t->source, PRIORITY_GC, on_idle, t);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(t);
        return 0;
}

int trash_put(Trash *t, int dir_fd, const char *name, bool durable) {
        char target[NAME_LEN];
        int r = 0;

        (void) snprintf(target, sizeof(target), "%llx-%llx", (unsigned long long) now_usec(CLOCK_REALTIME),
                        (unsigned long long) t->n_put++);
        r = renameat(dir_fd, name, t->fd, target) < 0 ? -errno : 0;
        if (r == -EACCES) /* a directory of somebody else's: moving it changes its ".." */
                r = fchownat(dir_fd, name, 0, 0, AT_SYMLINK_NOFOLLOW) < 0 ||
                                                    renameat(dir_fd, name, t->fd, target) < 0
                                    ? -errno
                                    : 0;
        if (r < 0)
                return r == -ENOENT ? 0 : r;

        if (durable) {
                r = fsync_dir_of(t->fd);
                if (r >= 0)
                        r = fsync_dir_of(dir_fd);
        }
        (void) schedule(t);
        return r;
}
