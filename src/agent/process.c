/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The life of a process: start, readers, end. */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "agent/process-internal.h"
#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"

#define TAG_RANDOM_LEN 8U /* "proc-" or "pty-" + 8 hex */

int process_table_new(Loop *loop, ProcessTable **ret) {
        ProcessTable *t;

        t = malloc(sizeof(ProcessTable));
        if (!t)
                return -ENOMEM;

        t->loop = loop;
        t->processes = t->last = NULL;
        t->n_alive = t->n_ended = 0;
        t->sinks = NULL;
        t->n_sinks = 0;
        t->users = (UserCache) {};
        spawn_defaults_init(&t->spawn_defaults);
        t->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (t->null_fd < 0) {
                int r = -errno;

                free(t);
                return r;
        }

        *ret = t;
        return 0;
}

static void table_link(ProcessTable *t, Process *p) {
        p->previous = t->last;
        *(t->last ? &t->last->next : &t->processes) = p;
        t->last = p;
        t->n_alive++;
}

static void table_unlink(Process *p) {
        ProcessTable *t = p->table;

        *(p->previous ? &p->previous->next : &t->processes) = p->next;
        *(p->next ? &p->next->previous : &t->last) = p->previous;
        if (p->finished)
                t->n_ended--;
        else
                t->n_alive--;
}

/* linked: it is in the table. */
static void process_free(Process *p, bool linked) {
        loop_timer_stop(&p->timeout_timer);
        loop_timer_stop(&p->grace_timer);
        loop_timer_stop(&p->stall_timer);
        process_io_close(p, /* sink= */ false);
        while (p->readers)
                reader_unlink(p->readers);
        if (linked)
                table_unlink(p);
        ring_done(&p->ring);
        spec_done(&p->spec);
        free(p);
}

ProcessTable* process_table_free(ProcessTable *t) {
        if (!t)
                return NULL;

        while (t->processes)
                process_free(t->processes, /* linked= */ true);
        while (t->sinks)
                process_sink_free(t->sinks);
        user_cache_done(&t->users);
        (void) close_fd(t->null_fd);
        free(t);
        return NULL;
}

/* the end */

/* The tail of the oldest goes when there are too many. */
static void table_trim(ProcessTable *t) {
        for (Process *p = t->processes; p && t->n_ended > PROCESS_ENDED_MAX;) {
                Process *next = p->next;

                if (p->finished && !p->readers)
                        process_free(p, /* linked= */ true);
                p = next;
        }
}

/* Gives the exit to those who have room for it; frees a process nobody can ask for any more. */
static void process_deliver_exit(Process *p) {
        for (ProcessReader **link = &p->readers; *link;) {
                ProcessReader *reader = *link;

                if (reader_write_exit(reader))
                        reader_unlink(reader);
                else
                        link = &reader->next;
        }

        if (p->readers)
                return;
        if (p->spec.keep)
                table_trim(p->table);
        else
                process_free(p, /* linked= */ true);
}

static void process_finish(Process *p) {
        if (p->finished)
                return;

        p->finished = true;
        p->table->n_alive--;
        p->table->n_ended++;
        loop_timer_stop(&p->timeout_timer);
        loop_timer_stop(&p->grace_timer);
        loop_timer_stop(&p->stall_timer);
        process_io_close(p, /* sink= */ true);
        process_deliver_exit(p);
}

static void on_grace(void *userdata) {
        Process *p = userdata;

        /* As long as a reader holds us up we cannot know whether there is more. */
        if (!p->timed_out && process_is_paused(p)) {
                loop_timer_start(p->table->loop, &p->grace_timer, PROCESS_GRACE_USEC, on_grace, p);
                return;
        }

        process_finish(p);
}

void process_output_came(Process *p) {
        if (!p->child_ended || p->finished)
                return;

        if (process_io_at_end(p)) {
                process_finish(p);
                return;
        }

        /* Without a reader, or after a timeout, a chatty grandchild does not prolong it. */
        if (!p->grace_timer.loop || (p->readers && !p->timed_out))
                loop_timer_start(p->table->loop, &p->grace_timer, PROCESS_GRACE_USEC, on_grace, p);
}

