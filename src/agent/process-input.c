/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What readers send to a process's stdin or type on its terminal. What it does not take yet waits with the
 * reader it came from, whose stream gets the credit when it is gone: each waits for itself, bounded by its
 * window, and all get their turn.
 */

#include <fcntl.h>
#include <string.h>

#include "agent/process-internal.h"
#include "basic/fd.h"

#define INPUT_TURN_BYTES (4 * KIB) /* of one reader, while others wait, too */

/* The first n bytes are done with. */
static void reader_consume_input(ProcessReader *reader, size_t n) {
        reader->n_input -= n;
        reader->process->n_input -= n;
        h2_stream_consume(reader->stream, n);
        if (reader->n_input > 0) {
                memmove(reader->input, reader->input + n, reader->n_input);
                return;
        }

        free(reader->input);
        reader->input = NULL;
        reader->input_size = 0;
}

void process_input_close(Process *p) {
        p->stdin_source = loop_source_free(p->stdin_source);
        p->stdin_fd = close_fd(p->stdin_fd);
        for (ProcessReader *reader = p->readers; reader; reader = reader->next)
                reader_consume_input(reader, reader->n_input);
}

/* What the process takes; all of it when nobody reads any more. */
static size_t input_write(Process *p, const uint8_t *data, size_t n) {
        for (size_t done = 0;;) {
                ssize_t k;

                if (done >= n || p->stdin_fd < 0)
                        return n;

                k = write(p->stdin_fd, data + done, n - done);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0 && errno == EAGAIN)
                        return done;
                if (k < 0) {
                        p->stdin_fd = close_fd(p->stdin_fd);
                        return n;
                }
                done += (size_t) k;
        }
}

/* All has been taken, or the last who had something has left. */
static void input_is_empty(Process *p) {
        if (p->stdin_fd < 0 || p->stdin_eof)
                process_input_close(p);
        else
                (void) loop_source_set_events(p->stdin_source, 0);
}

static ProcessReader* first_with_input(Process *p) {
        for (ProcessReader *reader = p->readers; reader; reader = reader->next)
                if (reader->n_input > 0)
                        return reader;

        return NULL;
}

static void on_stdin(uint32_t events, void *userdata) {
        Process *p = userdata;

        if (p->n_input == 0 && (events & (EPOLLERR | EPOLLHUP))) {
                process_input_close(p);
                return;
        }

        while (p->n_input > 0 && p->stdin_fd >= 0) {
                ProcessReader *reader = first_with_input(p);
                size_t n = reader->n_input, done;

                if (n < p->n_input)
                        n = MIN(n, (size_t) INPUT_TURN_BYTES);
                done = input_write(p, reader->input, n);
                reader_consume_input(reader, done);
                if (done < n)
                        return;
                reader_requeue(reader);
        }

        input_is_empty(p);
}

size_t process_stdin(ProcessReader *reader, const void *data, size_t n) {
        Process *p = reader->process;
        size_t done = 0;

        if (!p || p->stdin_fd < 0 || p->stdin_eof)
                return n;

        if (p->n_input == 0)
                done = input_write(p, data, n);
        if (p->stdin_fd < 0) {
                process_input_close(p);
                return n;
        }
        if (done == n)
                return n;

        if (reader->input_size - reader->n_input < n - done) {
                size_t size = reader->n_input + n - done;
                uint8_t *bigger = realloc(reader->input, size);

                if (!bigger) {
                        process_input_close(p); /* better a short input than one with a hole */
                        return n;
                }
                reader->input = bigger;
                reader->input_size = size;
        }

        memcpy(reader->input + reader->n_input, (const uint8_t *) data + done, n - done);
        reader->n_input += n - done;
        p->n_input += n - done;
        (void) loop_source_set_events(p->stdin_source, EPOLLOUT);
        return done;
}

void process_input_detach(ProcessReader *reader) {
        Process *p = reader->process;

        if (reader->n_input == 0)
                return;

        reader_consume_input(reader, reader->n_input);
        if (p->n_input == 0)
                input_is_empty(p);
}

void process_stdin_eof(Process *p) {
        if (p->spec.pty.wanted)
                return;

        p->stdin_eof = true;
        if (p->n_input == 0)
                process_input_close(p);
}

int process_input_open(Process *p, int *ret_child_fd) {
        int fds[2];

        if (!p->spec.with_stdin) {
                *ret_child_fd = p->table->null_fd;
                return 0;
        }

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;

        *ret_child_fd = fds[0];
        p->stdin_fd = fds[1];
        return fcntl(fds[1], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

int process_input_start(Process *p) {
        if (p->stdin_fd < 0)
                return 0;

        return loop_add(p->table->loop, p->stdin_fd, 0, on_stdin, p, &p->stdin_source);
}
