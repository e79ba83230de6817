/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The output of a process: pipes or terminal to streams and ring. Its input: process-input.c. */

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "agent/process-internal.h"
#include "basic/fd.h"
#include "basic/limits.h"

#define PUMP_BYTES_MAX (4 * PROCESS_READ_MAX) /* of one pipe in one turn, so that others get theirs */

static void pipe_close(ProcessPipe *pipe) {
        if (pipe->type == FRAME_PTY) { /* the input has a copy */
                pipe->source = loop_source_free(pipe->source);
                (void) close_fd(pipe->fd);
        } else
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
        readers_watch_stall(pipe->process);
}

static void pipe_deliver(ProcessPipe *pipe, const void *data, size_t n) {
        /* Without memory for the ring only the tail for late readers is lost. */
        (void) ring_append(&pipe->process->ring, pipe->type, data, n);
        readers_write(pipe->process, pipe->type, data, n);
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
                /* The end of its session's leader has hung a terminal up: nobody writes any more, whoever
                 * still has it open. */
                if (n < 0 && errno == EAGAIN && !(pipe->type == FRAME_PTY && p->child_ended))
                        break;

                came = true;
                if (n <= 0) { /* end of file; EIO of a terminal */
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

static bool io_read(Process *p) {
        bool came = false;

        for (size_t i = 0; i < ELEMENTSOF(p->output); i++)
                came = pipe_pump(&p->output[i]) || came;

        return came;
}

void process_io_pump(Process *p) {
        if (io_read(p))
                process_output_came(p);
}

static void io_close_child_ends(Process *p) {
        for (size_t i = 0; i < ELEMENTSOF(p->output); i++)
                p->output[i].child_fd = close_fd(p->output[i].child_fd);
}

void process_io_child_ended(Process *p) {
        io_close_child_ends(p);
        (void) io_read(p);
}

static void on_output(uint32_t events, void *userdata) {
        ProcessPipe *pipe = userdata;

        if (pipe_pump(pipe))
                process_output_came(pipe->process);
}

bool process_io_at_end(const Process *p) {
        return p->output[0].fd < 0 && p->output[1].fd < 0;
}

/* begin and end */

static int output_open(Process *p, size_t i, FrameType type, int *ret_child_fd) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;

        p->output[i] = (ProcessPipe) { .process = p, .fd = fds[0], .child_fd = fds[1], .type = type };
        *ret_child_fd = fds[1];
        return fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int terminal_set_up(int master_fd, int slave_fd, const Spec *spec, const User *user) {
        struct winsize size = { .ws_col = (unsigned short) spec->pty.cols,
                                .ws_row = (unsigned short) spec->pty.rows };
        struct termios mode;

        if (ioctl(master_fd, TIOCSWINSZ, &size) < 0 || tcgetattr(slave_fd, &mode) < 0)
                return -errno;

        mode.c_iflag |= IUTF8; /* one erase for one character */
        if (tcsetattr(slave_fd, TCSANOW, &mode) < 0 || fchown(slave_fd, user->uid, (gid_t) -1) < 0)
                return -errno;

        return 0;
}

/* The one end of ours is there twice, so that reading and writing are watched apart. */
static int terminal_open(Process *p, const User *user, int *ret_child_fd) {
        int unlocked = 0;

        p->output[0] = (ProcessPipe) {
                .process = p,
                .type = FRAME_PTY,
                .child_fd = -EBADF,
                .fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC),
        };
        if (p->output[0].fd < 0 || ioctl(p->output[0].fd, TIOCSPTLCK, &unlocked) < 0)
                return -errno;

        *ret_child_fd = p->output[0].child_fd = ioctl(p->output[0].fd, TIOCGPTPEER,
                                                      O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (*ret_child_fd < 0)
                return -errno;

        p->stdin_fd = fcntl(p->output[0].fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        if (p->stdin_fd < 0)
                return -errno;

        return terminal_set_up(p->output[0].fd, *ret_child_fd, &p->spec, user);
}

int process_io_open(Process *p, const User *user, int ret_child_fds[static 3], Fault *reterr) {
        int r;

        if (p->spec.pty.wanted) {
                r = terminal_open(p, user, &ret_child_fds[0]);
                ret_child_fds[1] = ret_child_fds[2] = ret_child_fds[0];
                if (r < 0)
                        return fault_set(reterr, FAULT_AGENT, "Cannot make the terminal: %s.", strerror(-r));
                return 0;
        }

        r = process_input_open(p, &ret_child_fds[0]);
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

                if (pipe->fd < 0)
                        continue;
                r = loop_add(p->table->loop, pipe->fd, EPOLLIN, on_output, pipe, &pipe->source);
                if (r < 0)
                        return r;
        }

        return process_input_start(p);
}

int process_resize(Process *p, uint32_t cols, uint32_t rows) {
        struct winsize size = { .ws_col = (unsigned short) cols, .ws_row = (unsigned short) rows };

        if (!p->spec.pty.wanted)
                return -ENOTTY;
        if (!pty_size_is_valid(cols, rows))
                return -ERANGE;
        if (p->output[0].fd < 0)
                return -ESRCH;

        return ioctl(p->output[0].fd, TIOCSWINSZ, &size) < 0 ? -errno : 0;
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
                /* A terminal hangs up what is left on it. */
                if (fd >= 0 && sink && pipe->type != FRAME_PTY)
                        sink_add_consume(p->table, fd);
                else
                        (void) close_fd(fd);
        }

        io_close_child_ends(p);
        process_input_close(p);
}
