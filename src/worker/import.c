/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "shared/tar.h"
#include "worker/image.h"
#include "worker/import.h"

typedef struct Import {
        char *directory;
        char *scratch;
        char *compression;
        char *file;

        int fd;            /* the archive */
        uint64_t n_packed; /* its size, 0: unknown (a pipe) */
        Scratch work;
        const WorkerProgress *progress;
} Import;

static void import_done(Import *i) {
        scratch_done(&i->work);
        free(i->directory);
        free(i->scratch);
        free(i->compression);
        free(i->file);
        i->fd = close_fd(i->fd);
}

static int import_parse(json_t *request, Import *i, Fault *reterr) {
        static const JsonField fields[] = {
                { "directory", json_parse_string, offsetof(Import, directory),
                  .flags = JSON_FIELD_MANDATORY | JSON_FIELD_NON_EMPTY },
                { "scratch", json_parse_string, offsetof(Import, scratch), .flags = JSON_FIELD_NON_EMPTY },
                { "compression", json_parse_string, offsetof(Import, compression) },
                { "file", json_parse_string, offsetof(Import, file), .flags = JSON_FIELD_NON_EMPTY },
                {}
        };
        json_int_t fd = -1;
        int r;

        r = json_dispatch(request, fields, i, reterr);
        if (r < 0)
                return r;
        if ((!i->scratch && free_and_strdup(&i->scratch, "/var/tmp") < 0) ||
            (!i->compression && free_and_strdup(&i->compression, "none") < 0))
                return fault_set_errno(reterr, -ENOMEM, "Failed to read the request");

        (void) json_unpack(request, "{s:I}", WORKER_FD_MEMBER, &fd);
        if (fd >= 0)
                i->fd = (int) fd;
        else if (i->file) {
                i->fd = open(i->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
                if (i->fd < 0)
                        return fault_set_errno(reterr, -errno, "Failed to open '%s'", i->file);
        } else
                return fault_set(reterr, FAULT_INVALID_ARGS, "import-template: no archive was passed.");
        return 0;
}

static void on_unpack_progress(const TarResult *so_far, void *userdata) {
        const Import *i = userdata;
        double fraction;

        /* of a pipe nobody knows the end: nearer with every step, never there */
        if (i->n_packed > 0)
                fraction = MIN((double) so_far->n_packed / (double) i->n_packed, 1.0);
        else
                fraction = (double) so_far->n_bytes / ((double) so_far->n_bytes + 256.0 * MIB);
        worker_progress(i->progress, 0.85 * fraction, "Unpacking");
}

/* A root file system has programs; a directory too deep in the archive is the usual mistake. */
static int check_tree(int root_fd, Fault *reterr) {
        static const char *const names[] = { "usr", "bin", "sbin", "nix" };
        struct stat st;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (fstatat(root_fd, names[i], &st, AT_SYMLINK_NOFOLLOW) >= 0)
                        return 0;
        return fault_set(
                        reterr, FAULT_INVALID_ARGS,
                        "The archive holds no root file system: neither 'usr' nor 'bin' stands at its top.");
}

int worker_import_template(json_t *request, const WorkerProgress *progress, json_t **ret, Fault *reterr) {
        _cleanup_(import_done) Import i = { .fd = -EBADF, .work = SCRATCH_NULL, .progress = progress };
        const TarOptions options = {
                .flags = TAR_OWNERS | TAR_SET_ID | TAR_XATTRS | TAR_FIFOS | TAR_DIRECTORIES,
                .limits = TAR_LIMITS_IMPORT,
                .filters = &tar_filters,
                .progress = on_unpack_progress,
                .userdata = &i,
        };
        const int64_t started_sec = time(NULL);
        _cleanup_close_ int root_fd = -EBADF;
        _cleanup_free_ char *root = NULL;
        TarResult result = {};
        struct stat st;
        int r;

        r = import_parse(request, &i, reterr);
        if (r < 0)
                return r;
        if (fstat(i.fd, &st) >= 0 && S_ISREG(st.st_mode))
                i.n_packed = (uint64_t) st.st_size;

        r = scratch_make(i.scratch, &i.work, reterr);
        if (r < 0)
                return r;
        root = strjoin(i.work.path, "/root");
        if (!root || mkdir(root, 0755) < 0)
                return fault_set_errno(reterr, root ? -errno : -ENOMEM, "Failed to make the tree");
        root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
                return fault_set_errno(reterr, -errno, "Failed to make the tree");

        worker_progress(progress, 0, "Unpacking");
        r = tar_unpack(i.fd, root_fd, &options, &result, reterr);
        if (r >= 0)
                r = check_tree(root_fd, reterr);
        if (r < 0)
                return r;
        log_info("Unpacked %llu entries, left out %llu device nodes and sockets.",
                 (unsigned long long) result.n_entries, (unsigned long long) result.n_skipped);

        worker_progress(progress, 0.85, "Packing the image");
        r = image_pack(root, i.directory, i.compression, started_sec, ret, reterr);
        if (r >= 0)
                worker_progress(progress, 0.98, "Cleaning up");
        return r;
}
