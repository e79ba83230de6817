/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Requests to the agent that ask for something to be done, and open files; what is listed is in
 * capsule-listing.c. */

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limit-table.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/capsule-files.h"
#include "daemon/core/capsule-request.h"
#include "daemon/core/monitor-link.h"
#include "shared/protocol.h"

/* --- paths ----------------------------------------------------------------------------------- */

static int check_path(const char *name, const char *path, Fault *reterr) {
        return limit_check_text(&limit_table[LIMIT_FILE_PATH], name, strlen(path), reterr);
}

char* capsule_file_request(const char *resource, const char *path, Fault *reterr) {
        _cleanup_free_ char *encoded = NULL;
        char *request;

        if (check_path("path", path, reterr) < 0)
                return NULL;
        encoded = percent_encode(path, strlen(path));
        request = encoded ? strjoin(resource, "?path=", encoded) : NULL;
        if (!request)
                (void) fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        return request;
}

static char* process_request(const char *selector, const char *verb, Fault *reterr) {
        _cleanup_free_ char *encoded = NULL;
        char *request;

        if (!tag_is_valid(selector)) {
                (void) fault_set(reterr, FAULT_INVALID_ARGS, "selector: expected a tag or a pid.");
                return NULL;
        }
        encoded = percent_encode(selector, strlen(selector));
        request = encoded ? strjoin("/processes/", encoded, "/", verb) : NULL;
        if (!request)
                (void) fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        return request;
}

/* --- to be done ------------------------------------------------------------------------------ */

typedef struct PlainRequest {
        CapsuleRequest rq;
        CapsuleDone done;
        void *userdata;
} PlainRequest;

static void on_plain(CapsuleRequest *rq, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault) {
        PlainRequest *q = (PlainRequest *) rq;

        q->done(rq->capsule, r, fault, q->userdata);
}

/* path NULL: making it failed, with reterr. */
static int ask_plainly(Capsule *c, const char *path, CapsuleDone done, void *userdata, Fault *reterr) {
        const TransferSpec spec = { .method = "POST",
                                    .path = path,
                                    .body_fd = -EBADF,
                                    .answer_fd = -EBADF,
                                    .timeout_usec = GUEST_REQUEST_USEC };
        _cleanup_json_ json_t *body = NULL;
        PlainRequest *q;
        int r;

        if (!path)
                return fault_errno(reterr->code);
        r = capsule_use(c, reterr);
        if (r < 0)
                return r;
        body = transfer_spec_to_json(&spec);
        q = malloc(sizeof(PlainRequest));
        if (q)
                *q = (PlainRequest) { .done = done, .userdata = userdata };
        return capsule_request_consume((CapsuleRequest *) q, c, CONTROL_VERB_REQUEST, body, NULL, 0,
                                       GUEST_REQUEST_USEC + MONITOR_CALL_TIMEOUT_USEC, on_plain, reterr);
}

int capsule_signal_process(Capsule *c, const char *selector, int signal, CapsuleDone done, void *userdata,
                           Fault *reterr) {
        _cleanup_free_ char *verb = asprintf_null("signal?signal=%i", signal), *path = NULL;

        if (signal < 1 || signal > (int) SIGNAL_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "signal: expected a number from 1 to %u.",
                                 SIGNAL_MAX);
        if (!verb)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        path = process_request(selector, verb, reterr);
        return ask_plainly(c, path, done, userdata, reterr);
}

int capsule_resize_terminal(Capsule *c, const char *selector, uint32_t cols, uint32_t rows, CapsuleDone done,
                            void *userdata, Fault *reterr) {
        _cleanup_free_ char *verb = asprintf_null("resize?cols=%u&rows=%u", cols, rows), *path = NULL;
        int r;

        r = capsule_check_terminal(cols, rows, reterr);
        if (r < 0)
                return r;
        if (!verb)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        path = process_request(selector, verb, reterr);
        return ask_plainly(c, path, done, userdata, reterr);
}

int capsule_make_directory(Capsule *c, const char *path, CapsuleDone done, void *userdata, Fault *reterr) {
        _cleanup_free_ char *request = capsule_file_request("/files/mkdir", path, reterr);

        return ask_plainly(c, request, done, userdata, reterr);
}

