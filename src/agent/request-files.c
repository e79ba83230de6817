/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* /files: what is quick is done at once, the rest by a child (file-job.h). */

#include <fcntl.h>

#include "agent/file-entry.h"
#include "agent/file-job.h"
#include "agent/file-list.h"
#include "agent/file-ops.h"
#include "agent/file-path.h"
#include "agent/file-tar.h"
#include "agent/request-internal.h"
#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"

#define MODE_OF_FILE 0644

/* Whose home and ownership. */
static int find_user(Request *q, const User **ret, Fault *reterr) {
        _cleanup_free_ char *name = NULL;
        int r;

        r = request_parse_query(h2_stream_path(q->stream), "user", &name);
        if (r < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "user: expected a percent-encoded name.");

        return user_find(&q->agent->users, isempty(name) ? q->agent->identity.default_user : name, ret,
                         reterr);
}

/* The path that the query has under key. */
static int find_path(Request *q, const char *key, const User *u, char **ret, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = request_parse_query(h2_stream_path(q->stream), key, &path);
        if (r < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "%s: expected percent-encoded bytes without NUL.", key);

        return file_path_resolve(strempty(path), u->home, ret, reterr);
}

static int find_target(Request *q, const User **ret_user, char **ret_path, Fault *reterr) {
        int r;

        r = find_user(q, ret_user, reterr);
        return r < 0 ? r : find_path(q, "path", *ret_user, ret_path, reterr);
}

static int answer_entry(Request *q, const char *path, Fault *reterr) {
        _cleanup_(user_names_freep) UserNames *names = user_names_new();
        json_t *entry;
        int r;

        r = names ? file_entry(names, AT_FDCWD, path, path, &entry) : -ENOMEM;
        if (r < 0)
                return file_fault(reterr, r, /* making= */ false, "look at", path);

        answer_json_consume(q, 200, entry);
        return 0;
}

/* GET /files */

typedef struct FileRead {
        int fd;
        uint64_t left;
} FileRead;

static ssize_t read_source(void *buffer, size_t n, void *userdata) {
        FileRead *f = userdata;
        ssize_t k;

        n = (size_t) MIN((uint64_t) n, f->left);
        do
                k = n > 0 ? read(f->fd, buffer, n) : 0;
        while (k < 0 && errno == EINTR);

        /* a file of the kernel that has nothing more just now: its end for us */
        if (k < 0)
                return errno == EAGAIN ? 0 : -errno;
        f->left -= (uint64_t) k;
        return k;
}

void files_get_gone(Request *q) {
        FileRead *f = TAKE_PTR(q->state);

        if (f)
                (void) close_fd(f->fd);
        free(f);
}