static void process_ended(Process *p, int status) {
        p->child_ended = true;
        p->status = status;
        p->duration_usec = now_usec(CLOCK_BOOTTIME) - p->started_usec;

        process_io_child_ended(p);
        if (process_io_at_end(p))
                process_finish(p);
        else
                loop_timer_start(p->table->loop, &p->grace_timer, PROCESS_GRACE_USEC, on_grace, p);
}

void process_table_reap(ProcessTable *t) {
        for (;;) {
                int status;
                pid_t pid;

                pid = waitpid(-1, &status, WNOHANG);
                if (pid <= 0)
                        return;

                for (Process *p = t->processes; p; p = p->next)
                        if (p->pid == pid && !p->child_ended) {
                                process_ended(p, status);
                                break;
                        }
        }
}

int process_kill(Process *p, int sig) {
        /* After the leader is reaped its number names our group only as long as no new process has got it.
         */
        if (p->finished || (p->child_ended && kill(p->pid, 0) >= 0))
                return -ESRCH;

        /* A shell with job control gives what runs in the foreground a group of its own, which outlives the
         * hang-up if it likes. */
        if (sig == SIGKILL && p->output[0].type == FRAME_PTY && p->output[0].fd >= 0) {
                pid_t foreground = tcgetpgrp(p->output[0].fd);

                if (foreground > 1 && foreground != p->pid)
                        (void) kill(-foreground, SIGKILL);
        }

        return kill(-p->pid, sig) < 0 ? -errno : 0;
}

static void on_timeout(void *userdata) {
        Process *p = userdata;

        p->timed_out = true;
        (void) process_kill(p, SIGKILL);
        if (p->child_ended)
                loop_timer_start(p->table->loop, &p->grace_timer, PROCESS_GRACE_USEC, on_grace, p);
}

/* readers */

void process_attach(Process *p, ProcessReader *reader, bool tail) {
        reader_link(p, reader);
        reader_begin(reader, /* hold= */ false);
        if (tail)
                reader_write_tail(reader);
        if (p->finished)
                process_deliver_exit(p);
        else
                readers_watch_stall(p);
}

void process_detach(ProcessReader *reader) {
        Process *p = reader->process;

        if (!p)
                return;

        process_input_detach(reader);
        reader_unlink(reader);
        if (reader->owner) {
                process_stdin_eof(p);
                if (!p->spec.keep)
                        (void) process_kill(p, SIGKILL);
        }

        if (p->finished)
                process_deliver_exit(p);
        else
                process_io_pump(p);
}

void process_reader_writable(ProcessReader *reader) {
        Process *p = reader->process;

        if (!p)
                return;
        if (p->finished)
                process_deliver_exit(p);
        else if (process_is_paused(p))
                process_io_pump(p);
}

/* the start */

static int process_name(Process *p) {
        uint8_t bytes[TAG_RANDOM_LEN / 2];
        char hex[TAG_RANDOM_LEN + 1];

        if (!isempty(p->spec.tag))
                return 0;

        /* Nothing secret: before the pool is ready any number will do. */
        if (getrandom(bytes, sizeof(bytes), GRND_NONBLOCK | GRND_INSECURE) != sizeof(bytes)) {
                uint64_t now = now_usec(CLOCK_MONOTONIC);

                memcpy(bytes, &now, sizeof(bytes));
        }

        hex_encode(bytes, sizeof(bytes), hex);
        free(p->spec.tag);
        p->spec.tag = strjoin(p->spec.pty.wanted ? "pty-" : "proc-", hex);
        return p->spec.tag ? 0 : -ENOMEM;
}

static int process_build_argv(Process *p, const User *user, const char *cwd, char *const *env,
                              char ***ret_argv, char ***ret_candidates) {
        _cleanup_strv_ char **argv = NULL;
        int r;

        if (isempty(p->spec.cmd)) {
                r = free_and_strdup(&p->spec.cmd, user->shell);
                return r < 0 ? r : spec_build_login(user, ret_argv, ret_candidates);
        }

        r = spec_build_argv(&p->spec, cwd, &argv);
        if (r >= 0)
                r = spec_build_candidates(argv[0], env, ret_candidates);
        if (r >= 0)
                *ret_argv = TAKE_PTR(argv);
        return r;
}

