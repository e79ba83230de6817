/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "agent/file-job.h"
#include "basic/fd.h"

#define JOB_PIPE_BYTES (256 * KIB)

/* Shared with the child. */
typedef struct JobVerdict {
        bool finished;
        FaultCode code; /* FAULT_NONE: done */
        char message[FAULT_MESSAGE_MAX];
} JobVerdict;

struct FileJob {
        H2Stream *stream;
        int pidfd;
        JobVerdict *verdict;
        int output, input; /* our ends */
        LoopSource *output_source, *input_source;
        bool streams; /* the output belongs to the stream */
        bool input_ended;
        uint8_t *pending; /* body the pipe did not take; owned, bounded by the stream's window */
        size_t n_pending, pending_size;
        const FileJobHandlers *handlers;
        void *userdata;
};

/* the child */

/* Whatever else is open is the agent's business: ends of other pipes held here would keep others waiting. */
static void child_keep(const int *fds, size_t n_fds) {
        unsigned from = STDERR_FILENO + 1;

        for (;;) {
                unsigned next = UINT32_MAX;

                for (size_t i = 0; i < n_fds; i++)
                        if (fds[i] >= (int) from && (unsigned) fds[i] < next)
                                next = (unsigned) fds[i];
                if (next > from)
                        (void) close_range(from, next - 1, 0);
                if (next == UINT32_MAX)
                        return;
                from = next + 1;
        }
}

static _Noreturn void child_main(FileJob *j, FileJobMain run, void *argument, int input, int output,
                                 int started) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        const int kept[] = { input, output, started };
        int r;

        (void) prctl(PR_SET_NAME, "wrenn-files");
        child_keep(kept, ELEMENTSOF(kept));
        (void) close(started); /* the agent goes on */

        r = run(argument, input, output, &fault);
        if (r < 0 && !fault_is_set(&fault))
                (void) fault_set_errno(&fault, r, "Cannot work on the capsule's files");

        j->verdict->code = r < 0 ? fault.code : FAULT_NONE;
        (void) snprintf(j->verdict->message, sizeof(j->verdict->message), "%s",
                        r < 0 && fault.message ? fault.message : "");
        j->verdict->finished = true;
        _exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* the output */

static void job_close_output(FileJob *j) {
        j->output_source = loop_source_free(j->output_source);
        j->output = close_fd(j->output);
}

/* What the child said at its end; 0: all is well. */
static int job_verdict(FileJob *j, Fault *reterr) {
        if (!j->verdict->finished)
                return fault_set(reterr, FAULT_AGENT,
                                 "The work on the capsule's files ended early, perhaps for lack of memory.");
        if (j->verdict->code <= FAULT_NONE || j->verdict->code >= _FAULT_CODE_MAX)
                return 0;
        return fault_set(reterr, j->verdict->code, "%.*s", FAULT_MESSAGE_MAX - 1, j->verdict->message);
}

static ssize_t job_read(void *buffer, size_t n, void *userdata) {
        FileJob *j = userdata;
        ssize_t k;

        do
                k = read(j->output, buffer, n);
        while (k < 0 && errno == EINTR);
        if (k != 0)
                return k < 0 ? -errno : k;

        job_close_output(j);
        return job_verdict(j, /* reterr= */ NULL);
}

void file_job_stream(FileJob *j) {
        j->streams = true;
        h2_stream_set_source(j->stream, job_read, j);
}

static void on_output(uint32_t events, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        FileJob *j = userdata;
        int n = 0, r;

        if (j->streams) {
                h2_stream_source_ready(j->stream);
                return;
        }

        if (ioctl(j->output, FIONREAD, &n) >= 0 && n > 0) {
                j->handlers->on_output(j, j->userdata);
                return;
        }
        if (!(events & EPOLLHUP))
                return;

        job_close_output(j);
        r = job_verdict(j, &fault);
        j->handlers->on_end(j, r < 0 ? &fault : NULL, j->userdata);
}

/* the input */

static void job_close_input(FileJob *j) {
        j->input_source = loop_source_free(j->input_source);
        j->input = close_fd(j->input);
        h2_stream_consume(j->stream, j->n_pending);
        free(j->pending);
        j->pending = NULL;
        j->n_pending = j->pending_size = 0;
}

/* What the pipe takes now; all of it when nobody reads any more. */
static size_t input_write(FileJob *j, const uint8_t *data, size_t n) {
        for (size_t done = 0;;) {
                ssize_t k;

                if (done >= n || j->input < 0)
                        return n;

                k = write(j->input, data + done, n - done);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0 && errno == EAGAIN)
                        return done;
                if (k < 0) {
                        job_close_input(j);
                        return n;
                }
                done += (size_t) k;
        }
}

