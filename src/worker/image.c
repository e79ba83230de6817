/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/sha256.h"
#include "basic/strings.h"
#include "worker/image.h"
#include "worker/run.h"

/* The same for all: nothing mounts a template by UUID, and an image shall depend on its contents only. */
#define IMAGE_UUID     "77726e6e-0000-4000-8000-000000000001"
#define IMAGE_TMP_NAME ".tmp-rootfs.erofs"

int scratch_make(const char *parent, Scratch *ret, Fault *reterr) {
        _cleanup_(scratch_done) Scratch s = SCRATCH_NULL;
        char id[64];
        int r;

        r = id_random("x", id);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to get random bytes");

        s.name = strjoin(".tmp-", id);
        s.path = s.name ? strjoin(parent, "/", s.name) : NULL;
        if (!s.path)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make a work directory");

        s.parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (s.parent_fd < 0 || mkdirat(s.parent_fd, s.name, 0755) < 0)
                return fault_set_errno(reterr, -errno, "Failed to make a work directory in '%s'", parent);

        *ret = s;
        s = SCRATCH_NULL;
        return 0;
}

void scratch_done(Scratch *s) {
        int r;

        if (s->parent_fd >= 0 && s->name) {
                r = remove_tree_at(s->parent_fd, s->name);
                if (r < 0)
                        log_warning_errno(r, "Failed to remove '%s', ignoring: %m", s->path);
        }
        s->parent_fd = close_fd(s->parent_fd);
        free(s->name);
        free(s->path);
        *s = SCRATCH_NULL;
}

/* Newest time stamp in the tree from before limit, the second in which the work began; limit when there is
 * none. */
static int newest_before(const char *root, int64_t limit, int64_t *ret) {
        char *paths[] = { (char *) root, NULL };
        int64_t newest = 0;
        FTSENT *e;
        FTS *fts;
        int r;

        fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
        if (!fts)
                return -errno;

        errno = 0;
        while ((e = fts_read(fts)))
                if (e->fts_info != FTS_DP && e->fts_statp && e->fts_statp->st_mtime < limit)
                        newest = MAX(newest, (int64_t) e->fts_statp->st_mtime);
        r = -errno;
        (void) fts_close(fts);
        if (r < 0)
                return r;
        *ret = newest > 0 ? newest : limit;
        return 0;
}

static int run_mkfs_erofs(const char *root, const char *path, const char *compression, int64_t time_sec,
                          Fault *reterr) {
        _cleanup_free_ char *stamp = asprintf_null("-T%lld", (long long) time_sec);
        _cleanup_free_ char *packing = strjoin("-z", compression);
        char *argv[10];
        size_t n = 0;

        if (!stamp || !packing)
                return fault_set_errno(reterr, -ENOMEM, "Failed to run mkfs.erofs");

        argv[n++] = (char *) "mkfs.erofs";
        argv[n++] = (char *) "--quiet";
        argv[n++] = (char *) "--preserve-mtime";
        argv[n++] = (char *) "-U" IMAGE_UUID;
        argv[n++] = stamp;
        if (!streq(compression, "none"))
                argv[n++] = packing;
        argv[n++] = (char *) path;
        argv[n++] = (char *) root;
        argv[n] = NULL;
        return run_tool(argv, /* options= */ NULL, reterr);
}

/* Syncs, measures and names the image. */
static int image_finish(int dir_fd, json_t **ret, Fault *reterr) {
        _cleanup_close_ int fd = -EBADF;
        char hex[SHA256_HEX_LEN + 1];
        uint8_t digest[SHA256_LEN];
        struct stat st;
        int r;

        fd = openat(dir_fd, IMAGE_TMP_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || fstat(fd, &st) < 0 || fchmod(fd, 0644) < 0 || fsync(fd) < 0)
                return fault_set_errno(reterr, -errno, "Failed to finish the image");

        r = sha256_fd(fd, digest);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read the image back");
        hex_encode(digest, SHA256_LEN, hex);

        if (renameat(dir_fd, IMAGE_TMP_NAME, dir_fd, IMAGE_ROOTFS_NAME) < 0)
                return fault_set_errno(reterr, -errno, "Failed to name the image");
        r = fsync_dir_of(dir_fd);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to sync the image's directory");

        *ret = json_pack("{s:s, s:I, s:s}", "rootfs", IMAGE_ROOTFS_NAME, "size", (json_int_t) st.st_size,
                         "digest", hex);
        return *ret ? 0 : fault_set_errno(reterr, -ENOMEM, "Failed to finish the image");
}

int image_pack(const char *root, const char *directory, const char *compression, int64_t started_sec,
               json_t **ret, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        _cleanup_close_ int dir_fd = -EBADF;
        int64_t newest = 0;
        int r;

        if (!streq(compression, "none") && !streq(compression, "lz4") && !streq(compression, "lz4hc"))
                return fault_set(reterr, FAULT_INVALID_ARGS, "compression: expected none, lz4 or lz4hc.");

        r = newest_before(root, started_sec, &newest);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to walk the file tree");

        path = strjoin(directory, "/", IMAGE_TMP_NAME);
        dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (!path || dir_fd < 0)
                return fault_set_errno(reterr, path ? -errno : -ENOMEM, "Failed to open '%s'", directory);

        r = run_mkfs_erofs(root, path, compression, newest, reterr);
        if (r < 0)
                return r;
        return image_finish(dir_fd, ret, reterr);
}
