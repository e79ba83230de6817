/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* copy-to, copy-from: cp(1)'s rules for names, a job for each source. */

#include <fcntl.h>
#include <fts.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/copy-child.h"
#include "ctl/ctl.h"
#include "ctl/files.h"
#include "shared/json-field.h"

#define HEAD_BYTES 512U /* of each entry of an archive */

/* Where all of one command goes. */
typedef struct Destination {
        Ctl *ctl;
        const char *object; /* of the capsule */
        const char *path;
        bool is_directory; /* is one, or has to be: the sources keep their names in it */
} Destination;

/* "a//b/" -> "b"; NULL when the path names no entry of its own ("/", "x/.", "..", "~"): then it is what is
 * in it that is copied. "" on out of memory. */
static char* last_name(const char *path) {
        size_t n = strlen(path), begin;

        while (n > 0 && path[n - 1] == '/')
                n--;
        for (begin = n; begin > 0 && path[begin - 1] != '/';)
                begin--;
        if (n == begin || (n - begin == 1 && (path[begin] == '.' || (path[begin] == '~' && begin == 0))) ||
            (n - begin == 2 && strncmp(path + begin, "..", 2) == 0))
                return NULL;
        return strndup(path + begin, n - begin) ?: strdup("");
}

/* The directory that holds what path names; a path without one is relative. */
static char* parent_of(const char *path) {
        size_t n = strlen(path);

        while (n > 1 && path[n - 1] == '/')
                n--;
        while (n > 0 && path[n - 1] != '/')
                n--;
        return n == 0 ? strdup(".") : strndup(path, n);
}

/* Runs the job and our end of it. Both may have something to say about a failure, and either may be the
 * cause. */
static int copy_run(Destination *d, const char *member, const char *path, CopyEnd *end, const char *name,
                    uint64_t total_bytes, char **ret_theirs) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_close_ int fd = -EBADF;
        bool to = end->writes;
        int r;

        if (!utf8_is_valid(path, strlen(path)))
                return log_error_errno(
                                EINVAL,
                                "'%s' is not UTF-8, which D-Bus wants: copy the directory it lies in.",
                                path);
        r = ctl_method(d->ctl, d->object, CAPSULE_INTERFACE, member, &m);
        if (r >= 0)
                r = copy_end_start(end, &fd);
        if (r >= 0)
                r = to ? sd_bus_message_append(m, "hst", fd, path, UINT64_C(0))
                       : sd_bus_message_append(m, "sht", path, fd, UINT64_C(0));
        if (r < 0)
                return log_error_errno(r, "Failed to make the request: %m");
        fd = close_fd(fd); /* the message has its own */
        return job_run_copy(d->ctl, m, name, total_bytes, ret_theirs);
}

static int copy(Destination *d, const char *member, const char *path, CopyEnd *end, const char *name,
                uint64_t total_bytes) {
        _cleanup_free_ char *ours = NULL, *theirs = NULL;
        int r, k = 0;

        end->pid = 0;
        r = copy_run(d, member, path, end, name, total_bytes, &theirs);
        if (end->pid > 0)
                k = copy_end_wait(end, r != 0, &ours);
        if (r != 0 && !theirs)
                return r; /* said already */
        if (ours && theirs)
                log_error("Failed to copy '%s': %s (%s)", name, ours, theirs);
        else if (ours || theirs)
                log_error("Failed to copy '%s': %s", name, ours ?: theirs);
        else if (k < 0)
                log_error("Failed to copy '%s': it ended early.", name);
        return r != 0 || k < 0 ? EXIT_FAILURE : 0;
}

/* to a capsule */

/* About what the archive will be; only for the bar, so only when there is one. */
static uint64_t size_of(const CtlOptions *o, const char *path) {
        char *const paths[] = { (char *) path, NULL };
        uint64_t bytes = 0;
        FTSENT *e;
        FTS *walk;

        if (o->quiet || !isatty(STDERR_FILENO))
                return 0;
        walk = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_XDEV | FTS_NOCHDIR, NULL);
        while (walk && (e = fts_read(walk)))
                if (e->fts_info != FTS_DP)
                        bytes += HEAD_BYTES + (e->fts_info == FTS_F ? (uint64_t) e->fts_statp->st_size : 0);
        if (walk)
                (void) fts_close(walk);
        return bytes;
}