int capsule_remove_path(Capsule *c, const char *path, CapsuleDone done, void *userdata, Fault *reterr) {
        _cleanup_free_ char *request = capsule_file_request("/files/remove", path, reterr);

        return ask_plainly(c, request, done, userdata, reterr);
}

int capsule_rename_path(Capsule *c, const char *from, const char *to, bool overwrite, CapsuleDone done,
                        void *userdata, Fault *reterr) {
        _cleanup_free_ char *encoded_from = percent_encode(from, strlen(from)),
                            *encoded_to = percent_encode(to, strlen(to)), *request = NULL;
        int r;

        r = check_path("from", from, reterr);
        if (r >= 0)
                r = check_path("to", to, reterr);
        if (r < 0)
                return r;
        if (!encoded_from || !encoded_to)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        if (strlen(encoded_from) + strlen(encoded_to) > REQUEST_PATH_MAX - 64)
                return fault_set(reterr, FAULT_TOO_LARGE, "from and to: too long together.");
        request = strjoin("/files/rename?from=", encoded_from, "&to=", encoded_to,
                          "&overwrite=", overwrite ? "1" : "0");
        if (!request)
                (void) fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        return ask_plainly(c, request, done, userdata, reterr);
}

/* --- open files ------------------------------------------------------------------------------ */

typedef struct OpenRequest {
        CapsuleRequest rq;
        int fd; /* the caller's end */
        FileDone done;
        void *userdata;
} OpenRequest;

static void on_open(CapsuleRequest *rq, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault) {
        OpenRequest *q = (OpenRequest *) rq;

        q->done(rq->capsule, r, r < 0 ? -EBADF : q->fd, fault, q->userdata);
        (void) close_fd(q->fd);
}

static char* open_request(const OpenFileSpec *s, Fault *reterr) {
        _cleanup_free_ char *path = capsule_file_request("/files", s->path, reterr);
        char *request;

        if (!path)
                return NULL;
        if (s->write)
                request = asprintf_null("%s&mode=%04o", path, s->mode ?: 0644);
        else if (s->length > 0)
                request = asprintf_null("%s&offset=%llu&length=%llu", path, (unsigned long long) s->offset,
                                        (unsigned long long) s->length);
        else
                request = asprintf_null("%s&offset=%llu", path, (unsigned long long) s->offset);
        if (!request)
                (void) fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        return request;
}

static int make_ends(bool write, int *ret_monitor, int *ret_caller) {
        int fds[2];

        if ((write ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) : pipe2(fds, O_CLOEXEC)) < 0)
                return -errno;
        *ret_caller = fds[0];
        *ret_monitor = fds[1];
        return 0;
}

int capsule_open_file(Capsule *c, const OpenFileSpec *spec, FileDone done, void *userdata, Fault *reterr) {
        _cleanup_free_ char *path = open_request(spec, reterr);
        _cleanup_close_ int monitor_fd = -EBADF, caller_fd = -EBADF;
        _cleanup_json_ json_t *body = NULL;
        OpenRequest *q;
        int r;

        if (!path)
                return fault_errno(reterr->code);
        if (spec->write && spec->mode > 07777)
                return fault_set(reterr, FAULT_INVALID_ARGS, "Mode: expected permissions, 0 to 07777.");
        r = capsule_use(c, reterr);
        if (r < 0)
                return r;
        r = make_ends(spec->write, &monitor_fd, &caller_fd);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to open the file");
        body = transfer_spec_to_json(&(TransferSpec) { .method = spec->write ? "PUT" : "GET",
                                                       .path = path,
                                                       .body_fd = spec->write ? monitor_fd : -EBADF,
                                                       .answer_fd = spec->write ? -EBADF : monitor_fd,
                                                       .report = spec->write });
        q = malloc(sizeof(OpenRequest));
        if (!q)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        *q = (OpenRequest) { .fd = caller_fd, .done = done, .userdata = userdata };
        r = capsule_request_consume((CapsuleRequest *) q, c, CONTROL_VERB_REQUEST, body, &monitor_fd, 1,
                                    GUEST_REQUEST_USEC, on_open, reterr);
        if (r >= 0)
                (void) TAKE_FD(caller_fd); /* on_open() closes it */
        return r;
}
