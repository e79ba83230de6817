/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The bytes of a process: pipes to streams and ring, stream to stdin. */

#include <fcntl.h>
#include <string.h>

#include "agent/process-internal.h"
#include "basic/fd.h"

#define PUMP_BYTES_MAX (4 * PROCESS_READ_MAX) /* of one pipe in one turn, so that others get theirs */

/* Writes all or nothing is the caller's business: it has asked h2_stream_room(). */
static void reader_write(ProcessReader *reader, const void *data, size_t n) {
        if (h2_stream_write(reader->stream, data, n) < (ssize_t) n)
                (void) h2_stream_reset(reader->stream, H2_INTERNAL_ERROR);
}

/* Payload bytes that every reader has room for. */
static size_t readers_room(const Process *p) {
        size_t room = PROCESS_READ_MAX;

        for (ProcessReader *reader = p->readers; reader; reader = reader->next) {
                size_t have = h2_stream_room(reader->stream);

                room = MIN(room, have > FRAME_HEADER_LEN ? have - FRAME_HEADER_LEN : 0);
        }

        return room;
}

static void pipe_close(ProcessPipe *pipe) {
        pipe->source = loop_source_close(pipe->source);
        pipe->fd = -EBADF;
        pipe->paused = false;
}

static void pipe_pause(ProcessPipe *pipe, bool pause) {
        if (pipe->paused == pause)
                return;

        pipe->paused = pause;
        if (pipe->source)
                (void) loop_source_set_events(pipe->source, pause ? 0 : EPOLLIN);
}

static void pipe_deliver(ProcessPipe *pipe, const void *data, size_t n) {
        Process *p = pipe->process;
        uint8_t header[FRAME_HEADER_LEN];

        /* Without memory for the ring only the tail for late readers is lost. */
        (void) ring_append(&p->ring, pipe->type, data, n);

        frame_header(header, pipe->type, (uint32_t) n);
        for (ProcessReader *reader = p->readers; reader; reader = reader->next) {
                reader_write(reader, header, sizeof(header));
                reader_write(reader, data, n);
        }
}

/* True when something came, data or the end. */
static bool pipe_pump(ProcessPipe *pipe) {
        Process *p = pipe->process;
        bool came = false;

        for (size_t done = 0; pipe->fd >= 0 && done < PUMP_BYTES_MAX;) {
                size_t room = readers_room(p);
                ssize_t n;

                pipe_pause(pipe, room == 0);
                if (room == 0)
                        break;

                n = read(pipe->fd, p->table->buffer, room);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;

                came = true;
                if (n <= 0) {
                        pipe_close(pipe);
                        break;
                }

                pipe_deliver(pipe, p->table->buffer, (size_t) n);
                done += (size_t) n;
                /* A pipe gives all it has: the next read would say EAGAIN, unless the writer is gone. */
                if ((size_t) n < room && !p->child_ended)
                        break;
        }

        return came;
}

void process_io_pump(Process *p) {
        bool came = false;

        for (size_t i = 0; i < ELEMENTSOF(p->output); i++)
                came = pipe_pump(&p->output[i]) || came;

        if (came)
                process_output_came(p);
}

static void on_output(uint32_t events, void *userdata) {
        ProcessPipe *pipe = userdata;

        if (pipe_pump(pipe))
                process_output_came(pipe->process);
}

void process_write_tail(Process *p, ProcessReader *reader) {
        const void *data[2];
        size_t n[2], n_pieces;

        n_pieces = ring_read(&p->ring, data, n);
        for (size_t i = 0; i < n_pieces; i++)
                reader_write(reader, data[i], n[i]);
}

bool process_io_at_end(const Process *p) {
        return p->output[0].fd < 0 && p->output[1].fd < 0;
}

/* stdin */

static void stdin_give_credit(Process *p, size_t n) {
        for (ProcessReader *reader = p->readers; n > 0 && reader; reader = reader->next)
                if (reader->owner)
                        h2_stream_consume(reader->stream, n);
}

static void stdin_close(Process *p) {
        p->stdin_source = loop_source_free(p->stdin_source);
        p->stdin_fd = close_fd(p->stdin_fd);
        stdin_give_credit(p, p->n_stdin);
        free(p->stdin_data);
        p->stdin_data = NULL;
        p->n_stdin = p->stdin_size = 0;
}