static int process_spawn(Process *p, const User *user, char *const *env_defaults, Fault *reterr) {
        _cleanup_strv_ char **env = NULL, **argv = NULL, **candidates = NULL;
        _cleanup_free_ char *cwd = NULL;
        int fds[3] = { -EBADF, -EBADF, -EBADF };
        int r;

        cwd = spec_resolve_cwd(&p->spec, user->home);
        r = cwd ? spec_build_env(&p->spec, user, env_defaults, &env) : -ENOMEM;
        if (r >= 0)
                r = process_build_argv(p, user, cwd, env, &argv, &candidates);
        if (r >= 0)
                r = process_name(p);
        if (r < 0)
                return fault_set(reterr, FAULT_AGENT, "Cannot start the process: %s.", strerror(-r));

        r = process_io_open(p, user, fds, reterr);
        if (r >= 0) {
                SpawnRequest q = {
                        .defaults = &p->table->spawn_defaults,
                        .argv = argv,
                        .env = env,
                        .candidates = candidates,
                        .cwd = cwd,
                        .any_cwd = isempty(p->spec.cwd),
                        .user = user,
                        .stdin_fd = fds[0],
                        .stdout_fd = fds[1],
                        .stderr_fd = fds[2],
                        .terminal = p->spec.pty.wanted,
                };

                r = spawn_process(&q, reterr);
        }
        if (fds[0] != p->table->null_fd && !p->spec.pty.wanted)
                (void) close_fd(fds[0]);
        if (r < 0)
                return r;

        p->pid = r;
        return 0;
}

void process_begin(ProcessReader *reader) {
        Process *p = reader->process;

        reader_begin(reader, p->spec.batch);
        if (p->spec.timeout_usec > 0)
                loop_timer_start(p->table->loop, &p->timeout_timer, p->spec.timeout_usec, on_timeout, p);

        if (process_io_start(p) < 0) { /* out of memory: it cannot be watched, hence must not run */
                (void) process_kill(p, SIGKILL);
                process_io_close(p, /* sink= */ false);
        }
}

int process_prepare(ProcessTable *t, Spec *spec, char *const *env_defaults, const char *default_user,
                    ProcessReader *reader, Fault *reterr) {
        uint64_t started_usec = now_usec(CLOCK_BOOTTIME);
        const User *user;
        Process *p;
        int r;

        if (t->n_alive >= PROCESSES_MAX)
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED, "Too many processes: the limit is %u.",
                                 PROCESSES_MAX);

        r = user_find(&t->users, isempty(spec->user) ? default_user : spec->user, &user, reterr);
        if (r < 0)
                return r;

        p = malloc(sizeof(Process));
        if (!p)
                return fault_set_errno(reterr, -ENOMEM, "Cannot start the process");

        *p = (Process) { .table = t,
                         .spec = *spec,
                         .started_usec = started_usec,
                         .stdin_fd = -EBADF,
                         .output = { { .fd = -EBADF, .child_fd = -EBADF },
                                     { .fd = -EBADF, .child_fd = -EBADF } } };
        *spec = (Spec) {};
        ring_init(&p->ring, PROCESS_RING_BYTES);

        r = process_spawn(p, user, env_defaults, reterr);
        if (r < 0) {
                process_free(p, /* linked= */ false);
                return r;
        }

        table_link(t, p);
        reader->owner = true;
        reader_link(p, reader);
        return 0;
}

/* look-up */

Process* process_find(ProcessTable *t, const char *selector, bool ended) {
        bool by_pid = selector[0] && selector[strspn(selector, "0123456789")] == '\0';
        Process *found = NULL;
        uint32_t pid = 0;

        if (by_pid && parse_u32(selector, &pid) < 0)
                return NULL;

        /* A pid may come again: of ended ones the newest is meant. */
        for (Process *p = t->processes; p; p = p->next) {
                if (by_pid ? (uint32_t) p->pid != pid : !streq(p->spec.tag, selector))
                        continue;
                if (!p->child_ended)
                        return p;
                if (ended)
                        found = p;
        }

        return found;
}
