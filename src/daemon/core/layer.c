/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/layer.h"
#include "daemon/host/spawn.h"
#include "shared/event.h"

#define MAKE_TIMEOUT_USEC (60 * USEC_PER_SEC)
#define IMAGE_NAME_LEN    64U

/* One mke2fs at work, and who waits for it. */
typedef struct LayerJob {
        LayerCache *cache;
        struct LayerJob *next;
        uint64_t size_bytes;
        int pidfd;
        sd_event_source *end, *timer;
        LayerCall *calls;
} LayerJob;

struct LayerCall {
        LayerJob *job;
        LayerCall *next;
        LayerDone done;
        void *userdata;
};

struct LayerCache {
        Manager *manager; /* weak: outlives us */
        int fd;           /* the directory with <size>.ext4 */
        char *path;
        LayerJob *jobs;
};

static void image_name(uint64_t size_bytes, const char *suffix, char ret[static IMAGE_NAME_LEN]) {
        (void) snprintf(ret, IMAGE_NAME_LEN, "%llu.ext4%s", (unsigned long long) size_bytes, suffix);
}

static LayerJob* job_free(LayerJob *j) {
        if (!j)
                return NULL;

        for (LayerJob **i = &j->cache->jobs; *i; i = &(*i)->next)
                if (*i == j) {
                        *i = j->next;
                        break;
                }

        while (j->calls) {
                j->calls->job = NULL;
                j->calls = j->calls->next;
        }
        event_source_free(j->end);
        event_source_free(j->timer);
        if (j->pidfd >= 0)
                (void) pidfd_kill(j->pidfd, SIGKILL);
        close_fd(j->pidfd);
        free(j);
        return NULL;
}

LayerCall* layer_call_free(LayerCall *c) {
        if (!c)
                return NULL;

        if (c->job)
                for (LayerCall **i = &c->job->calls; *i; i = &(*i)->next)
                        if (*i == c) {
                                *i = c->next;
                                break;
                        }
        free(c);
        return NULL;
}