static int files_get_begin(Request *q, Fault *reterr) {
        static const H2Header headers[] = { { "content-type", "application/octet-stream" } };
        const char *query = h2_stream_path(q->stream);
        _cleanup_free_ FileRead *f = NULL;
        _cleanup_free_ char *path = NULL;
        uint64_t offset, length;
        const User *u;
        int r;

        if (request_parse_u64(query, "offset", 0, &offset) < 0 ||
            request_parse_u64(query, "length", UINT64_MAX, &length) < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "offset, length: expected numbers of bytes.");
        r = find_target(q, &u, &path, reterr);
        if (r < 0)
                return r;
        f = malloc(sizeof(FileRead));
        if (!f)
                return fault_set_errno(reterr, -ENOMEM, "Cannot read '%s'", path);

        *f = (FileRead) { .fd = file_open(path, offset, reterr), .left = length };
        if (f->fd < 0)
                return f->fd;

        q->answered = true;
        q->state = TAKE_PTR(f);
        r = h2_stream_respond(q->stream, 200, headers, ELEMENTSOF(headers), /* end= */ false);
        if (r < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
        else
                h2_stream_set_source(q->stream, read_source, q->state);
        return 0;
}

void files_get(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_get_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

/* PUT /files */

void files_put_gone(Request *q) {
        FileUpload *f = TAKE_PTR(q->state);

        if (f)
                file_upload_done(f);
        free(f);
}

static int files_put_begin(Request *q, Fault *reterr) {
        _cleanup_free_ FileUpload *f = NULL;
        _cleanup_free_ char *path = NULL;
        const User *u;
        mode_t mode;
        int r;

        if (request_parse_mode(h2_stream_path(q->stream), "mode", MODE_OF_FILE, &mode) < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "mode: expected an octal number up to 7777.");
        r = find_target(q, &u, &path, reterr);
        if (r < 0)
                return r;
        f = malloc(sizeof(FileUpload));
        if (!f)
                return fault_set_errno(reterr, -ENOMEM, "Cannot write '%s'", path);

        r = file_upload_begin(path, mode, u, f, reterr);
        if (r < 0)
                return r;
        q->state = TAKE_PTR(f);
        return 0;
}

void files_put(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_put_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

size_t files_put_bytes(Request *q, const void *data, size_t n) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (q->state && file_upload_write(q->state, data, n, &fault) < 0) {
                files_put_gone(q); /* before the answer: the space is free again */
                answer_fault(q, &fault);
        }
        return n;
}

void files_put_end(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = file_upload_end(q->state, &fault);
        files_put_gone(q);
        if (r < 0)
                answer_fault(q, &fault);
        else
                answer_empty(q);
}

/* stat, mkdir, rename */

static int files_stat_begin(Request *q, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        const User *u;
        int r;

        r = find_target(q, &u, &path, reterr);
        return r < 0 ? r : answer_entry(q, path, reterr);
}

void files_stat(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_stat_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

static int files_mkdir_begin(Request *q, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        const User *u;
        int r;

        r = find_target(q, &u, &path, reterr);
        if (r >= 0)
                r = file_mkdir(path, u, reterr);
        return r < 0 ? r : answer_entry(q, path, reterr);
}

void files_mkdir(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_mkdir_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

static int files_rename_begin(Request *q, Fault *reterr) {
        _cleanup_free_ char *from = NULL, *to = NULL;
        uint32_t overwrite;
        const User *u;
        int r;

        if (request_parse_number(h2_stream_path(q->stream), "overwrite", 0, &overwrite) < 0 || overwrite > 1)
                return fault_set(reterr, FAULT_INVALID_ARGS, "overwrite: expected 0 or 1.");
        r = find_user(q, &u, reterr);
        if (r >= 0)
                r = find_path(q, "from", u, &from, reterr);
        if (r >= 0)
                r = find_path(q, "to", u, &to, reterr);
        if (r >= 0)
                r = file_rename(from, to, overwrite, reterr);
        return r < 0 ? r : answer_entry(q, to, reterr);
}

void files_rename(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_rename_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

/* what takes its time */

void files_job_gone(Request *q) {
        q->state = file_job_free(q->state);
}

/* The child's output is the answer. */
static void stream_job(Request *q, const char *type) {
        const H2Header headers[] = { { "content-type", type } };

        q->answered = true;
        if (h2_stream_respond(q->stream, 200, headers, ELEMENTSOF(headers), /* end= */ false) < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
        else
                file_job_stream(q->state);
}

static void on_list_output(FileJob *j, void *userdata) {
        stream_job(userdata, "application/x-ndjson");
}

static void on_list_end(FileJob *j, const Fault *fault, void *userdata) {
        static const H2Header headers[] = { { "content-type", "application/x-ndjson" } };
        Request *q = userdata;

        if (fault)
                answer_fault(q, fault);
        else {
                q->answered = true;
                if (h2_stream_respond(q->stream, 200, headers, ELEMENTSOF(headers), /* end= */ true) < 0)
                        (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
        }
        files_job_gone(q);
}

static void on_plain_end(FileJob *j, const Fault *fault, void *userdata) {
        Request *q = userdata;

        if (fault)
                answer_fault(q, fault);
        else
                answer_empty(q);
        files_job_gone(q);
}

static void on_tar_output(FileJob *j, void *userdata) {
        stream_job(userdata, "application/x-tar");
}

static const FileJobHandlers list_handlers = { on_list_output, on_list_end };
static const FileJobHandlers tar_handlers = { on_tar_output, on_plain_end };
static const FileJobHandlers plain_handlers = { .on_end = on_plain_end };

static int start_job(Request *q, FileJobMain run, void *argument, bool with_input,
                     const FileJobHandlers *handlers, Fault *reterr) {
        FileJob *j;
        int r;

        r = file_job_start(q->agent->loop, q->stream, run, argument, with_input, handlers, q, &j, reterr);
        if (r >= 0)
                q->state = j;
        return r;
}

static int files_list_begin(Request *q, Fault *reterr) {
        FileListing listing = { .entries_max = FILE_ENTRIES_MAX };
        _cleanup_free_ char *path = NULL;
        const User *u;
        int r;

        if (request_parse_number(h2_stream_path(q->stream), "depth", 1, &listing.depth) < 0 ||
            listing.depth > FILE_DEPTH_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "depth: expected a number up to %u.",
                                 FILE_DEPTH_MAX);
        if (listing.depth == 0)
                listing.depth = 1;

        r = find_target(q, &u, &path, reterr);
        if (r < 0)
                return r;
        listing.path = path;
        return start_job(q, file_list_main, &listing, /* with_input= */ false, &list_handlers, reterr);
}

void files_list(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_list_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

static int files_remove_begin(Request *q, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        const User *u;
        int r;

        r = find_target(q, &u, &path, reterr);
        return r < 0 ? r
                     : start_job(q, file_remove_main, path, /* with_input= */ false, &plain_handlers,
                                 reterr);
}

void files_remove(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_remove_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

static int files_tar_get_begin(Request *q, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        const User *u;
        int r;

        r = find_target(q, &u, &path, reterr);
        return r < 0 ? r
                     : start_job(q, file_tar_pack_main, path, /* with_input= */ false, &tar_handlers,
                                 reterr);
}

void files_tar_get(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_tar_get_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

static int files_tar_put_begin(Request *q, Fault *reterr) {
        _cleanup_free_ char *path = NULL, *owners = NULL;
        FileUnpack unpack = {};
        int r;

        r = request_parse_query(h2_stream_path(q->stream), "owners", &owners);
        if (r < 0 || (owners && !streq(owners, "keep")))
                return fault_set(reterr, FAULT_INVALID_ARGS, "owners: expected \"keep\" or nothing.");
        r = find_target(q, &unpack.user, &path, reterr);
        if (r < 0)
                return r;

        unpack.path = path;
        unpack.keep_owners = owners;
        return start_job(q, file_tar_unpack_main, &unpack, /* with_input= */ true, &plain_handlers, reterr);
}

void files_tar_put(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (files_tar_put_begin(q, &fault) < 0)
                answer_fault(q, &fault);
}

size_t files_tar_bytes(Request *q, const void *data, size_t n) {
        return q->state ? file_job_write(q->state, data, n) : n;
}

void files_tar_end(Request *q) {
        if (q->state)
                file_job_write_end(q->state);
}