/* What the pipe takes; all of it when nobody reads any more. */
static size_t stdin_write(Process *p, const uint8_t *data, size_t n) {
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

static void on_stdin(uint32_t events, void *userdata) {
        Process *p = userdata;
        size_t done;

        if (p->n_stdin == 0 && (events & (EPOLLERR | EPOLLHUP))) {
                stdin_close(p);
                return;
        }

        done = stdin_write(p, p->stdin_data, p->n_stdin);
        p->n_stdin -= done;
        if (p->n_stdin > 0)
                memmove(p->stdin_data, p->stdin_data + done, p->n_stdin);
        stdin_give_credit(p, done);

        if (p->stdin_fd < 0 || (p->n_stdin == 0 && p->stdin_eof))
                stdin_close(p);
        else if (p->n_stdin == 0)
                (void) loop_source_set_events(p->stdin_source, 0);
}

size_t process_stdin(Process *p, const void *data, size_t n) {
        size_t done = 0;

        if (p->stdin_fd < 0 || p->stdin_eof)
                return n;

        if (p->n_stdin == 0)
                done = stdin_write(p, data, n);
        if (p->stdin_fd < 0) {
                stdin_close(p);
                return n;
        }
        if (done == n)
                return n;

        if (p->stdin_size - p->n_stdin < n - done) {
                size_t size = p->n_stdin + n - done;
                uint8_t *bigger = realloc(p->stdin_data, size);

                if (!bigger) {
                        stdin_close(p); /* better a short input than one with a hole */
                        return n;
                }
                p->stdin_data = bigger;
                p->stdin_size = size;
        }

        memcpy(p->stdin_data + p->n_stdin, (const uint8_t *) data + done, n - done);
        p->n_stdin += n - done;
        (void) loop_source_set_events(p->stdin_source, EPOLLOUT);
        return done;
}

void process_stdin_eof(Process *p) {
        p->stdin_eof = true;
        if (p->n_stdin == 0)
                stdin_close(p);
}

/* begin and end */

static int output_open(Process *p, size_t i, FrameType type, int *ret_child_fd) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;

        p->output[i] = (ProcessPipe) { .process = p, .fd = fds[0], .type = type };
        *ret_child_fd = fds[1];
        return fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int stdin_open(Process *p, int *ret_child_fd) {
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

int process_io_open(Process *p, int ret_child_fds[static 3], Fault *reterr) {
        int r;

        r = stdin_open(p, &ret_child_fds[0]);
        if (r >= 0)
                r = output_open(p, 0, FRAME_STDOUT, &ret_child_fds[1]);
        if (r >= 0)
                r = output_open(p, 1, FRAME_STDERR, &ret_child_fds[2]);
        if (r < 0)
                return fault_set(reterr, FAULT_AGENT, "Cannot make the pipes of the process: %s.",
                                 strerror(-r));

        return 0;
}

int process_io_start(Process *p) {
        int r;

        for (size_t i = 0; i < ELEMENTSOF(p->output); i++) {
                ProcessPipe *pipe = &p->output[i];

                r = loop_add(p->table->loop, pipe->fd, EPOLLIN, on_output, pipe, &pipe->source);
                if (r < 0)
                        return r;
        }

        if (p->stdin_fd < 0)
                return 0;
        return loop_add(p->table->loop, p->stdin_fd, 0, on_stdin, p, &p->stdin_source);
}

static void on_sink(uint32_t events, void *userdata) {
        ProcessSink *sink = userdata;
        ssize_t n;

        n = read(sink->fd, sink->table->buffer, sizeof(sink->table->buffer));
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                process_sink_free(sink);
}

void process_sink_free(ProcessSink *s) {
        for (ProcessSink **link = &s->table->sinks; *link; link = &(*link)->next)
                if (*link == s) {
                        *link = s->next;
                        s->table->n_sinks--;
                        break;
                }

        (void) loop_source_free(s->source);
        (void) close_fd(s->fd);
        free(s);
}

/* Takes fd in every case. */
static void sink_add_consume(ProcessTable *t, int fd) {
        ProcessSink *s, *oldest = t->sinks;

        s = malloc(sizeof(ProcessSink));
        if (!s) {
                (void) close_fd(fd);
                return;
        }

        if (t->n_sinks >= PROCESS_SINKS_MAX) {
                while (oldest->next)
                        oldest = oldest->next;
                process_sink_free(oldest);
        }

        *s = (ProcessSink) { .fd = fd, .table = t, .next = t->sinks };
        t->sinks = s;
        t->n_sinks++;
        if (loop_add(t->loop, fd, EPOLLIN, on_sink, s, &s->source) < 0)
                process_sink_free(s);
}

void process_io_close(Process *p, bool sink) {
        for (size_t i = 0; i < ELEMENTSOF(p->output); i++) {
                ProcessPipe *pipe = &p->output[i];
                int fd;

                pipe->source = loop_source_free(pipe->source);
                fd = TAKE_FD(pipe->fd);
                if (fd >= 0 && sink)
                        sink_add_consume(p->table, fd);
                else
                        (void) close_fd(fd);
        }

        stdin_close(p);
}