static int copy_source_to(Destination *d, const char *source) {
        _cleanup_free_ char *name = last_name(source), *path = NULL, *target = NULL;
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        /* of a link what it points to; of a FIFO nothing that waits */
        fd = open(source, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return log_error_errno(errno, "Failed to open '%s': %m", source);

        /* a directory is unpacked in its new place, a file in the directory that holds it */
        path = d->is_directory && name ? strjoin(d->path, "/", name) : strdup(d->path);
        if (path && !S_ISDIR(st.st_mode)) {
                target = last_name(path);
                free(path);
                path = d->is_directory ? strdup(d->path) : parent_of(d->path);
        }
        if (!path || (name && !*name) || (target && !*target))
                return log_error_errno(ENOMEM, "Failed to copy '%s': %m", source);
        if (!S_ISDIR(st.st_mode) && !target)
                return log_error_errno(EINVAL, "'%s' is a file: '%s' needs a name for it.", source, d->path);
        return copy(d, "CopyTo", path,
                    &(CopyEnd) { .work = copy_pack, .writes = true, .fd = fd, .name = target ?: "." },
                    name ?: source, size_of(&d->ctl->options, source));
}

/* Is it a directory, also through a link? 1, 0, or the negative of an exit status. */
static int capsule_has_directory(Ctl *ctl, const char *object, const char *path) {
        _cleanup_free_ char *inside = strjoin(path, "/.");
        _cleanup_json_ json_t *entry = NULL;
        int r;

        if (!inside)
                return -EXIT_FAILURE;
        r = capsule_stat(ctl, object, inside, /* may_lack= */ true, &entry);
        if (r != 0)
                return r < 0 ? -EXIT_FAILURE : -r;
        return entry != NULL;
}

static int split_arguments(char **arguments, size_t *ret_n_sources, const char **ret_destination) {
        size_t n = strv_length(arguments);

        *ret_n_sources = n - 2;
        *ret_destination = arguments[n - 1];
        for (size_t i = 1; i < n && n > 3; i++)
                if (streq(arguments[i], "-"))
                        return usage("'-' stands alone: one source, one destination.");
        return 0;
}

int verb_copy_to(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *object = NULL;
        Destination d = { .ctl = ctl };
        int r, worst = 0;
        size_t n;

        r = split_arguments(arguments, &n, &d.path);
        if (r == 0)
                r = ctl_capsule_path(ctl, arguments[0], &object);
        if (r != 0)
                return r;
        d.object = object;
        if (streq(arguments[1], "-"))
                return copy(&d, "CopyTo", d.path, &(CopyEnd) { .work = copy_from_stdin, .writes = true },
                            "-", 0);

        r = capsule_has_directory(ctl, object, d.path);
        if (r < 0)
                return -r;
        d.is_directory = r > 0 || n > 1 || endswith(d.path, "/");
        for (size_t i = 1; i <= n && worst < 128; i++) {
                r = copy_source_to(&d, arguments[i]);
                worst = r < 0 ? EXIT_FAILURE : MAX(worst, r);
        }
        return worst;
}

/* from a capsule */

/* The directory that gets what is copied: made where it is missing, never through a link that an earlier
 * copy may have brought. */
static int open_target(int dir_fd, const char *name, bool *ret_made) {
        *ret_made = mkdirat(dir_fd, name, 0777) >= 0;
        if (!*ret_made && errno != EEXIST)
                return -errno;
        dir_fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return dir_fd < 0 ? -errno : dir_fd;
}

/* A single file: its directory is open already. A tree: the one it goes to. */
static int copy_source_into(Destination *d, const char *source, int dir_fd, const char *target,
                            bool is_tree) {
        _cleanup_free_ char *name = last_name(source);
        _cleanup_close_ int fd = -EBADF;
        CopyEnd end = { .work = copy_unpack, .fd = dir_fd, .preserve = d->ctl->options.preserve };

        if (name && !*name)
                return log_error_errno(ENOMEM, "Failed to copy '%s': %m", source);
        if (!is_tree) {
                end.name = name;
                end.target = target;
        } else if (target) {
                end.fd = fd = open_target(dir_fd, target, &end.is_new);
                if (fd < 0)
                        return log_error_errno(fd, "Failed to make the directory '%s' in '%s': %m", target,
                                               d->path);
        }
        return copy(d, "CopyFrom", source, &end, name ?: source, 0);
}

static int copy_source_from(Destination *d, const char *source) {
        _cleanup_free_ char *name = last_name(source), *parent = NULL, *target = NULL;
        _cleanup_json_ json_t *entry = NULL;
        _cleanup_close_ int dir_fd = -EBADF;
        int r, is_tree;

        r = capsule_stat(d->ctl, d->object, source, /* may_lack= */ false, &entry);
        if (r != 0)
                return r;
        is_tree = capsule_has_directory(d->ctl, d->object, source);
        if (is_tree < 0)
                return -is_tree;

        parent = d->is_directory ? strdup(d->path) : parent_of(d->path);
        target = d->is_directory ? (name ? strdup(name) : NULL) : last_name(d->path);
        if (!parent || (target && !*target) || (name && !target && d->is_directory))
                return log_error_errno(ENOMEM, "Failed to copy '%s': %m", source);
        /* Whatever the capsule says it is: without a name it may only fill a directory that was named here.
         */
        if (!target && (!d->is_directory || is_tree == 0))
                return log_error_errno(EINVAL, "Failed to copy '%s': '%s' needs a name for it.", source,
                                       d->path);
        if (!name && is_tree == 0)
                return log_error_errno(EINVAL, "Failed to copy '%s': it is not a directory.", source);
        dir_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir_fd < 0)
                return log_error_errno(errno, "Failed to open '%s': %m", parent);
        return copy_source_into(d, source, dir_fd, target, is_tree > 0);
}

static int copy_from_as_tar(Destination *d, const char *source) {
        if (isatty(STDOUT_FILENO))
                return usage("an archive is nothing for a terminal: send it to a file or a program.");
        return copy(d, "CopyFrom", source, &(CopyEnd) { .work = copy_to_stdout }, "-", 0);
}

int verb_copy_from(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *object = NULL;
        Destination d = { .ctl = ctl };
        int r, worst = 0;
        struct stat st;
        size_t n;

        r = split_arguments(arguments, &n, &d.path);
        if (r == 0)
                r = ctl_capsule_path(ctl, arguments[0], &object);
        if (r != 0)
                return r;
        d.object = object;
        if (streq(d.path, "-"))
                return copy_from_as_tar(&d, arguments[1]);

        d.is_directory = stat(d.path, &st) >= 0 && S_ISDIR(st.st_mode);
        if (!d.is_directory && (n > 1 || endswith(d.path, "/")))
                return log_error_errno(ENOTDIR, "'%s' is not a directory.", d.path);
        for (size_t i = 1; i <= n && worst < 128; i++) {
                r = copy_source_from(&d, arguments[i]);
                worst = r < 0 ? EXIT_FAILURE : MAX(worst, r);
        }
        return worst;
}