static void on_input(uint32_t events, void *userdata) {
        FileJob *j = userdata;
        size_t done;

        done = input_write(j, j->pending, j->n_pending);
        if (j->input < 0)
                return;

        j->n_pending -= done;
        memmove(j->pending, j->pending + done, j->n_pending);
        h2_stream_consume(j->stream, done);
        if (j->n_pending == 0 && j->input_ended)
                job_close_input(j);
        else if (j->n_pending == 0)
                (void) loop_source_set_events(j->input_source, 0);
}

size_t file_job_write(FileJob *j, const void *data, size_t n) {
        size_t done = 0;

        if (j->n_pending == 0)
                done = input_write(j, data, n);
        if (j->input < 0 || done == n)
                return n;

        if (j->pending_size - j->n_pending < n - done) {
                size_t size = MAX(2 * j->pending_size, j->n_pending + n - done);
                uint8_t *longer = realloc(j->pending, size);

                if (!longer) {
                        (void) h2_stream_reset(j->stream, H2_INTERNAL_ERROR);
                        return n;
                }
                j->pending = longer;
                j->pending_size = size;
        }

        memcpy(j->pending + j->n_pending, (const uint8_t *) data + done, n - done);
        j->n_pending += n - done;
        (void) loop_source_set_events(j->input_source, EPOLLOUT);
        return done;
}

void file_job_write_end(FileJob *j) {
        j->input_ended = true;
        if (j->n_pending == 0)
                job_close_input(j);
}

/* its life */

/* One pipe; ours does not block, the child's does. */
static int job_pipe(int *ret_ours, int *ret_theirs, bool we_read) {
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;

        *ret_ours = fds[we_read ? 0 : 1];
        *ret_theirs = fds[we_read ? 1 : 0];
        (void) fcntl(fds[0], F_SETPIPE_SZ, (int) JOB_PIPE_BYTES); /* a smaller one will do */
        r = fd_nonblock(*ret_ours, true);
        return r;
}

static int job_watch(FileJob *j, Loop *l) {
        int r;

        r = loop_add(l, j->output, EPOLLIN | EPOLLET, on_output, j, &j->output_source);
        if (r >= 0 && j->input >= 0)
                r = loop_add(l, j->input, 0, on_input, j, &j->input_source);
        return r;
}

/* Returns once the child has closed what is not its own: epoll forgets an fd of ours with its last copy. */
static int job_fork(FileJob *j, FileJobMain run, void *argument, int input, int output) {
        _cleanup_close_ int wait_fd = -EBADF, started = -EBADF;
        int fds[2];
        pid_t pid;
        char byte;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        wait_fd = fds[0];
        started = fds[1];

        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0)
                child_main(j, run, argument, input, output, started);

        started = close_fd(started);
        (void) !read(wait_fd, &byte, 1);
        j->pidfd = pidfd_open_checked(pid);
        if (j->pidfd < 0) {
                (void) kill(pid, SIGKILL); /* not reaped yet: only the loop does that */
                return j->pidfd;
        }
        return 0;
}

int file_job_start(Loop *l, H2Stream *st, FileJobMain run, void *argument, bool with_input,
                   const FileJobHandlers *handlers, void *userdata, FileJob **ret, Fault *reterr) {
        _cleanup_(file_job_freep) FileJob *j = NULL;
        _cleanup_close_ int input = -EBADF, output = -EBADF;
        int r;

        j = malloc(sizeof(FileJob));
        if (!j)
                return fault_set_errno(reterr, -ENOMEM, "Cannot work on the capsule's files");

        *j = (FileJob) {
                .stream = st,
                .pidfd = -EBADF,
                .output = -EBADF,
                .input = -EBADF,
                .handlers = handlers,
                .userdata = userdata,
        };
        j->verdict = mmap(NULL, sizeof(JobVerdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                          0);
        r = j->verdict == MAP_FAILED ? -errno : job_pipe(&j->output, &output, /* we_read= */ true);
        if (r >= 0 && with_input)
                r = job_pipe(&j->input, &input, /* we_read= */ false);
        if (r >= 0)
                r = job_fork(j, run, argument, input, output);
        if (r >= 0)
                r = job_watch(j, l);
        if (r < 0)
                return fault_set(reterr, r == -ENOMEM ? FAULT_NO_MEMORY : FAULT_AGENT,
                                 "Cannot start the work on the capsule's files: %s.", strerror(-r));

        *ret = TAKE_PTR(j);
        return 0;
}

FileJob* file_job_free(FileJob *j) {
        if (!j)
                return NULL;

        job_close_output(j);
        job_close_input(j);
        if (j->pidfd >= 0)
                (void) pidfd_kill(j->pidfd, SIGKILL); /* no matter if it has ended */
        j->pidfd = close_fd(j->pidfd);
        if (j->verdict && j->verdict != MAP_FAILED)
                (void) munmap(j->verdict, sizeof(JobVerdict));
        free(j);
        return NULL;
}
