/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * wrenn-worker: one long job, asked for in JSON on stdin, in a transient service of its own
 * (docs/PROTOCOLS.md §4). stdin is a file, a pipe or a socket; over a socket one fd may come with the
 * request. Killing the process cancels the job.
 */

#include <locale.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "worker/build.h"
#include "worker/import.h"
#include "worker/worker.h"

#define REQUEST_MAX   (1 * MIB)
#define PROGRESS_STEP 0.005 /* smaller ones are not told */

static const struct {
        const char *name;
        WorkerJob run;
} jobs[] = {
        { "build-template", worker_build_template },
        { "import-template", worker_import_template },
        { "prepare-kernel", worker_prepare_kernel },
};

typedef struct Reporter {
        double fraction;
        char *step;
} Reporter;

static int print_line(json_t *object) {
        _cleanup_free_ char *text = NULL, *line = NULL;

        if (!object)
                return -ENOMEM;
        text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(4));
        json_decref(object);
        line = text ? strjoin(text, "\n") : NULL;
        return line ? write_all(STDOUT_FILENO, line, strlen(line)) : -ENOMEM;
}

static void on_progress(double fraction, const char *step, void *userdata) {
        Reporter *r = userdata;

        if (streq_ptr(r->step, step) && fraction < r->fraction + PROGRESS_STEP)
                return;
        r->fraction = MAX(fraction, r->fraction);
        (void) free_and_strdup(&r->step, step);
        (void) print_line(json_pack("{s:f, s:s}", "progress", r->fraction, "step", strempty(step)));
}

/* One read: over a socket with the fd that came along, or -EBADF. Anything beyond one fd is closed. */
static ssize_t receive(char *buffer, size_t n, int *fd) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        struct iovec iov = { buffer, n };
        struct msghdr message = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        ssize_t n_read;

        n_read = recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC);
        if (n_read < 0 && errno == ENOTSOCK)
                n_read = read(STDIN_FILENO, buffer, n);
        else if (n_read >= 0)
                for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
                        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
                            c->cmsg_len == CMSG_LEN(sizeof(int))) {
                                *fd = close_fd(*fd);
                                memcpy(fd, CMSG_DATA(c), sizeof(int));
                        }
        return n_read < 0 ? -errno : n_read;
}

/* The whole of stdin. */
static int read_request(json_t **ret, Fault *reterr) {
        _cleanup_json_ json_t *request = NULL;
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int fd = -EBADF;
        size_t n = 0;
        ssize_t k;
        int r;

        text = malloc(REQUEST_MAX);
        if (!text)
                return fault_set_errno(reterr, -ENOMEM, "Failed to read the request");
        do {
                k = receive(text + n, REQUEST_MAX - n, &fd);
                if (k < 0 && k != -EINTR)
                        return fault_set_errno(reterr, (int) k, "Failed to read the request");
                n += k > 0 ? (size_t) k : 0;
                if (n == REQUEST_MAX)
                        return fault_set(reterr, FAULT_TOO_LARGE, "The request is too large.");
        } while (k != 0);

        r = json_parse_text(text, n, &request, reterr);
        if (r < 0)
                return r;
        if (json_object_set_new(request, WORKER_FD_MEMBER, json_integer(fd)) < 0)
                return fault_set_errno(reterr, -ENOMEM, "Failed to read the request");

        (void) TAKE_FD(fd);
        *ret = TAKE_PTR(request);
        return 0;
}

static int run_job(json_t *request, Reporter *reporter, json_t **ret, Fault *reterr) {
        const WorkerProgress progress = { .report = on_progress, .userdata = reporter, .from = 0, .to = 1 };
        const char *name = json_string_value(json_object_get(request, "job"));

        for (size_t i = 0; name && i < ELEMENTSOF(jobs); i++)
                if (streq(jobs[i].name, name))
                        return jobs[i].run(request, &progress, ret, reterr);
        return fault_set(reterr, FAULT_INVALID_ARGS, "job: '%.64s' is unknown.", strempty(name));
}

int main(void) {
        _cleanup_json_ json_t *request = NULL, *result = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Reporter reporter = {};
        int r;

        (void) setlocale(LC_CTYPE, "C.UTF-8"); /* libarchive converts names of pax headers to it */
        log_open("wrenn-worker");
        r = read_request(&request, &fault);
        if (r >= 0)
                r = run_job(request, &reporter, &result, &fault);
        free(reporter.step);

        if (r < 0) {
                if (!fault_is_set(&fault))
                        (void) fault_set_errno(&fault, r, "The job failed");
                log_error("%s", fault.message);
                r = print_line(json_from_fault(&fault));
                return EXIT_FAILURE;
        }

        r = print_line(json_pack("{s:O}", "result", result));
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