int layer_cache_new(Manager *m, LayerCache **ret) {
        LayerCache *l = calloc(1, sizeof(LayerCache));
        int r;

        if (!l)
                return -ENOMEM;

        *l = (LayerCache) { .manager = m, .fd = -EBADF, .path = strjoin(m->cache_dir, "/layers") };
        r = l->path ? mkdir_parents(l->path, 0700) : -ENOMEM;
        if (r >= 0) {
                l->fd = open(l->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                r = l->fd < 0 ? -errno : 0;
        }
        if (r < 0) {
                layer_cache_free(l);
                return log_error_errno(r, "Failed to make the directory of empty layers: %m");
        }

        *ret = l;
        return 0;
}

LayerCache* layer_cache_free(LayerCache *l) {
        if (!l)
                return NULL;

        while (l->jobs)
                job_free(l->jobs);
        close_fd(l->fd);
        free(l->path);
        free(l);
        return NULL;
}

/* Removes the image that was made longest ago while there are too many, and left-over temporary ones. */
static void prune(LayerCache *l) {
        _cleanup_close_ int fd = openat(l->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char oldest[NAME_MAX + 1] = "";
        struct timespec oldest_time = {};
        struct dirent *de;
        unsigned n = 0;
        DIR *d;

        d = fd < 0 ? NULL : fdopendir(fd);
        if (!d)
                return;
        (void) TAKE_FD(fd);

        while ((de = readdir(d))) {
                struct stat st;

                if (de->d_name[0] == '.' || fstatat(l->fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        continue;
                if (endswith(de->d_name, ".tmp")) {
                        if (!l->jobs)
                                (void) unlinkat(l->fd, de->d_name, 0);
                        continue;
                }
                n++;
                if (!*oldest || st.st_mtim.tv_sec < oldest_time.tv_sec) {
                        (void) snprintf(oldest, sizeof(oldest), "%s", de->d_name);
                        oldest_time = st.st_mtim;
                }
        }
        closedir(d);

        if (n > LAYER_SIZES_MAX)
                (void) unlinkat(l->fd, oldest, 0);
}

/* Ends the job: every call gets the result, in the order of their coming. */
static void job_complete(LayerJob *j, int r, const Fault *fault) {
        LayerCall *c;

        /* a callback may cancel others of this job */
        while ((c = j->calls)) {
                j->calls = c->next;
                c->job = NULL;
                c->done(c, r, fault, c->userdata);
        }
        job_free(j);
}

static void job_fail(LayerJob *j, int error, const char *text) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        char tmp[IMAGE_NAME_LEN];
        int r;

        image_name(j->size_bytes, ".tmp", tmp);
        (void) unlinkat(j->cache->fd, tmp, 0);
        r = fault_set_errno(&fault, error, "Failed to make an empty disk (%s)", text);
        job_complete(j, r, &fault);
}

static int on_end(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        char tmp[IMAGE_NAME_LEN], name[IMAGE_NAME_LEN];
        LayerJob *j = userdata;
        int status = -1, r;

        r = pidfd_reap(j->pidfd, &status);
        if (r == 0)
                return 0;

        j->end = event_source_free(j->end);
        j->pidfd = close_fd(j->pidfd);
        if (r < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                job_fail(j, EIO, "mke2fs failed");
                return 0;
        }

        image_name(j->size_bytes, ".tmp", tmp);
        image_name(j->size_bytes, "", name);
        if (renameat(j->cache->fd, tmp, j->cache->fd, name) < 0) {
                job_fail(j, errno, "rename");
                return 0;
        }

        prune(j->cache);
        job_complete(j, 0, NULL);
        return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        LayerJob *j = userdata;

        log_warning("mke2fs hangs, killing it.");
        (void) pidfd_kill(j->pidfd, SIGKILL);
        return 0;
}

/*
 * The inode tables are declared clean and not written: in a fresh sparse file they are zero, and the guest's
 * kernel would fill them in the background. No reserved blocks: root is the guest's only user that matters.
 */
static int spawn_mke2fs(LayerCache *l, const char *name, int *ret_pidfd) {
        static const char *const options[] = {
                "-q", "-F", "-t", "ext4",
                "-m", "0",  "-E", "lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0"
        };
        char *env[] = { (char *) "PATH=/usr/sbin:/usr/bin:/sbin:/bin", (char *) "LC_ALL=C.UTF-8", NULL };
        _cleanup_free_ char *path = strjoin(l->path, "/", name);
        char *argv[ELEMENTSOF(options) + 3] = { (char *) "mke2fs" };
        pid_t pid;

        if (!path)
                return -ENOMEM;

        for (size_t i = 0; i < ELEMENTSOF(options); i++)
                argv[i + 1] = (char *) options[i];
        argv[ELEMENTSOF(options) + 1] = path;
        return spawn_program(argv, env, NULL, 0, &pid, ret_pidfd);
}

static int make_empty_file(LayerCache *l, const char *name, uint64_t size_bytes) {
        _cleanup_close_ int fd = openat(l->fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                                        0600);

        return fd < 0 || ftruncate(fd, (off_t) size_bytes) < 0 ? -errno : 0;
}

static int job_start(LayerCache *l, uint64_t size_bytes, LayerJob **ret, Fault *reterr) {
        char tmp[IMAGE_NAME_LEN];
        LayerJob *j;
        int r;

        j = malloc(sizeof(LayerJob));
        if (!j)
                return fault_set_errno(reterr, ENOMEM, "Failed to make an empty disk");
        *j = (LayerJob) { .cache = l, .next = l->jobs, .size_bytes = size_bytes, .pidfd = -EBADF };
        l->jobs = j;

        image_name(size_bytes, ".tmp", tmp);
        r = make_empty_file(l, tmp, size_bytes);
        if (r >= 0)
                r = spawn_mke2fs(l, tmp, &j->pidfd);
        if (r == -ENOENT)
                (void) fault_set(reterr, FAULT_BACKEND_UNAVAILABLE,
                                 "mke2fs is not installed. Remedy: apt install e2fsprogs");
        if (r >= 0)
                r = event_io(l->manager->event, &j->end, j->pidfd, EPOLLIN, PRIORITY_EXIT, on_end, j,
                             "mke2fs");
        if (r >= 0)
                r = event_timer(l->manager->event, &j->timer, MAKE_TIMEOUT_USEC, PRIORITY_CLIENT, on_timeout,
                                j, "mke2fs");
        if (r < 0) {
                job_free(j);
                return fault_set_errno(reterr, r, "Failed to run mke2fs");
        }

        *ret = j;
        return 0;
}

int layer_cache_prepare(LayerCache *l, uint64_t size_bytes, LayerDone done, void *userdata, LayerCall **ret,
                        Fault *reterr) {
        LayerCall *c, **tail;
        LayerJob *j = l->jobs;
        char name[IMAGE_NAME_LEN];
        int r;

        image_name(size_bytes, "", name);
        if (faccessat(l->fd, name, R_OK, 0) >= 0)
                return 1;

        while (j && j->size_bytes != size_bytes)
                j = j->next;
        if (!j) {
                r = job_start(l, size_bytes, &j, reterr);
                if (r < 0)
                        return r;
        }

        c = malloc(sizeof(LayerCall));
        if (!c)
                return fault_set_errno(reterr, ENOMEM, "Failed to make an empty disk");
        *c = (LayerCall) { .job = j, .done = done, .userdata = userdata };
        for (tail = &j->calls; *tail; tail = &(*tail)->next)
                ;
        *tail = c;
        *ret = c;
        return 0;
}

int layer_cache_copy(LayerCache *l, uint64_t size_bytes, int dir_fd, const char *name, uid_t uid,
                     Fault *reterr) {
        _cleanup_close_ int src = -EBADF, dst = -EBADF;
        char image[IMAGE_NAME_LEN];
        int r = 0;

        image_name(size_bytes, "", image);
        src = openat(l->fd, image, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (src < 0)
                return fault_set_errno(reterr, errno, "Failed to open the empty disk");

        dst = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (dst < 0 || ftruncate(dst, (off_t) size_bytes) < 0)
                r = -errno;
        if (r >= 0)
                r = copy_sparse(src, dst);
        if (r >= 0 && fchown(dst, uid, (gid_t) uid) < 0)
                r = -errno;
        return r < 0 ? fault_set_errno(reterr, r, "Failed to make the capsule's disk") : 0;
}
